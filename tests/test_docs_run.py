"""The commands and examples of the documents, run page by page, in a folder that has the paths they speak of."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from PIL import Image
from safetensors.torch import load_file

from tests.archives import LABEL_NAMES, write_cifar10_tar
from tests.documents import GUIDES, ROOT, Block, Command, blocks, commands
from tests.making import Ran, sample, write_shard, zipbatch
from zipbatch.shards import Sample, read_shard
from zipbatch.stages.assets import embedded_prior, embedded_victim, sample_source

# What is not run here, and why; tests/test_docs.py parses it all the same.
ALONE = {
    "demo": "tests/cli/test_demo.py runs it",
    "train": "trains for minutes; tests/stages/test_train_*.py run it",
    "adapt": "optimises for minutes; tests/stages/adapt/test_adapt.py runs it",
    "import": "files of other tools; tests/stages/test_import_*.py run it",
    "audit": "run by the README's quick starts",
    "tune": "run by the README's quick starts",
    "report": "tests/cli/test_report.py runs it",
    "calibrate": "run by the README's quick starts",
}
ELSEWHERE = {
    "s3://": "an object store; tests/stages/test_object_stores.py",
    "http://": "an endpoint; tests/endpoints/test_http.py",
    "hub:": "a download; tests/checkpoints/test_hub.py",
    "/srv/": "paths of a machine of the operator's",
    "gtsrb": "another archive; tests/pipeline/test_pipeline.py plans it",
    "imagenette": "another archive; tests/pipeline/test_pipeline.py plans it",
    "--track": "packages of the users'; tests/tracking/test_packages.py",
    "@theirs": "made by another tool; tests/stages/convert/test_import_purified.py",
}
PACKAGES_OF_THE_USERS = {"datasets", "mlcroissant", "wids"}
"""Examples that import one of these run where it is installed."""
FEW = 32


def shard_of(path: Path, images: list[Sample], split: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_shard(path, images)
    return path


def write_cifar(folder: Path) -> None:
    """CIFAR-10's classes in folders of shards, its images random ones."""
    for split, count in (("train", 60), ("test", 20)):
        rows = [sample(f"{split}_{i}", i % 10, seed=i, size=32) for i in range(count)]
        shard_of(folder / f"{split}-000003.tar", rows)
    (folder / "classes.txt").write_text("\n".join(LABEL_NAMES) + "\n")


def write_pictures(folder: Path, images: list[Sample]) -> None:
    folder.mkdir(exist_ok=True)
    for image in images:
        (folder / f"{image.key}.png").write_bytes(image.members["png"])


def write_keys(folder: Path) -> None:
    """``key.pem`` and ``key.pub.pem``, as the documents have openssl make them."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "key.pem").write_bytes(private)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / "key.pub.pem").write_bytes(public)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every path of a user's that the documents name, small."""
    root = tmp_path_factory.mktemp("user")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write_cifar(root / "cifar10")
        write_cifar(root / "cifar10-jpeg")
        write_cifar10_tar(root / "cifar-10-python.tar.gz", count=12)
        embedded = list(islice(read_shard(next(sample_source().glob("*.tar"))), 3 * FEW))
        write_pictures(root / "photos", embedded[:FEW])
        (root / "pets").mkdir()
        for name in ("cat", "dog"):
            write_pictures(root / "pets" / name, embedded[:FEW])
        write_pictures(root / "clean", embedded[FEW : 2 * FEW])
        for i in range(10):
            shard_of(root / f"incoming/day-{i:03d}.tar", embedded[2 * FEW + 3 * i :][:3])
        for name in ("stamp", "a", "b", "trigger", "adaptive"):
            Image.fromarray(np.full((5, 5, 4), 200, np.uint8), "RGBA").save(f"{name}.png")
        for name in ("added", "trigger", "adaptive"):
            np.save(f"{name}.npy", np.full((32, 32, 3), 8.0))
        torch.save(load_file(embedded_victim("badnets") / "model.safetensors"), "model.pth")
        for name in ("badnets", "theirs", "mine"):
            shutil.copytree(embedded_victim("badnets"), root / "victims" / name)
        shutil.copytree(embedded_prior(), root / "priors" / "mine")
        write_keys(root)
        Path("pipelines").symlink_to(ROOT / "pipelines")
        (root / "mine.py").write_text("".join(block.text for block in own_functions()))
        (root / "ours.yaml").write_text((ROOT / "configs/purifiers/blur.yaml").read_text())
        for block in blocks(ROOT / "docs/pipelines.md"):
            if block.language == "yaml":  # begins with its name: # table.yaml
                (root / block.text.split()[1]).write_text(block.text)
        make_versions()
    return root


def own_functions() -> list[Block]:
    """What docs/ shows of ``mine.py``."""
    found = [
        block for page in GUIDES for block in blocks(page) if block.language == "python" and "mine.py" in block.text
    ]
    assert len(found) == 2
    return found


def make_versions() -> None:
    """The versions that the documents name, purified by blur."""
    done = ("--preset", "blur", "--store", "pur/")
    for given in (
        ("poison", "cifar10:cifar-10-python.tar.gz", "--attack", "badnets", "--out", "shards/cifar10-badnets"),
        ("poison", "cifar10/", "--attack", "badnets", "--out", "shards/bb"),
        ("purify", "shards/cifar10-badnets", *done, "--tag", "nightly"),
        ("purify", "shards/cifar10-badnets", *done, "--limit", "1"),
        ("purify", "incoming/", *done, "--tag", "yesterday"),
        ("purify", "incoming/", *done, "--tag", "nightly"),
        ("store", "export", "cifar10-badnets@nightly", "theirs/", "--as", "images", "--store", "pur/"),
    ):
        ran = zipbatch(*given)
        assert ran.code == 0, ran.err


