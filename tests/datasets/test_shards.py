"""Shards as a source: folders, files and patterns, and what is said when they are something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.making import CLASSES, sample, write_shard, write_source, zipbatch
from zipbatch.datasets.source import open_source
from zipbatch.errors import UsageError
from zipbatch.shards import read_shard


def keys(source: str | Path, split: str = "train") -> list[str]:
    return [image.key for image in open_source(source, ()).images(split)]


def test_folder_file_and_pattern(source: Path):
    every = [f"train_{i:04d}" for i in range(24)]
    for place in (source, f"wds:{source}", f"wds:{source}/train-00000{{0..1}}.tar", f"{source}/train-00000{{0,1}}.tar"):
        assert keys(place) == every
    assert keys(f"{source}/train-00000{{1,0}}.tar") == [*every[12:], *every[:12]]  # in the order given
    assert keys(f"wds:{source}/train-000001.tar") == keys(source / "train-000001.tar") == every[12:]


def test_a_pattern_of_several_splits(source: Path):
    opened = open_source(f"wds:{source}/{{test,train}}-000000.tar", ())
    assert (opened.available, opened.archive.classes) == (("train", "test"), CLASSES)
    ran = zipbatch("poison", f"wds:{source}/test-000000.tar", "--attack", "badnets", "--out", "x", "--target", 9)
    assert (ran.code, "--target 9" in ran.err) == (2, True)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("train-00000{1..2}.tar", r"no such file .*train-000002\.tar"),
        ("{train-000000,odd}.tar", "odd.tar is not named <split>-"),
        ("{", "holds|no such|not a path"),
        ("gone.tar", "not there; wds: takes a folder of shards"),
        ("odd.tar", "not there; wds: takes a folder of shards"),
    ],
)
def test_refused(tmp_path: Path, pattern: str, words: str):
    write_source(tmp_path)
    write_shard(tmp_path / "odd.tar", [sample("a", 0, seed=0)])
    with pytest.raises(UsageError, match=words):
        open_source(f"wds:{tmp_path}/{pattern}", ())


def test_shards_beside_a_tree_are_not_guessed_at(tmp_path: Path):
    write_source(tmp_path, counts={"train": 4})
    (tmp_path / "test" / "ant").mkdir(parents=True)
    shard = next(iter(read_shard(tmp_path / "train-000000.tar")))
    (tmp_path / "test" / "ant" / "x.png").write_bytes(shard.members["png"])
    with pytest.raises(UsageError, match=r"say wds:.* or folder:"):
        open_source(tmp_path, ())
    assert open_source(f"wds:{tmp_path}", ()).available == ("train",)
    assert open_source(f"folder:{tmp_path}", ()).available == ("test",)


def test_a_path_with_a_colon_is_a_path(tmp_path: Path):
    """Only text is looked at for a kind, and ``./`` says that it is a path."""
    write_source(tmp_path / "wds:x")
    assert len(keys(tmp_path / "wds:x")) == 24
    assert len(keys(f"{tmp_path}/wds:x")) == 24


def test_the_kinds_are_listed():
    rows = zipbatch("ls", "datasets", "--json").json["datasets"]
    kinds = ("cifar10", "gtsrb", "imagenette", "folder", "wds", "images")
    assert [row["use"] for row in rows] == [f"{kind}:PLACE" for kind in kinds]
    assert all(row["PLACE"] and row["source"] for row in rows)
    assert "cifar-10-python.tar.gz" in zipbatch("ls", "datasets").out
