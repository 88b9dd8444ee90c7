"""Images of a source that cannot be read: all of them are listed before anything stops, or skipped, counted, listed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.making import Ran, files_below, picture, sample, write_source, write_tar, zipbatch
from zipbatch import images
from zipbatch.datasets import open_dataset
from zipbatch.shards import read_shard

BROKEN = [b"", b"no image", images.encode_png(picture(0))[:70]]


def folder(root: Path, *, broken: int, good: int = 8) -> Path:
    """``good`` images a split and ``broken`` ones between them."""
    for split in ("train", "test"):
        for i in range(good + broken):
            file = root / split / "ab"[i % 2] / f"{i:03d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(images.encode_png(picture(i)) if i >= broken else BROKEN[i % len(BROKEN)])
    return root


def stage(source: object, out: Path, *options: object) -> Ran:
    return zipbatch("poison", source, "--attack", "badnets", "--out", out, "--image-size", 16, "--json", *options)


@pytest.mark.parametrize("broken", [1, 3, 15])
def test_all_are_listed_at_once(tmp_path: Path, broken: int):
    ran = stage(folder(tmp_path / "in", broken=broken), tmp_path / "out")
    assert (ran.code, ran.out) == (1, "")
    assert f"in: {2 * broken} images cannot be read; mend or remove them, or say --skip-unreadable" in ran.err
    named = [f"{split}/{'ab'[i % 2]}/{i:03d}.png: key " for split in ("train", "test") for i in range(broken)]
    shown = [name for name in named if name in ran.err]
    assert len(shown) == min(20, len(named))
    assert (f"… and {len(named) - 20} more" in ran.err) == (len(named) > 20)
    assert not (tmp_path / "out").exists()


def test_skipped_ones_are_as_if_they_had_never_been_there(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    source = folder(tmp_path / "in", broken=5)
    (source / "train/a/notes.txt").write_text("x")
    (source / "train/b/gone.png").symlink_to("nowhere")
    ran = stage(source, tmp_path / "out", "--skip-unreadable")
    assert ran.code == 0, ran.err
    skipped = ran.json["skipped_unreadable"]
    assert len(skipped) == 12
    assert "skipped 12 images that cannot be read; the first: train/a/000.png" in caplog.text
    said = ran.json["manifest"]["options"]["skipped_unreadable"]
    assert said["count"] == len(said["images"]) == 12
    assert ["train/b/gone.png", "b/gone"] in said["images"]
    for file in [*source.rglob("*.txt"), *(f for f in source.rglob("*.png") if not f.exists() or f.stem < "005")]:
        file.unlink()
    assert stage(source, tmp_path / "clean").code == 0
    ours, theirs = files_below(tmp_path / "out"), files_below(tmp_path / "clean")
    assert {n: d for n, d in ours.items() if n != "manifest.json"} == {
        n: d for n, d in theirs.items() if n != "manifest.json"
    }


def test_without_unreadable_ones_the_flag_changes_nothing(tmp_path: Path):
    source = folder(tmp_path / "in", broken=0)
    first = stage(source, tmp_path / "out").json
    again = stage(source, tmp_path / "out", "--skip-unreadable").json
    assert (first["reused"], again["reused"], again["skipped_unreadable"]) == (False, True, [])
    assert "skipped_unreadable" not in again["manifest"]["options"]


def test_the_same_skipped_again_is_there_already(tmp_path: Path):
    source = folder(tmp_path / "in", broken=2)
    assert not stage(source, tmp_path / "out", "--skip-unreadable").json["reused"]
    again = stage(source, tmp_path / "out", "--skip-unreadable").json
    assert (again["reused"], len(again["skipped_unreadable"])) == (True, 4)
    assert "4 images could not be read and were skipped" in zipbatch(
        "poison", source, "--attack", "badnets", "--out", tmp_path / "out", "--image-size", 16, "--skip-unreadable"
    ).out  # fmt: skip


@pytest.mark.parametrize("limit", [1, 3])
def test_the_limit_counts_what_can_be_read(tmp_path: Path, limit: int):
    source = folder(tmp_path / "in", broken=4)
    ran = stage(source, tmp_path / "out", "--skip-unreadable", "--limit", limit, "--split", "test")
    assert ran.json["manifest"]["splits"]["test"]["samples"] == limit
    staged = open_dataset([str(tmp_path / "out")])
    assert [s.key for shard in staged.split("test") for s in read_shard(shard.path)] == ["a/004", "a/006", "a/008"][
        :limit
    ]


def test_where_nothing_can_be_read(tmp_path: Path):
    ran = stage(folder(tmp_path / "in", broken=3, good=0), tmp_path / "out", "--skip-unreadable")
    assert (ran.code, "split train is empty" in ran.err) == (2, True)


def test_samples_of_shards(tmp_path: Path):
    source = write_source(tmp_path / "in", counts={"train": 6, "test": 6})
    good = sample("z", 1, seed=3).members["png"]
    bad = [("a.cls", b"0"), ("b.png", good), ("b.cls", b"x"), ("c.png", good[:50]), ("c.cls", b"0")]
    write_tar(source / "test-000009.tar", [*bad, ("d.png", good), ("d.cls", b"1")])
    ran = stage(source, tmp_path / "out")
    assert ran.code == 1
    assert "3 images cannot be read" in ran.err
    for key, words in (("a", "needs exactly one image"), ("b", "cls is not a class index"), ("c", "unreadable png")):
        assert f"test-000009.tar: key '{key}': {words}" in ran.err
    ran = stage(source, tmp_path / "out", "--skip-unreadable")
    assert ran.json["manifest"]["splits"]["test"]["samples"] == 7
    assert len(ran.json["skipped_unreadable"]) == 3


def test_a_pipeline_can_skip_them(tmp_path: Path):
    source = folder(tmp_path / "in", broken=2)
    stage_of = {"run": "poison", "source": str(source), "attack": "badnets", "image_size": 16}
    recipe = tmp_path / "p.yaml"
    for more, code in (({}, 1), ({"skip_unreadable": True}, 0)):
        recipe.write_text(json.dumps({"about": "x", "stages": {"data": stage_of | more}}))
        ran = zipbatch("run", recipe, "--out", tmp_path / "out")
        assert (ran.code, "4 images cannot be read" in ran.err) == (code, code == 1), ran.err
    (manifest,) = (tmp_path / "out").rglob("manifest.json")
    assert json.loads(manifest.read_text())["options"]["skipped_unreadable"]["count"] == 4
