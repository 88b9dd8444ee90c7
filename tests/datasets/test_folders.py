"""Folders as people have them: every image is read once or said to be missing, and nothing else becomes one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.archives import member as tar_member
from tests.archives import write_cifar10, write_cifar10_tar, write_gtsrb, write_imagenette
from tests.making import Ran, picture, sample, write_images, write_shard, write_source, write_tar, zipbatch
from tests.test_strays import STRAYS
from zipbatch import images
from zipbatch.datasets.base import SPLITS, split_named
from zipbatch.datasets.source import open_source
from zipbatch.errors import DataError, UsageError

PNG = images.encode_png(picture(0))


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return write_images(
        tmp_path / "in", *(f"{s}/{c}/{i}.png" for s in ("train", "test") for c in ("ant", "bee") for i in "12")
    )


def stage(root: Path, *options: object) -> Ran:
    return zipbatch("poison", root, "--attack", "badnets", "--out", root.parent / "out", "--json", *options)


def counts(ran: Ran) -> dict[str, int]:
    assert ran.code == 0, ran.err
    return {split: found["samples"] for split, found in ran.json["manifest"]["splits"].items()}


# ---- strays


@pytest.mark.parametrize("name", STRAYS)
@pytest.mark.parametrize("kind", ["file", "empty", "folder"])
def test_strays_anywhere_change_nothing(plain: Path, caplog: pytest.LogCaptureFixture, name: str, kind: str):
    clean = stage(plain)
    for at in (".", "train", "test", "train/ant", "test/bee"):
        stray = plain / at / name
        if kind == "file":
            stray.write_bytes(PNG)
        else:
            stray.mkdir()
            if kind == "folder":
                (stray / "0.png").write_bytes(PNG)
    again = stage(plain)
    assert again.json["reused"]
    assert again.json["manifest"] == clean.json["manifest"]
    assert again.json["manifest"]["classes"] == ["ant", "bee"]
    assert (again.json["strays"]["count"], again.json["not_taken"]["count"]) == (5, 0)
    assert f"passed over what file managers leave: 5 ({name}" in caplog.text


@pytest.mark.parametrize(
    "write", [write_gtsrb, write_imagenette, write_cifar10], ids=["gtsrb", "imagenette", "cifar10"]
)
def test_strays_in_official_archives(tmp_path: Path, write: Callable[[Path], Path]):
    root = write(tmp_path)
    before = open_source(root, ())
    surveys = [before.survey(split) for split in before.splits]
    assert before.left().strays.count == 0
    assert before.left().things.count == 0
    for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        for name in STRAYS:
            (folder / name).write_bytes(PNG)
        (folder / "._00000_00000.ppm").write_bytes(b"x")
    for folder in (root, root / "train", root / "Final_Training", root / "Final_Training/Images/00000"):
        if folder.is_dir():
            (folder / "more.txt").write_text("x")
    after = open_source(root, ())
    assert type(after.archive) is type(before.archive)
    assert [after.survey(split) for split in after.splits] == surveys
    assert after.left().strays.count > len(STRAYS)
    there = sorted(path.relative_to(root).as_posix() for path in root.rglob("more.txt"))
    assert sorted(after.left().things.examples) == there


def test_strays_in_the_cifar10_tar(tmp_path: Path):
    plain = open_source(write_cifar10_tar(tmp_path / "a.tar.gz"), ())
    names = ["cifar-10-batches-py/._test_batch", "__MACOSX/x", "cifar-10-batches-py/notes"]
    odd = open_source(write_cifar10_tar(tmp_path / "b.tar.gz", [(tar_member(name), b"") for name in names]), ())
    assert odd.survey("test") == plain.survey("test")
    assert (odd.left().strays.count, odd.left().things.examples) == (2, names[2:])


# ---- splits


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("kind", ["folder", "shards"])
def test_usual_split_names(tmp_path: Path, split: str, kind: str):
    names = {"train": ["train", "training"], "val": ["val", "valid", "validation", "dev"], "test": ["test", "testing"]}
    for name in [n for lower in names[split] for n in (lower, lower.title(), lower.upper())]:
        root = tmp_path / name
        if kind == "folder":
            write_images(root, f"{name}/a/1.png")
        else:
            root.mkdir()
            write_shard(root / f"{name}-000.tar", [sample("a/1", 0, seed=0)])
        source = open_source(root, ())
        assert source.available == (split,)
        assert [image.key for image in source.images(split)] == ["a/1"]
        assert source.left().things.count == 0


@pytest.mark.parametrize("kind", ["folder", "shards"])
@pytest.mark.parametrize("pair", [("train", "training"), ("val", "valid"), ("dev", "validation"), ("Test", "testing")])
def test_two_of_one_split_are_refused(tmp_path: Path, kind: str, pair: tuple[str, str]):
    for name in pair:
        if kind == "folder":
            write_images(tmp_path, f"{name}/a/1.png")
        else:
            write_shard(tmp_path / f"{name}-0.tar", [sample(name, 0, seed=0)])
    with pytest.raises(UsageError, match=f"{pair[0]} and {pair[1]} are both the split {split_named(pair[0])}"):
        open_source(tmp_path, ())


def test_a_second_name_makes_the_same_dataset(plain: Path):
    first = stage(plain)
    (plain / "test").rename(plain / "validation")
    second = zipbatch("poison", plain, "--attack", "badnets", "--out", plain.parent / "val", "--json")
    assert counts(first) == counts(second) == {"train": 4, "test": 4, "test_poisoned": 4}


def test_torchvisions_layout_of_gtsrb(tmp_path: Path):
    root = write_gtsrb(tmp_path)
    before = [open_source(tmp_path, ()).survey(split) for split in ("train", "test")]
    shutil.move(root / "Final_Training/Images", root / "Training")
    (root / "Final_Training").rmdir()
    after = open_source(tmp_path, ())
    assert after.available == ("train", "test")
    assert [after.survey(split) for split in after.available] == before
    assert next(after.images("train")).origin == "Training/00000/00000_00000.ppm"
    shutil.copytree(root / "Training", root / "Final_Training/Images")
    with pytest.raises(UsageError, match="Final_Training and Training are both the split train"):
        open_source(tmp_path, ())


# ---- what is left


def test_what_was_not_taken_is_counted_and_named(plain: Path, caplog: pytest.LogCaptureFixture):
    write_images(plain, "extra/ant/1.png", "test/loose.png")
    (plain / "README.md").write_text("x")
    (plain / "test/annotations.txt").write_text("x")
    (plain / "test/bee/1.png").unlink()
    (plain / "test/bee/2.png").unlink()
    ran = stage(plain)
    names = ["README.md", "extra/", "test/annotations.txt", "test/bee/", "test/loose.png"]
    assert counts(ran)["test"] == 2
    assert ran.json["not_taken"] == {"count": 5, "examples": names}
    assert f"not taken: 5 ({', '.join(names)})" in caplog.text


def test_a_flat_split_is_named(plain: Path):
    shutil.rmtree(plain / "test")
    write_images(plain, "val/1.png", "val/2.png")
    assert stage(plain).json["not_taken"] == {"count": 1, "examples": ["val/"]}


def test_shards_of_no_split_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    root = write_source(tmp_path / "in")
    write_shard(root / "extra-000.tar", [sample("a", 0, seed=0)])
    (root / "more").mkdir()
    assert stage(root).json["not_taken"] == {"count": 2, "examples": ["extra-000.tar", "more/"]}
    assert "not taken: 2 (extra-000.tar, more/)" in caplog.text


@pytest.mark.parametrize("name", ["1.5.png", "1.mask.png"])
def test_images_and_strays_in_shards_are_named(tmp_path: Path, name: str):
    root = write_source(tmp_path / "in")
    write_tar(
        root / "test-000009.tar", [("README", b"x"), ("1.cls", b"0"), ("1.jpg.note", b"x"), ("1.png", PNG), (name, PNG)]
    )
    ran = stage(root)
    assert counts(ran)["test"] == 13
    assert ran.json["not_taken"] == {"count": 1, "examples": [name]}
    assert ran.json["strays"] == {"count": 1, "examples": ["README"]}


@pytest.mark.parametrize("command", ["poison", "purify"])
def test_a_shard_that_is_a_link_to_nowhere(tmp_path: Path, command: str):
    root = write_source(tmp_path / "in")
    (root / "test-000009.tar").symlink_to("gone.tar")
    purify = ("purify", root, "--purifier", "blur", "--store", tmp_path / "pur")
    ran = stage(root) if command == "poison" else zipbatch(*purify)
    assert (ran.code in {1, 2}, ran.out) == (True, "")
    assert "test-000009.tar" in ran.err


def test_classes_that_train_lacks_are_refused(plain: Path):
    write_images(plain, "test/cow/1.png")
    ran = stage(plain)
    assert (ran.code, ran.out) == (2, "")
    assert "test: class folder 'cow' is not among the classes of the data (ant, bee)" in ran.err
    alone = stage(plain, "--split", "train")
    assert counts(alone) == {"train": 4}
    assert alone.json["manifest"]["classes"] == ["ant", "bee"]


def test_a_class_without_images_is_refused(plain: Path):
    (plain / "train/aardvark/deeper").mkdir(parents=True)
    ran = stage(plain)
    assert ran.code == 1
    assert "train/aardvark: holds no image but would be a class" in ran.err
    (plain / "classes.txt").write_text("aardvark\nant\nbee\n")
    ran = stage(plain)
    assert counts(ran)["train"] == 4
    assert ran.json["not_taken"] == {"count": 1, "examples": ["train/aardvark/"]}


# ---- links


def origins(root: Path) -> list[str]:
    return [image.origin for image in open_source(root, ()).images("train")]


def test_links_to_files_lead_anywhere(plain: Path, tmp_path: Path):
    outside = tmp_path / "store"
    before = open_source(plain, ()).survey("train")
    for number, file in enumerate(sorted((plain / "train").rglob("*.png"))):
        outside.mkdir(exist_ok=True)
        file.rename(outside / f"{number}.bin")
        file.symlink_to(outside / f"{number}.bin")
    assert open_source(plain, ()).survey("train") == before


@pytest.mark.parametrize("at", ["train", "train/ant"])
def test_a_split_or_class_may_be_a_link(plain: Path, tmp_path: Path, at: str):
    before = open_source(plain, ()).survey("train")
    (plain / at).rename(tmp_path / "elsewhere")
    (plain / at).symlink_to(tmp_path / "elsewhere")
    assert open_source(plain, ()).survey("train") == before


def test_linked_folders_within_the_source_are_read(plain: Path):
    write_images(plain, "pool/3.png", "pool/deep/4.png")
    (plain / "train/ant/more").symlink_to("../../pool")
    found = [name for name in origins(plain) if "/ant/" in name]
    assert found == [f"train/ant/{name}.png" for name in ("1", "2", "more/3", "more/deep/4")]


def test_a_linked_folder_outside_is_refused(plain: Path, tmp_path: Path):
    write_images(tmp_path, "elsewhere/3.png")
    (plain / "train/ant/more").symlink_to(tmp_path / "elsewhere")
    ran = stage(plain)
    assert ran.code == 1
    assert "train/ant/more: is a link out of the source" in ran.err
    assert "make the class folder itself the link" in ran.err


@pytest.mark.parametrize("target", [".", "..", "sub", "../.."])
@pytest.mark.parametrize("name", ["a", "z"])
def test_no_folder_is_read_twice(plain: Path, name: str, target: str):
    write_images(plain, "train/ant/sub/3.png")
    (plain / "train/ant" / name).symlink_to(target)
    with pytest.raises(DataError, match=r"count twice|out of the source"):
        origins(plain)


@pytest.mark.parametrize("at", ["train/ant/9.png", "train/ant/sub/9.jpg", "train/cow", "test"])
def test_a_link_that_leads_nowhere_is_an_error(plain: Path, at: str):
    if at == "test":
        shutil.rmtree(plain / at)
    (plain / at).parent.mkdir(exist_ok=True)
    (plain / at).symlink_to("gone")
    ran = stage(plain)
    assert ran.code == 1
    assert f"{at}" in ran.err
    assert "is a link that leads nowhere, to gone" in ran.err
    assert not (plain.parent / "out").exists()


def test_what_is_no_regular_file(plain: Path):
    os.mkfifo(plain / "train/ant/3.png")
    ran = stage(plain)
    assert (ran.code, "is no regular file" in ran.err) == (1, True)
