"""Bad input through the command: the right exit code, a message that names the culprit, and nothing left behind."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.making import (
    Ran,
    files_below,
    picture,
    sample,
    write_prior,
    write_shard,
    write_source,
    write_tar,
    write_victim,
    zipbatch,
)
from zipbatch import images
from zipbatch.store import Store, verify

PNG = images.encode_png(picture(0))
BLUR = ["--purifier", "blur"]
QUICK = ["--steps", 2, "--transform", "blur:2"]


def refused(ran: Ran, code: int, *parts: object) -> None:
    """The command failed with ``code``, said each of ``parts`` on stderr, nothing on stdout, and no traceback."""
    assert ran.code == code, ran.err
    assert ran.out == ""
    for part in parts:
        assert str(part) in ran.err
    assert "Traceback" not in ran.err
    assert "internal error" not in ran.err


def nothing_published(store: Path) -> None:
    """No version, no tag, no temp file; what is there is sound."""
    names = list(files_below(store)) if store.is_dir() else []
    assert not [n for n in names if ".tmp-" in n or n.startswith(("versions/", "tags/"))]
    if (store / "objects").is_dir():
        assert verify(Store(store)).faults == ()


def untouched(store: Path) -> None:
    """The request was refused before the store was made."""
    assert not store.exists()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "pur"


# ---- shards


def bad_text(path: Path) -> str:
    path.write_text("not a tar\n" * 200)
    return ""


def bad_empty(path: Path) -> str:
    path.write_bytes(b"")
    return ""


def bad_truncated(path: Path) -> str:
    write_shard(path, [sample(f"k{i}", i, seed=i) for i in range(4)])
    path.write_bytes(path.read_bytes()[:3000])
    return ""


def bad_boundary(path: Path) -> str:
    write_shard(path, [sample("a", 1, seed=1), sample("b", 1, seed=2)])
    with tarfile.open(path) as tar:
        end = tar.getmembers()[2].offset
    path.write_bytes(path.read_bytes()[:end])
    return ""


def bad_interleaved(path: Path) -> str:
    write_tar(path, [("a.png", PNG), ("b.png", PNG), ("a.cls", b"1"), ("b.cls", b"1")])
    return "key 'a'"


def bad_image(path: Path) -> str:
    write_tar(path, [("a.png", PNG), ("b.png", b"\x89PNG\r\n\x1a\n")])
    return "key 'b'"


def bad_key(path: Path) -> str:
    write_tar(path, [("../../evil.png", PNG)])
    return "../../evil"


SHARDS = [bad_text, bad_empty, bad_truncated, bad_boundary, bad_interleaved, bad_image, bad_key]


@pytest.mark.parametrize("make", SHARDS)
def test_a_bad_shard(store: Path, tmp_path: Path, make: Any):
    folder = tmp_path / "in"
    folder.mkdir()
    named = make(folder / "bad-0.tar")
    refused(zipbatch("purify", folder, *BLUR, "--store", store), 1, "1 of 1 shards failed", "bad-0.tar", named)
    nothing_published(store)
    assert [p.name for p in tmp_path.rglob("*evil*")] == []


@pytest.mark.parametrize("make", SHARDS[:6])
def test_one_bad_shard_among_good_ones(store: Path, tmp_path: Path, prior: Path, make: Any):
    folder = write_source(tmp_path / "in", counts={"test": 6}, shards=3)
    bad, good = folder / "test-000001.tar", (folder / "test-000001.tar").read_bytes()
    named = make(bad)
    command = ["purify", folder, "--prior", prior, *QUICK, "--store", store, "--tag", "t"]
    refused(zipbatch(*command), 1, "1 of 3 shards failed; no version was published", "test-000001.tar", named)
    nothing_published(store)
    assert len(list((store / "objects").rglob("*.tar"))) == 2
    bad.write_bytes(good)
    ran = zipbatch(*command, "--json")
    assert ran.code == 0, ran.err
    assert (ran.json["computed"], ran.json["reused"], ran.json["samples"]) == (1, 2, 6)
    whole = tmp_path / "whole"
    again = zipbatch(*command[:-3], whole, *command[-2:], "--json")
    assert again.json["version"] == ran.json["version"]
    assert files_below(whole / "objects") == files_below(store / "objects")


def test_a_shard_that_is_not_what_the_manifest_lists(store: Path, staged: Path, tmp_path: Path):
    copy = Path(shutil.copytree(staged, tmp_path / "copy"))
    shutil.copyfile(copy / "test-000000.tar", copy / "test-000001.tar")
    refused(zipbatch("purify", copy, *BLUR, "--store", store), 1, "test-000001.tar", "manifest")
    nothing_published(store)


@pytest.mark.parametrize("named", ["gone", "gone.tar", "day-{0..1}.tar"])
def test_a_missing_source(store: Path, tmp_path: Path, named: str):
    write_shard(tmp_path / "day-0.tar", [sample("a", 1, seed=1)])
    first_missing = named.replace("{0..1}", "1")
    refused(zipbatch("purify", tmp_path / named, *BLUR, "--store", store), 2, first_missing, "no such")
    refused(zipbatch("poison", tmp_path / named, "--attack", "badnets", "--out", tmp_path / "out"), 2, named, "no such")
    untouched(store)
    assert not (tmp_path / "out").exists()


def test_a_damaged_manifest(store: Path, staged: Path, tmp_path: Path):
    copy = Path(shutil.copytree(staged, tmp_path / "copy"))
    (copy / "manifest.json").write_text(json.dumps({**json.loads((copy / "manifest.json").read_text()), "seed": "x"}))
    refused(zipbatch("purify", copy, *BLUR, "--store", store), 2, copy / "manifest.json", "seed")
    untouched(store)


# ---- images that do not fit


def test_blur_that_does_not_divide_the_image(store: Path, tmp_path: Path):
    folder = write_source(tmp_path / "in", counts={"test": 2}, shards=1)
    ran = zipbatch("purify", folder, *BLUR, "--transform", "blur:3", "--store", store)
    refused(ran, 1, "test-000000.tar", "key 'test_0000'", "blur:3", "16 x 16")
    nothing_published(store)


@pytest.mark.parametrize("size", [12, 24, 17])
def test_images_that_neither_equal_nor_tile_the_priors(store: Path, tmp_path: Path, prior: Path, size: int):
    folder = tmp_path / "in"
    write_shard(folder / "test-0.tar", [sample("fits", 0, seed=0), sample("odd", 1, seed=1, size=size)])
    command = ["purify", folder, "--prior", prior, "--steps", 2, "--transform", "gray", "--store", store]
    refused(zipbatch(*command), 1, "test-0.tar", "key 'odd'", f"{size}x{size}", "16x16", "--resize")
    nothing_published(store)
    assert zipbatch(*command, "--resize", "stretch").code == 0


# ---- checkpoints


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return write_source(tmp_path / "in", counts={"test": 2}, shards=1)


def test_a_prior_without_scheduler_config(store: Path, shards: Path, prior: Path, tmp_path: Path):
    copy = Path(shutil.copytree(prior, tmp_path / "prior"))
    (copy / "scheduler" / "scheduler_config.json").unlink()
    ran = zipbatch("purify", shards, "--prior", copy, "--store", store)
    refused(ran, 2, copy / "scheduler" / "scheduler_config.json", "missing")
    untouched(store)


@pytest.mark.parametrize("given", [[], ["--prior", "gone"]])
def test_no_prior(store: Path, shards: Path, given: list[str]):
    refused(zipbatch("purify", shards, *given, "--store", store), 2, "gone" if given else "--prior")
    untouched(store)


class Evil:
    """Unpickling it creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.marker), "w"))


