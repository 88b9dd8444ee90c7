"""Priors from the hub: fetched from a small server of our own, only when named, once; refusals say why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.making import calibrate_made_up, sample, write_ddpm_cifar10, write_shard
from zipbatch.atomic import sha256_file
from zipbatch.checkpoints import open_prior, read_calibration

MODEL = "google/ddpm-cifar10-32"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
BRANCHES = {"main", "fp16", COMMIT}


class FakeHub(BaseHTTPRequestHandler):
    """Lists and serves the files of ``folder`` as one model, and remembers what it was asked for."""

    folder: Path
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        path = self.path.partition("?")[0].strip("/").split("/")
        if path[:2] == ["api", "models"]:
            self._list("/".join(path[2:4]), path[5] if len(path) > 5 else "main")
        else:
            self._file("/".join(path[:2]), path[3], self.folder / "/".join(path[4:]))

    do_HEAD = do_GET  # noqa: N815

    def _list(self, model: str, revision: str) -> None:
        if model not in {MODEL, "some/classifier"}:
            self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif revision not in BRANCHES:
            self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        else:
            files = sorted(self.folder.iterdir()) if model == MODEL else [self.folder / "config.json"]
            rows = [{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": "0" * 40} for f in files]
            self._answer(200, json.dumps(rows).encode(), {"Content-Type": "application/json"})

    def _file(self, model: str, revision: str, file: Path) -> None:
        if model != MODEL or revision not in BRANCHES or not file.is_file():
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
        else:
            self._answer(200, file.read_bytes(), {"X-Repo-Commit": COMMIT, "ETag": f'"{sha256_file(file)}"'})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[str, list[str], Path]]:
    """The server's address, what it was asked for, and the folder it serves."""
    folder = write_ddpm_cifar10(tmp_path / "served")
    (folder / "README.md").write_text("a model")
    (folder / "diffusion_pytorch_model.bin").write_bytes(b"the same weights in the old format")
    asked: list[str] = []
    handler = type("Handler", (FakeHub,), {"folder": folder, "asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked, folder
        server.shutdown()
        thread.join()


def environment(tmp_path: Path, address: str, **more: str) -> dict[str, str]:
    """As a user has it: a cache, an address, no word on being offline."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_"))}
    return {**kept, "HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": address, "HF_HUB_DISABLE_TELEMETRY": "1", **more}


def plan(env: dict[str, str], shard: Path, prior: object) -> subprocess.CompletedProcess[str]:
    command = ["purify", shard, "--prior", prior, "--store", "pur", "--steps", 2, "--dry-run", "--json"]
    return subprocess.run(
        [sys.executable, "-m", "zipbatch", *map(str, command)],
        env={**env, "PYTHONPATH": str(Path(__file__).parents[2])},
        cwd=shard.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shard(tmp_path_factory.mktemp("in") / "a.tar", [sample("a", 0, seed=0, size=32)])


def test_named_models_are_fetched_once(hub: tuple[str, list[str], Path], tmp_path: Path, shard: Path):
    address, asked, folder = hub
    env = environment(tmp_path, address)
    first = plan(env, shard, f"hub:{MODEL}")
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)["purifier"]["prior_sha256"] == open_prior(folder).digest
    fetched = {line.split("/")[-1] for line in asked if "/resolve/" in line}
    assert fetched == {"config.json", "scheduler_config.json", "diffusion_pytorch_model.safetensors"}

    asked.clear()
    again = plan({**env, "HF_HUB_OFFLINE": "1"}, shard, f"hub:{MODEL}")
    assert (again.returncode, again.stdout) == (0, first.stdout), again.stderr
    assert asked == []


def test_a_calibration_comes_along(hub: tuple[str, list[str], Path], tmp_path: Path):
    address, _, folder = hub
    calibrate_made_up(folder, image_size=32)
    (there,) = answers(environment(tmp_path, address), f"hub:{MODEL}")
    assert read_calibration(open_prior(Path(there))) == read_calibration(open_prior(folder))


ASK = """
import sys
from zipbatch.checkpoints.hub import fetch_prior
from zipbatch.errors import UsageError
for reference in sys.argv[1:]:
    try:
        print(fetch_prior(reference))
    except UsageError as error:
        print(error)
"""


def answers(env: dict[str, str], *references: str) -> list[str]:
    """What ``fetch_prior`` gives or says for each, asked in one process with the environment of a user."""
    command = [sys.executable, "-c", ASK, *references]
    env = {**env, "PYTHONPATH": str(Path(__file__).parents[2])}
    ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=True)
    return ran.stdout.splitlines()


@pytest.mark.parametrize("count", [1, 3], ids=["a variant", "several files"])
def test_models_with_other_weights_files(hub: tuple[str, list[str], Path], tmp_path: Path, count: int):
    """Only half-precision weights, or an index and what it lists: what is fetched is what is there, and once."""
    address, asked, folder = hub
    weights = folder / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    names = ["diffusion_pytorch_model.fp16.safetensors"]
    if count > 1:
        names = [f"diffusion_pytorch_model-{number}-of-{count}.safetensors" for number in range(count)]
        listed = {key: names[number % count] for number, key in enumerate(state)}
        (folder / f"{weights.name}.index.json").write_text(json.dumps({"weight_map": listed}))
    for number, name in enumerate(names):
        save_file(dict(list(state.items())[number::count]), folder / name)
    for file in (weights, folder / "diffusion_pytorch_model.bin"):
        file.unlink()
    env = environment(tmp_path, address)
    (fetched,) = answers(env, f"hub:{MODEL}")
    assert open_prior(Path(fetched)).digest == open_prior(folder).digest
    asked.clear()
    assert answers({**env, "HF_HUB_OFFLINE": "1"}, f"hub:{MODEL}") == [fetched]
    assert asked == []


def test_what_cannot_be_had_is_said(hub: tuple[str, list[str], Path], tmp_path: Path):
    address, asked, _ = hub
    env = environment(tmp_path, address)
    expected = {
        f"hub:{MODEL}@v9": "the model has no such revision",
        "hub:nobody/nothing": "the hub has no such model",
        "hub:some/classifier": "is no prior in diffusers' format; it has config.json",
        "hub:../../etc": "HFValidationError",
        "hub:": "HFValidationError",
        "hub:x y@": "HFValidationError",
    }
    *said, folder = answers(env, *expected, f"hub:{MODEL}@fp16")
    for line, (reference, reason) in zip(said, expected.items(), strict=True):
        assert line.startswith(f"{reference}: ")
        assert reason in line
    assert folder.endswith(COMMIT)
    asked.clear()
    offline = answers({**env, "HF_HUB_OFFLINE": "1"}, f"hub:{MODEL}@v2")
    assert "is not in the hub's cache, and HF_HUB_OFFLINE forbids to download it" in offline[0]
    assert asked == []


def test_an_http_library_that_fails_is_a_usage_error(monkeypatch: pytest.MonkeyPatch):
    import huggingface_hub

    from zipbatch.checkpoints.hub import fetch_prior
    from zipbatch.errors import UsageError

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no route to host\nand more")

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", fail)
    with pytest.raises(UsageError, match=r"hub:a/b: cannot be downloaded \(RuntimeError: no route to host\); without"):
        fetch_prior("hub:a/b")


@pytest.mark.slow  # the hub's client tries for half a minute
def test_without_network(tmp_path: Path):
    env = environment(tmp_path, "http://127.0.0.1:9")  # nothing listens there
    assert "without network, name a local folder instead" in answers(env, f"hub:{MODEL}")[0]


def test_without_the_package(monkeypatch: pytest.MonkeyPatch):
    from zipbatch.checkpoints.hub import fetch_prior
    from zipbatch.errors import UsageError

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UsageError, match=r"hub:a/b: the package huggingface_hub is needed"):
        fetch_prior("hub:a/b")
