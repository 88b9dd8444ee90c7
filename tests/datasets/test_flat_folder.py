"""A flat tree of class folders: taken as one split, said in the log, and refused where it may be something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.making import write_images, zipbatch
from zipbatch.datasets import open_dataset
from zipbatch.datasets.source import open_source
from zipbatch.errors import DataError, UsageError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_images(tmp_path / "pets", "dog/b.png", "dog/a.png", "cat/x.y.png", "cat/2020/z.png")


def test_it_is_the_split_test(root: Path, caplog: pytest.LogCaptureFixture):
    source = open_source(root, ())
    assert source.splits == source.available == ("test",)
    assert [(image.key, image.origin, image.label) for image in source.images("test")] == [
        ("cat/2020/z", "cat/2020/z.png", 0),
        ("cat/x_y", "cat/x.y.png", 0),
        ("dog/a", "dog/a.png", 1),
        ("dog/b", "dog/b.png", 1),
    ]
    assert source.archive.classes == ["cat", "dog"]
    assert "pets: class folders without a split above them, taken as split test; ‹splits› takes" in caplog.text


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_or_the_split_that_is_named(root: Path, split: str):
    source = open_source(f"folder:{root}", (split,))
    assert source.splits == source.available == (split,)
    assert len(list(source.images(split))) == 4


@pytest.mark.parametrize("splits", [("train", "test"), ("day1",)])
def test_it_is_one_split(root: Path, splits: tuple[str, ...]):
    with pytest.raises(UsageError, match="taken as one of train, val, test: name one with ‹splits›"):
        open_source(root, splits)


def test_without_labels_it_is_what_priors_learn_from(root: Path):
    for place in (root, f"folder:{root}"):
        assert open_source(place, (), labelled=False).splits == ("train",)


def test_what_is_not_taken_is_told(root: Path):
    (root / "README.md").write_text("mine")
    (root / "._cat").write_bytes(b"finder")
    (root / "notes").mkdir()
    (root / "classes.txt").write_text("dog\ncat\nnotes\n")
    source = open_source(root, ())
    assert source.archive.classes == ["dog", "cat", "notes"]
    assert [image.label for image in source.images("test")] == [0, 0, 1, 1]
    left = source.left()
    assert (str(left.things), left.strays.count) == ("2 (README.md, notes/)", 1)


def test_an_empty_class_is_refused(root: Path):
    (root / "bird").mkdir()
    with pytest.raises(DataError, match=r"bird.*holds no image but would be a class"):
        list(open_source(root, ()).images("test"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("train/1.png", "train is named as a split but would be a class"),
        ("others/a/1.png", "cat, dog hold images, others only folders: which are the classes"),
        ("loose.png", r"images lie beside the class folders \(loose.png\)"),
    ],
)
def test_what_may_be_something_else_is_refused(root: Path, more: str, message: str):
    write_images(root, more)
    with pytest.raises(UsageError, match=message):
        open_source(root, ())
    if "train" not in more:
        (root / "classes.txt").write_text("cat\ndog\nothers\n")
        assert open_source(root, ()).splits == ("test",)


def test_a_single_folder_is_no_class(tmp_path: Path):
    root = write_images(tmp_path / "photos", "may/a.png", "may/b.png")
    with pytest.raises(UsageError, match="nor two or more folders <class>/ of images"):
        open_source(root, ())


def test_splits_with_classes_stay_what_they_were(root: Path):
    write_images(root, "train/cat/1.png")
    assert open_source(root, ()).splits == ("train",)


def test_it_is_staged_and_its_classes_have_names(root: Path, tmp_path: Path):
    command = ("poison", root, "--image-size", 16, "--attack", "badnets", "--target", "dog", "--out", tmp_path / "out")
    ran = zipbatch(*command)
    assert ran.code == 0, ran.err
    assert "taken as split test" in ran.err
    dataset = open_dataset([str(tmp_path / "out")])
    assert dataset.manifest is not None
    assert (dataset.splits, dataset.manifest.classes) == (("test", "test_poisoned"), ["cat", "dog"])
    assert dataset.manifest.attack.target == 1


def test_where_shards_are_wanted_the_way_is_told(root: Path, tmp_path: Path):
    ran = zipbatch("purify", root, "--preset", "jpeg", "--store", tmp_path / "pur")
    assert ran.code == 2
    assert "holds no shards" in ran.err
    assert "but images: 'tar cf pets.tar -C pets .' makes a shard of them" in ran.err
