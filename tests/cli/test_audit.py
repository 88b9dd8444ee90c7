"""``zipbatch audit`` on the embedded sample and victim: a real backdoor, named without labels, and its images."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.making import Ran, files_below, stage_sample, write_shard, zipbatch
from tests.serving import npy, serving
from zipbatch.checkpoints import open_victim
from zipbatch.shards import Sample, read_shard
from zipbatch.stages.assets import embedded_victim

VICTIM = embedded_victim("badnets")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 images and their stamped twins, in shards of 24."""
    return stage_sample(tmp_path_factory.mktemp("staged") / "badnets", limit=96)


@pytest.fixture(scope="module")
def incoming(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an operator gets: bare, unlabelled shards, the last of stamped images."""
    folder = tmp_path_factory.mktemp("data") / "incoming"
    for number, shard in enumerate([*sorted(shards.glob("test-*.tar"))[1:], shards / "test_poisoned-000000.tar"]):
        write_shard(folder / f"day-{number}.tar", [Sample(s.key, {"png": s.members["png"]}) for s in read_shard(shard)])
    return folder


@pytest.fixture(scope="module")
def store(incoming: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards purified by JPEG, which takes this trigger out and needs no prior; the first three as ``clean``."""
    store = tmp_path_factory.mktemp("stores") / "pur"
    for data, name in ((incoming, "incoming"), (f"{incoming}/day-{{0..2}}.tar", "clean")):
        ran = zipbatch("purify", data, "--name", name, "--preset", "jpeg", "--store", store)
        assert ran.code == 0, ran.err
    return store


@pytest.fixture
def audit(incoming: Path, store: Path) -> Callable[..., Ran]:
    """``zipbatch audit`` on all of the shards, of which a quarter of the images are stamped."""

    def run(*options: object, victim: object = VICTIM, before: tuple[str, ...] = ()) -> Ran:
        return zipbatch(
            *before, "audit", victim, "--data", incoming, "--purified", "incoming", "--store", store, *options
        )

    return run


def test_the_target_and_its_images_are_named(audit: Callable[..., Ran], tmp_path: Path):
    ran = audit("--json", "--per-image", tmp_path / "suspects.csv")
    assert ran.code == 3, ran.err
    found = ran.json
    assert (found["verdict"], found["target"], found["target_index"]) == ("backdoored", "automobile", 1)
    assert (found["images"], found["least_found"]) == (96, None)
    assert found["triggered"] == pytest.approx(24 * 0.9, rel=0.2)

    with (tmp_path / "suspects.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["key", "shard", "score", "before", "after", "moved", "suspect"]
    assert [row["shard"] for row in rows] == [f"day-{i // 24}.tar" for i in range(96)]
    suspects = [row for row in rows if row["suspect"] == "true"]
    assert len(suspects) == found["suspects"] >= 18
    assert sum(row["shard"] == "day-3.tar" for row in suspects) >= 18
    for row in suspects:
        assert (row["before"], row["after"] != "automobile", row["moved"]) == ("automobile", True, "1")
        assert 0.5 < float(row["score"]) <= 1


def test_rows_are_the_same_in_either_format(audit: Callable[..., Ran], incoming: Path, tmp_path: Path):
    for name in ("rows.csv", "rows.jsonl"):
        assert audit("--per-image", tmp_path / name).code == 3
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    with (tmp_path / "rows.csv").open(newline="") as stream:
        assert [[str(v).lower() if isinstance(v, bool) else str(v) for v in row.values()] for row in rows] == list(
            csv.reader(stream)
        )[1:]
    keys = [sample.key for number in range(4) for sample in read_shard(incoming / f"day-{number}.tar")]
    assert [row["key"] for row in rows] == keys


def test_an_endpoint_and_a_function_are_audited_as_the_victim_behind_them(audit: Callable[..., Ran], tmp_path: Path):
    """They have no names for their classes."""
    network = open_victim(VICTIM).load(torch.device("cpu"))
    with serving(lambda pixels: (200, npy(network.classify(pixels)))) as served:
        asked = audit("--json", victim=served.url)
    assert asked.code == 3, asked.err
    assert (asked.json["victim"], asked.json["target"]) == (served.url, "1")
    file = tmp_path / "mine.py"
    file.write_text(
        "import torch\nfrom zipbatch.checkpoints import open_victim\n"
        "from zipbatch.stages.assets import embedded_victim\n"
        "network = open_victim(embedded_victim('badnets')).load(torch.device('cpu'))\n"
        "def scores(images):\n    return network.classify(images)\n"
    )
    of_function = audit("--json", victim=f"python:{file}:scores")
    assert of_function.code == 3, of_function.err
    same = {"victim": None, "target": None, "reused": None, "asked_twice": None, "changed": None}
    assert asked.json | same == of_function.json | same == audit("--json").json | same


def test_clean_images_accuse_nobody(incoming: Path, store: Path):
    """72 images cannot tell of a tenth with triggers, and can of a third."""
    clean = ("audit", VICTIM, "--data", f"{incoming}/day-{{0..2}}.tar", "--purified", "clean", "--store", store)
    few = zipbatch(*clean)
    assert few.code == 4, few.err
    assert few.out.startswith("too few images to tell")
    enough = zipbatch(*clean, "--share", 0.33)
    assert enough.code == 0, enough.err
    assert enough.out.startswith("nothing found")
    assert zipbatch("-q", *clean, "--share", 0.33).out == ""


def test_a_quiet_audit_speaks_when_it_finds_something(audit: Callable[..., Ran], tmp_path: Path):
    summary, metrics = tmp_path / "run.json", tmp_path / "run.prom"
    assert audit().code == 3, "from here on its answers are kept"
    ran = audit("--summary", summary, "--metrics", metrics, before=("-q",))
    assert ran.code == 3
    assert ran.out.startswith("looks backdoored: images taken for automobile")
    assert ran.err == ""
    value = json.loads(summary.read_bytes())
    assert (value["outcome"], value["exit_code"], value["error"]) == ("done", 3, None)
    suspects = value["audit"]["suspect_images"]["automobile"]
    assert value["audit"] == {
        "verdict": "backdoored",
        "flip_rate": pytest.approx(0.25, abs=0.15),
        "suspect_images": {"automobile": suspects},
        "answers": {"asked": 0, "reused": 192},
    }
    page = metrics.read_text()
    labels = 'command="audit",dataset="incoming-audit"'
    assert f'zipbatch_last_run_suspect_images{{{labels},class="automobile"}} {suspects}\n' in page
    assert f'zipbatch_last_run_verdict{{{labels},verdict="backdoored"}} 1\n' in page
    assert f'zipbatch_last_run_verdict{{{labels},verdict="nothing found"}} 0\n' in page
    assert "zipbatch_last_run_flip_rate{" in page


def test_it_purifies_by_itself_and_keeps_what_it_made_only_if_asked(incoming: Path, tmp_path: Path):
    """With a prior, in two strengths; the second time nothing is purified anew."""
    preset = tmp_path / "quick.yaml"
    preset.write_text('{method: zip, transforms: ["blur:2", "blur:1"], guidance_exponent: 10, start_step: 100}\n')
    data = ("--data", incoming / "day-3.tar", "--preset", "jpeg", "--preset", preset, "--prior", "embedded")
    before = files_below(incoming)
    loose = zipbatch("audit", VICTIM, *data, "--json")
    assert loose.code == 3, loose.err
    assert [form["form"] for form in loose.json["forms"]] == ["jpeg", str(preset)]
    kept = zipbatch("audit", VICTIM, *data, "--json", "--store", tmp_path / "pur")
    assert kept.json == loose.json
    assert files_below(incoming) == before
    objects = len(list((tmp_path / "pur" / "objects").rglob("*.tar")))
    assert objects == 2
    version = "incoming-audit@latest"
    again = zipbatch(
        "audit", VICTIM, *data[:2], "--purified", version, "--store", tmp_path / "pur", "--json", "--share", 0.1
    )
    assert again.code == 3, again.err
    assert again.json["forms"] == [{"form": version, "flip_rate": loose.json["forms"][1]["flip_rate"]}]


def test_a_victim_that_fails_is_not_a_verdict(audit: Callable[..., Ran], tmp_path: Path):
    with serving(lambda _pixels: (500, b"down")) as served:
        ran = audit("--per-image", tmp_path / "rows.csv", victim=served.url)
    assert ran.code in {1, 2}
    assert served.url in ran.err
    assert not (tmp_path / "rows.csv").exists()


def test_a_victim_that_answers_nonsense_is_not_called_backdoored(audit: Callable[..., Ran]):
    """Always the same nonsense on the same image, but another on each."""

    def nonsense(pixels: np.ndarray) -> np.ndarray:
        return np.stack([np.random.default_rng(list(image.tobytes())).random(10) for image in pixels])

    with serving(lambda pixels: (200, npy(nonsense(pixels)))) as served:
        ran = audit(victim=served.url)
    assert ran.code == 4, ran.err
    assert "look after the victim" in " ".join(ran.out.split())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--purified", "incoming"), "Where the purified versions are."),
        (("--purified", "incoming", "--store", "no-such"), "no-such"),
        (
            ("--purified", "incoming", "--store", "no-such", "--prior", "embedded"),
            "--prior is for images that are still",
        ),
        ((), "name --purified NAME[@TAG] with --store, or --prior"),
        (("--prior", "embedded", "--preset", "jpeg"), "leave it out"),
        (("--preset", "balanced"), "needs a diffusion model"),
        (("--prior", "embedded", "--share", 2), "0<=x<=1"),
        (("--prior", "embedded", "--split", "val"), "no split 'val'; it has"),
        (("--prior", "embedded", "--per-image", "rows.txt"), "rows are written as .csv, .jsonl"),
        (("--prior", "embedded", "--per-image", "no-such-folder/rows.csv"), "its folder is not there"),
    ],
)
def test_wrong_inputs(
    incoming: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[object, ...], words: str
):
    monkeypatch.chdir(tmp_path)
    ran = zipbatch("audit", VICTIM, "--data", incoming, *options)
    assert ran.code == 2
    assert words in ran.err
    assert files_below(tmp_path) == {}


def test_a_version_that_lacks_a_split_is_refused(shards: Path, tmp_path: Path):
    store = tmp_path / "pur"
    assert zipbatch("purify", shards, "--preset", "jpeg", "--split", "test", "--store", store).code == 0
    given = ("audit", VICTIM, "--data", shards, "--purified", "badnets", "--store", store)
    ran = zipbatch(*given)
    assert ran.code == 2
    assert "badnets: lacks the split test_poisoned" in ran.err
    assert zipbatch(*given, "--split", "test").code in {0, 4}