@pytest.mark.parametrize("name", ["diffusion_pytorch_model.bin", "diffusion_pytorch_model.safetensors"])
def test_a_pickle_as_prior(store: Path, shards: Path, tmp_path: Path, name: str):
    folder, marker = write_prior(tmp_path / "prior", binary=name.endswith(".bin")), tmp_path / "marker"
    torch.save({"conv_in.weight": Evil(marker)}, folder / "unet" / name)
    flags = ("--prior", folder, "--store", store, "--preset", "fast")
    refused(zipbatch("purify", shards, *flags), 2, folder / "unet" / name)
    assert not marker.exists()
    nothing_published(store)


def test_a_pickle_as_victim(staged: Path, victim: Path, tmp_path: Path):
    folder, marker = Path(shutil.copytree(victim, tmp_path / "v")), tmp_path / "marker"
    (folder / "model.safetensors").write_bytes(pickle.dumps(Evil(marker)))
    refused(zipbatch("evaluate", folder, "--data", staged), 2, folder / "model.safetensors")
    assert not marker.exists()


def test_a_pickle_as_training_checkpoint(staged: Path, tmp_path: Path):
    out, marker = tmp_path / "v", tmp_path / "marker"
    out.mkdir()
    torch.save(Evil(marker), out / "checkpoint.pt")
    before = files_below(out)
    refused(zipbatch("train", "victim", staged, "--out", out, "--arch", "resnet20"), 2, out / "checkpoint.pt")
    assert not marker.exists()
    assert files_below(out) == before


