"""Imagenette: numbered as torchvision numbers it, named so that people can read it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from torchvision.datasets import ImageFolder

from tests.archives import write_imagenette
from tests.making import zipbatch
from zipbatch.datasets.source import open_source
from zipbatch.errors import UsageError

NAMES = ["tench", "English springer", "cassette player", "chain saw", "church"]


def test_same_as_torchvision(tmp_path: Path):
    root = write_imagenette(tmp_path)
    for place in (root, tmp_path, f"imagenette:{root}", f"imagenette:{tmp_path}"):
        source = open_source(place, ())
        assert source.available == ("train", "val")
        assert (source.archive.classes or [])[:5] == NAMES
        for split in source.available:
            theirs = ImageFolder(str(root / split)).samples
            assert [(str(root / i.origin), i.label) for i in source.images(split)] == theirs


def test_val_is_what_attacks_are_tested_on(tmp_path: Path):
    root = write_imagenette(tmp_path)
    ran = zipbatch("poison", root, "--image-size", 16, "--attack", "badnets", "--out", tmp_path / "out", "--json")
    assert ran.code == 0, ran.err
    manifest = ran.json["manifest"]
    assert {name: counts["samples"] for name, counts in manifest["splits"].items()} == {
        "train": 10,
        "test": 10,
        "test_poisoned": 10,
    }
    assert manifest["classes"][:5] == NAMES


def test_as_a_plain_folder_it_has_its_ids(tmp_path: Path):
    root = write_imagenette(tmp_path)
    assert (open_source(f"folder:{root}", ()).archive.classes or [])[0] == "n01440764"


def test_two_of_them(tmp_path: Path):
    write_imagenette(tmp_path, "imagenette2")
    write_imagenette(tmp_path, "imagenette2-320")
    with pytest.raises(UsageError, match="holds imagenette2 and imagenette2-320; name one of them"):
        open_source(f"imagenette:{tmp_path}", ())


def test_part_of_it_is_a_plain_folder(tmp_path: Path):
    root = write_imagenette(tmp_path)
    for split in ("train", "val"):
        shutil.rmtree(root / split / "n03028079")
    assert len(open_source(root, ()).archive.classes or []) == 9
    with pytest.raises(UsageError, match="not there; imagenette: takes imagenette2"):
        open_source(f"imagenette:{root}", ())
