"""Images in a folder without any layout: for what needs no labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.making import picture, write_images, zipbatch
from tests.stages.train.test_train_prior import UNET
from zipbatch import images
from zipbatch.datasets.source import open_source
from zipbatch.errors import DataError, UsageError


def keys(source: object, **options: bool) -> list[str]:
    opened = open_source(str(source), (), **options)
    return [image.key for split in opened.splits for image in opened.images(split)]


def test_images_at_any_depth_are_taken_and_other_files_are_told(tmp_path: Path):
    root = write_images(tmp_path, "b.png", "2024/may/x.y.png", "a.PNG", ".DS_Store.png")
    (root / "notes.txt").write_text("mine")
    (root / "._a.png").write_bytes(b"finder")
    opened = open_source(root, (), labelled=False)
    assert opened.splits == ("train",)
    assert [(image.key, image.origin, image.label) for image in opened.images("train")] == [
        ("2024/may/x_y", "2024/may/x.y.png", -1),
        ("a", "a.PNG", -1),
        ("b", "b.png", -1),
    ]
    left = opened.left()
    assert (left.things.count, "notes.txt" in str(left.things), left.strays.count) == (1, True, 2)


def test_it_is_taken_for_one_only_where_no_labels_are_needed(tmp_path: Path):
    root = write_images(tmp_path / "photos", "a.png", "b.png")
    assert keys(root, labelled=False) == ["a", "b"]
    with pytest.raises(UsageError, match="holds neither shards"):
        open_source(root, ())
    with pytest.raises(DataError, match="has no label"):
        keys(f"images:{root}")
    ran = zipbatch("poison", f"images:{root}", "--attack", "badnets", "--out", tmp_path / "out")
    assert (ran.code, "has no label" in ran.err) == (1, True), ran.err


def test_a_tree_of_splits_and_classes_stays_one(tmp_path: Path):
    root = write_images(tmp_path, "train/ant/1.png", "test/ant/2.png", "cover.png")
    assert keys(root, labelled=False) == ["ant/1", "ant/2"]
    assert keys(f"images:{root}", labelled=False) == ["cover", "test/ant/2", "train/ant/1"]


def test_what_it_refuses(tmp_path: Path):
    with pytest.raises(UsageError, match="holds neither shards"):
        open_source(tmp_path, (), labelled=False)
    with pytest.raises(UsageError, match="images: takes a folder"):
        open_source(f"images:{tmp_path}", (), labelled=False)
    root = write_images(tmp_path / "twice", "a.b.png", "a_b.png")
    with pytest.raises(DataError, match=r"same key as a\.b\.png"):
        keys(root, labelled=False)


def test_a_prior_is_trained_on_photos_of_any_size(tmp_path: Path):
    for number, size in enumerate((24, 16, 40, 24)):
        (tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / "photos" / f"{number}.png").write_bytes(images.encode_png(picture(number, size)))
    (tmp_path / "tiny.yaml").write_text(json.dumps({"unet": UNET, "steps": 2, "batch_size": 2, "held_out": 1}))
    train = ("train", "prior", tmp_path / "photos", "--out", tmp_path / "prior", "--preset", tmp_path / "tiny.yaml")
    told = zipbatch(*train)
    assert (told.code, "--image-size resizes them" in told.err) == (2, True), told.err
    ran = zipbatch(*train, "--image-size", 16, "--json")
    assert (ran.code, ran.json["steps"]) == (0, 2), ran.err
    assert json.loads((tmp_path / "prior" / "manifest.json").read_text())["trained_on"]["image_size"] == 16
    other = zipbatch(*train, "--image-size", 32)
    assert (other.code, "other settings or data" in other.err) == (2, True), other.err