def test_a_prior_that_does_not_fit_its_config(store: Path, shards: Path, prior: Path, tmp_path: Path):
    copy = Path(shutil.copytree(prior, tmp_path / "prior"))
    file = copy / "unet" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "block_out_channels": [8, 24]}))
    refused(
        zipbatch("purify", shards, "--prior", copy, "--store", store, "--preset", "fast"), 2, copy, "of another shape"
    )
    nothing_published(store)


# ---- victims


def test_a_victim_with_another_class_count(staged: Path, tmp_path: Path):
    folder = write_victim(tmp_path / "v", classes=2)
    refused(zipbatch("evaluate", folder, "--data", staged), 2, folder, "2 classes", "has 3")


def test_a_victim_of_another_size(staged: Path, tmp_path: Path):
    folder = write_victim(tmp_path / "v", size=32)
    refused(zipbatch("evaluate", folder, "--data", staged), 2, folder, "32 px", "16 px")


def test_a_missing_victim(staged: Path, tmp_path: Path):
    refused(zipbatch("evaluate", tmp_path / "gone", "--data", staged), 2, tmp_path / "gone", "no such folder")
    refused(zipbatch("evaluate", tmp_path, "--data", staged), 2, tmp_path / "config.json", "missing")


# ---- versions


def test_a_version_of_other_data(store: Path, staged: Path, victim: Path, source: Path, tmp_path: Path):
    other = tmp_path / "other"
    options = ["--attack", "blended", "--out", other, "--samples-per-shard", 4]
    assert zipbatch("poison", source, *options).code == 0
    assert zipbatch("purify", other, *BLUR, "--store", store).code == 0
    ran = zipbatch("evaluate", victim, "--data", staged, "--purified", "other", "--store", store)
    refused(ran, 2, "other@", str(staged), "test_poisoned-000000.tar has other content")


def test_a_version_that_lacks_a_shard(store: Path, victim: Path, tmp_path: Path):
    folder = write_source(tmp_path / "in", counts={"test": 6}, shards=2)
    assert zipbatch("purify", folder, *BLUR, "--store", store).code == 0
    write_shard(folder / "test-000002.tar", [sample("new", 1, seed=1)])
    ran = zipbatch("evaluate", victim, "--data", folder, "--purified", "in", "--store", store)
    refused(ran, 2, "test-000002.tar is missing")


def test_an_unknown_tag(store: Path, staged: Path, victim: Path):
    assert zipbatch("purify", staged, *BLUR, "--store", store, "--tag", "nightly").code == 0
    command = ["evaluate", victim, "--data", staged, "--store", store, "--purified"]
    refused(zipbatch(*command, "tiny-badnets@weekly"), 2, "tiny-badnets@weekly", "latest, nightly")
    refused(zipbatch(*command, "other@latest"), 2, "other@latest", "tiny-badnets")
    refused(zipbatch(*command[:-3], "--purified", "tiny-badnets"), 2, "--store")


@pytest.mark.parametrize("flag", ["--tag", "--name"])
@pytest.mark.parametrize("value", ["a/b", "../x", "", "a b"])
def test_unfit_names(store: Path, staged: Path, flag: str, value: str):
    ran = zipbatch("purify", staged, *BLUR, "--store", store, flag, value)
    if flag == "--name" and not value:
        assert ran.code == 0  # an empty name is the folder's own
        return
    refused(ran, 2, flag, repr(value))
    untouched(store)


# ---- stores that cannot be written


