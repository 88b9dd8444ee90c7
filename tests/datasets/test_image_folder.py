"""The image-folder source: torchvision's class order, keys without dots, nothing passed over in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.making import write_images
from zipbatch.datasets import class_names, is_image_folder, read_image_folder
from zipbatch.datasets.source import open_source
from zipbatch.errors import DataError, UsageError


def read(root: Path, split: str = "train") -> list[tuple[str, str, int]]:
    return [(i.key, i.origin, i.label) for i in read_image_folder(root, split, class_names(root, split))]


def test_classes_and_images_are_sorted(tmp_path: Path):
    root = write_images(
        tmp_path, "train/b/1.png", "train/b/10.png", "train/b/2.png", "train/B/x.png", "train/a/sub/y.png"
    )
    assert class_names(root, "train") == ["B", "a", "b"]
    assert read(root) == [
        ("B/x", "train/B/x.png", 0),
        ("a/sub/y", "train/a/sub/y.png", 1),
        ("b/1", "train/b/1.png", 2),
        ("b/10", "train/b/10.png", 2),
        ("b/2", "train/b/2.png", 2),
    ]


def test_same_classes_as_torchvision(tmp_path: Path):
    from torchvision.datasets import ImageFolder

    root = write_images(tmp_path, *(f"train/{c}/{i}.png" for c in ("n02", "n01", "Z", "a b") for i in range(2)))
    theirs = ImageFolder(str(root / "train"))
    assert class_names(root, "train") == theirs.classes
    assert [(str(root / origin), label) for _, origin, label in read(root)] == theirs.samples


def test_bytes_and_extension(tmp_path: Path):
    root = write_images(tmp_path, "test/a/1.PNG")
    (image,) = read_image_folder(root, "test", ["a"])
    assert (image.extension, image.data) == ("png", (root / "test/a/1.PNG").read_bytes())


def test_dots_become_underscores(tmp_path: Path):
    root = write_images(tmp_path, "train/v1.2/a.b.c.png", "train/v1.2/x..png")
    assert [(key, origin) for key, origin, _ in read(root)] == [
        ("v1_2/a_b_c", "train/v1.2/a.b.c.png"),
        ("v1_2/x_", "train/v1.2/x..png"),
    ]


@pytest.mark.parametrize("pair", [("a.b.png", "a_b.png"), ("a.png", "a.PNG"), ("a.png", "a.webp")])
def test_colliding_names_are_refused(tmp_path: Path, pair: tuple[str, str]):
    root = write_images(tmp_path, *(f"train/c/{name}" for name in pair))
    with pytest.raises(DataError) as caught:
        read(root)
    assert all(name in str(caught.value) for name in pair)


def test_classes_that_collide_are_refused_by_the_survey(tmp_path: Path):
    root = write_images(tmp_path, "train/a.b/x.png", "train/a_b/x.png")
    with pytest.raises(DataError, match="a_b/x"):
        open_source(root, (), None).survey("train")


@pytest.mark.parametrize("name", ["notes", "x.gif", "x.png.txt"])
def test_a_foreign_file_is_named(tmp_path: Path, name: str):
    root = write_images(tmp_path, "train/c/a.png")
    (root / "train/c" / name).write_bytes(b"x")
    with pytest.raises(DataError, match=name):
        open_source(root, ()).survey("train")


def test_a_class_that_the_data_does_not_have(tmp_path: Path):
    root = write_images(tmp_path, "train/a/1.png", "test/b/1.png")
    with pytest.raises(UsageError, match="'b'"):
        list(read_image_folder(root, "test", ["a"]))
    assert open_source(root, ("train",)).archive.classes == ["a"]
    with pytest.raises(UsageError, match=r"'b'.*‹splits›"):
        open_source(root, ("test",)).survey("test")


def test_a_class_that_a_split_lacks_keeps_the_numbers(tmp_path: Path):
    root = write_images(tmp_path, "train/a/1.png", "train/b/1.png", "test/b/1.png")
    assert [i.label for i in open_source(root, (), None).images("test")] == [1]


def test_is_image_folder(tmp_path: Path):
    write_images(tmp_path, "train/a/1.png", "test/1.png")
    assert [is_image_folder(tmp_path, s) for s in ("train", "test", "val")] == [True, False, False]
    with pytest.raises(UsageError, match="no split 'test'; it has train"):
        open_source(tmp_path, ("test",), None)


def test_nothing_usable(tmp_path: Path):
    with pytest.raises(UsageError, match="holds neither"):
        open_source(tmp_path, (), None)
    with pytest.raises(UsageError, match="gone: no such folder"):
        open_source(tmp_path / "gone", (), None)


@pytest.mark.parametrize("name", ["a\nb.png", "a\\b.png", "a\udcff.png"])
def test_unfit_file_names_are_data_errors(tmp_path: Path, name: str):
    folder = tmp_path / "test" / "cat"
    folder.mkdir(parents=True)
    (folder / name).write_bytes(b"x")
    with pytest.raises(DataError, match="unfit file name"):
        list(read_image_folder(tmp_path, "test", ["cat"]))