@pytest.fixture
def user(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the current folder."""
    here = tmp_path / "user"
    shutil.copytree(prepared, here, symlinks=True)
    monkeypatch.chdir(here)
    return here


def is_left_out(command: Command) -> bool:
    """For a reason of ``ALONE`` or ``ELSEWHERE``, or because it is one of a quick start of the README, run below."""
    if command.words[0] != "zipbatch" or command.words in {
        quick.words for block in blocks(ROOT / "README.md") if block.language == "sh" for quick in commands(block)
    }:
        return True
    verb = next(word for word in command.words[1:] if not word.startswith("-"))
    return verb in ALONE or any(mark in word for word in command.words for mark in ELSEWHERE)


def on_this_machine(words: tuple[str, ...]) -> list[str]:
    """Without the workers that it lacks."""
    left, kept = iter(words), []
    for word in left:
        if word in {"--gpus", "--workers", "--address", "--at-least"}:
            next(left)
        else:
            kept.append(word)
    return kept


def carried_out(command: Command, *more: str) -> Ran:
    """Run it in this process; ``purify`` and ``run`` of a page say what they would do, everything else is done."""
    words = [*on_this_machine(command.words[1:]), *more]
    ran = zipbatch(*words)
    assert ran.code == 0, f"{command}\n{ran.out}{ran.err}"
    return ran


@pytest.mark.parametrize("page", GUIDES[1:], ids=lambda page: page.name)
def test_the_commands_and_examples_of_a_page_run(user: Path, page: Path):
    for block in blocks(page):
        if block.language == "python" and not lacking(block):
            subprocess.run([sys.executable, "-c", block.text], check=True)
        for command in commands(block) if block.language == "sh" else ():
            if not is_left_out(command):
                planned = {"purify", "run"} & set(command.words) and "--dry-run" not in command.words
                short = ["--seconds", "1"] if command.words[1] == "bench" else []
                carried_out(command, *(["--dry-run"] if planned else short))


def lacking(block: Block) -> set[str]:
    """The users' own packages that an example needs and that are not there."""
    imported = set(re.findall(r"^(?:import|from) (\w+)", block.text, re.MULTILINE))
    return {name for name in imported & PACKAGES_OF_THE_USERS if find_spec(name) is None}


def test_what_is_left_out_is_all_there():
    """No reason that nothing is left out for any more."""
    words = {word for page in GUIDES for block in blocks(page) for command in commands(block) for word in command.words}
    assert [verb for verb in ALONE if verb not in words] == []
    assert [mark for mark in ELSEWHERE if not any(mark in word for word in words)] == []


def quick_start(heading: str) -> list[Command]:
    """The README's commands below this heading."""
    found = [block for block in blocks(ROOT / "README.md") if block.heading == heading]
    assert [block.language for block in found] == ["sh"]
    lines = [line for line in found[0].text.splitlines() if line.strip()]
    assert len(lines) <= 10, "a quick start has ten lines"
    return list(commands(found[0]))


def test_quick_start_with_a_folder_of_images_and_a_model(user: Path):
    for path in ("victims/mine", "ours.yaml"):
        shutil.rmtree(path) if Path(path).is_dir() else Path(path).unlink()
    for command in quick_start("My image folder and my model"):
        if command.words[0] == "tar":
            subprocess.run(command.words, check=True)
        elif "audit" in command.words:
            ran = zipbatch(*command.words[1:])
            assert ran.code in {0, 3, 4}, ran.err
            assert len(Path("suspects.csv").read_text().splitlines()) == 1 + FEW
        else:
            carried_out(command)
    assert Path("sheet.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.stem for path in Path("purified").rglob("*.png")) == sorted(
        path.stem for path in Path("photos").iterdir()
    )


def test_quick_start_of_every_night(user: Path):
    Path("priors/mine/calibration.json").unlink()
    for command in quick_start("Every night"):
        if "audit" in command.words:
            ran = zipbatch(*command.words[1:])
            assert ran.code in {0, 3, 4}, ran.err
            assert json.loads(Path("audit.json").read_text())["exit_code"] == ran.code
        else:
            ran = carried_out(command)
            assert "-q" not in command.words or ran.out + ran.err == ""
            urls = ran.out.split() if "urls" in command.words else []
            assert all(Path(url).is_file() for url in urls) and len(urls) in {0, 10}
    assert json.loads(Path("run.json").read_text())["outcome"] == "done"
    assert "zipbatch_last_success_timestamp_seconds" in Path("run.prom").read_text()


def test_quick_start_of_the_papers_table_is_planned(user: Path):
    for command in quick_start("The paper's table"):
        plan = carried_out(command, *([] if "--dry-run" in command.words else ["--dry-run"]))
        assert "evaluate" in plan.out


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_quick_start_of_the_papers_table(user: Path):
    """With four test images, and victims that are trained for an epoch."""
    write_cifar10_tar(user / "cifar-10-python.tar.gz", count=4)
    Path("tiny.yaml").write_text("arch: resnet20\nepochs: 1\nbatch_size: 8\nlr: 0.1\naugment: false\n")
    for command in quick_start("The paper's table"):
        words = tuple("limit=4" if word == "limit=1000" else word for word in command.words)
        trains = {"cifar10", "four-modes"} & set(words)
        carried_out(replace(command, words=words), *(["--var", "training=tiny.yaml"] if trains else []))
    for table in ("attacks.csv", "cifar10.csv", "seeds.csv", "modes.csv"):
        assert len(Path(table).read_text().splitlines()) > 3