@pytest.mark.parametrize("where", ["/proc/zipbatch/pur", "/sys/zipbatch/pur"])
def test_a_store_that_cannot_be_made(shards: Path, where: str):
    refused(zipbatch("purify", shards, *BLUR, "--store", where), 2, where, "cannot be written")


def test_a_store_below_a_regular_file(shards: Path, tmp_path: Path):
    (tmp_path / "file").write_text("x")
    before = files_below(tmp_path)
    ran = zipbatch("purify", shards, *BLUR, "--store", tmp_path / "file" / "pur")
    refused(ran, 2, tmp_path / "file" / "pur", "cannot be written")
    assert files_below(tmp_path) == before


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount a small tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_store(tiny_disk: Path, tmp_path: Path):
    folder, store = tmp_path / "in", tiny_disk / "pur"
    for number, count in enumerate((4, 400, 4)):
        rows = [sample(f"{number}-{i}", 1, seed=i) for i in range(count)]
        write_shard(folder / f"test-{number}.tar", rows)
    command = ["purify", folder, *BLUR, "--store", store]
    refused(zipbatch(*command), 1, "test-1.tar", "No space left on device", "free some space")
    nothing_published(store)
    roomy = Path(shutil.copytree(store, tmp_path / "roomy"))
    ran = zipbatch(*command[:-1], roomy, "--json")
    assert ran.code == 0, ran.err
    assert (ran.json["computed"], ran.json["reused"]) == (1, 2)
    assert verify(Store(roomy)).faults == ()


def test_a_full_store_is_not_tried_all_night(tiny_disk: Path, tmp_path: Path):
    for number in range(12):
        write_shard(tmp_path / "in" / f"test-{number:02}.tar", [sample(f"{number}-{i}", 1, seed=i) for i in range(300)])
    ran = zipbatch("purify", tmp_path / "in", *BLUR, "--store", tiny_disk / "pur", "--summary", tmp_path / "run.json")
    counts = json.loads((tmp_path / "run.json").read_bytes())["counts"]
    assert 3 <= counts["failed"] <= 4  # one more was in hand
    assert (counts["done"], counts["left"]) == (0, 12 - counts["failed"])
    refused(ran, 1, "free some space", f"{counts['left']} more were not begun")
    nothing_published(tiny_disk / "pur")


def test_a_full_disk_for_staging(tiny_disk: Path, tmp_path: Path):
    source = write_source(tmp_path / "in", counts={"test": 400}, shards=1)
    ran = zipbatch("poison", source, "--attack", "badnets", "--out", tiny_disk / "out", "--samples-per-shard", 50)
    refused(ran, 1, "disk is full")
    assert list(tiny_disk.iterdir()) == []


# ---- flags


FLAGS: dict[str, tuple[list[object], list[str]]] = {
    "unknown preset": (["--preset", "nope"], ["'nope'", "paper"]),
    "preset file missing": (["--preset", "nope.yaml"], ["nope.yaml"]),
    "unknown purifier": (["--purifier", "nope"], ["'nope'", "zip"]),
    "preset of another purifier": (["--preset", "paper", *BLUR], ["paper", "blur"]),
    "eta with blur": ([*BLUR, "--eta", "0.5"], ["--eta", "blur"]),
    "steps with blur": ([*BLUR, "--steps", "5"], ["--steps", "blur"]),
    "guidance exponent 0": (["--guidance-exponent", 0], ["guidance_exponent", "0.0"]),
    "guidance exponent -1": (["--guidance-exponent", -1], ["guidance_exponent", "-1"]),
    "guidance exponent nan": (["--guidance-exponent", "nan"], ["guidance_exponent", "nan"]),
    "guidance exponent inf": (["--guidance-exponent", "inf"], ["guidance_exponent", "inf"]),
    "guidance exponent text": (["--guidance-exponent", "x"], ["--guidance-exponent", "'x'"]),
    "eta 2": (["--eta", 2], ["eta", "2.0"]),
    "eta -1": (["--eta", -1], ["eta", "-1.0"]),
    "eta nan": (["--eta", "nan"], ["eta", "nan"]),
    "steps 0": (["--steps", 0], ["steps", "0"]),
    "steps 2000": (["--steps", 2000], ["steps", "2000", "1000"]),
    "start step 0": (["--start-step", 0], ["start_step", "0"]),
    "transform": (["--transform", "nonsense"], ["transforms", "nonsense", "blur:N"]),
    "transform blur:0": (["--transform", "blur:0"], ["transforms", "blur:0"]),
    "transform blur:-1": (["--transform", "gray", "--transform", "blur:-1"], ["transforms.1", "blur:-1"]),
    "several at once": (["--steps", 0, "--eta", 3, "--transform", "x"], ["steps", "eta", "transforms"]),
    "gpus and workers": (["--gpus", 1, "--workers", 1], ["--gpus", "--workers"]),
    "address without workers": (["--address", "auto"], ["--address", "--workers"]),
    "address with no workers": (["--address", "auto", "--workers", 0], ["--address"]),
    "gpus 0": (["--gpus", 0], ["--gpus"]),
    "workers -1": (["--workers", -1], ["--workers"]),
    "batch size 0": (["--batch-size", 0], ["--batch-size"]),
    "seed": (["--seed", -1], ["--seed"]),
    "unknown flag": (["--nope"], ["--nope"]),
    "split": (["--split", "val"], ["'val'", "test_poisoned"]),
}


@pytest.mark.parametrize("case", FLAGS)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_flags(store: Path, staged: Path, prior: Path, case: str, dry: list[str]):
    options, named = FLAGS[case]
    refused(zipbatch("purify", staged, "--prior", prior, "--store", store, *options, *dry), 2, *named)
    untouched(store)


@pytest.mark.skipif(torch.cuda.device_count() >= 8, reason="has eight GPUs")
@pytest.mark.parametrize("command", ["purify", "evaluate"])
def test_more_gpus_than_there_are(store: Path, staged: Path, prior: Path, victim: Path, command: str):
    target = {"purify": [staged, "--prior", prior, "--store", store], "evaluate": [victim, "--data", staged]}[command]
    ran = zipbatch(command, *target, "--gpus", 8)
    refused(ran, 2, "--gpus 8", f"has {torch.cuda.device_count()} CUDA devices", "--workers")
    untouched(store)


@pytest.mark.skipif(torch.cuda.is_available(), reason="has CUDA")
@pytest.mark.parametrize("command", ["purify", "evaluate", "train"])
def test_cuda_without_cuda(staged: Path, prior: Path, victim: Path, tmp_path: Path, command: str):
    target = {
        "purify": ["purify", staged, "--prior", prior, "--store", tmp_path / "pur"],
        "evaluate": ["evaluate", victim, "--data", staged],
        "train": ["train", "victim", staged, "--out", tmp_path / "v"],
    }[command]
    refused(zipbatch(*target, "--device", "cuda"), 2, "--device cuda", "--device cpu")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_attack(source: Path, tmp_path: Path):
    ran = zipbatch("poison", source, "--attack", "trojan", "--out", tmp_path / "out")
    refused(ran, 2, "'trojan'", "badnets", "wanet")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("method: zip\nsteps: many\neta: 7\n", ["steps", "many", "eta", "7"]),
        ("method: zip\nsurprise: 1\n", ["surprise"]),
        ("method: nope\n", ["nope", "zip"]),
        ("- a\n", ["mapping"]),
        ("a: [\n", ["YAML"]),
        ("!!python/object/apply:os.system ['touch marker']\n", ["YAML"]),
    ],
)
def test_a_bad_preset_file(staged: Path, prior: Path, tmp_path: Path, text: str, named: list[str]):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    ran = zipbatch("purify", staged, "--prior", prior, "--preset", file, "--store", tmp_path / "pur")
    refused(ran, 2, file, *named)
    untouched(tmp_path / "pur")
    assert not Path("marker").exists()


@pytest.mark.parametrize(
    ("options", "named"),
    [(["--arch", "nope"], "nope"), (["--preset", "nope"], "nope"), (["--epochs", 0], "--epochs")],
)
def test_training_flags(staged: Path, tmp_path: Path, options: list[object], named: str):
    refused(zipbatch("train", "victim", staged, "--out", tmp_path / "v", *options), 2, named)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["nope"], [], ["purify"], ["store"], ["poison", "x"], ["ls", "nope"]])
def test_usage(arguments: list[str]):
    ran = zipbatch(*arguments)
    assert ran.code == 2
    assert "Usage:" in ran.err
    assert "Traceback" not in ran.err
