"""GTSRB as its official zips unpack: 43 classes in numeric order, every image listed, every listed image there."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import GTSRB

from tests.archives import ppm, write_gtsrb, write_table
from tests.making import zipbatch
from zipbatch import images
from zipbatch.datasets import SourceImage, open_dataset
from zipbatch.datasets.source import open_source
from zipbatch.errors import DataError, UsageError
from zipbatch.shards import read_shard


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gtsrb(tmp_path_factory.mktemp("gtsrb"))


def read(source: str | Path, split: str = "train") -> list[SourceImage]:
    return list(open_source(source, ()).images(split))


def test_every_image(root: Path):
    source = open_source(f"gtsrb:{root}", ())
    assert (source.available, source.archive.classes) == (("train", "test"), [f"{i:05d}" for i in range(43)])
    train = read(root)
    assert len(train) == 86
    assert [(i.key, i.origin, i.label) for i in train[20:23]] == [
        ("00010/00000_00000", "Final_Training/Images/00010/00000_00000.ppm", 10),
        ("00010/00000_00001", "Final_Training/Images/00010/00000_00001.ppm", 10),
        ("00011/00000_00000", "Final_Training/Images/00011/00000_00000.ppm", 11),
    ]
    assert [(i.key, i.origin, i.label) for i in read(root, "test")] == [
        (f"{i:05d}", f"Final_Test/Images/{i:05d}.ppm", label) for i, label in enumerate([16, 1, 38, 33, 11])
    ]
    for image in train:
        with Image.open(root / image.origin) as opened:
            assert np.array_equal(image.pixels(), np.asarray(opened.convert("RGB")))


def test_same_test_labels_as_torchvision(root: Path, tmp_path: Path):
    shutil.copytree(root, tmp_path / "gtsrb" / "GTSRB")
    shutil.copy(root.parent / "GT-final_test.csv", tmp_path / "gtsrb")
    theirs = GTSRB(str(tmp_path), split="test")
    assert [(Path(path).stem, label) for path, label in theirs._samples] == [
        (i.key, i.label) for i in read(tmp_path / "gtsrb", "test")
    ]


@pytest.mark.parametrize(
    "table", ["GT-final_test.csv", *(f"GTSRB/{f}GT-final_test.csv" for f in ("", "Final_Test/", "Final_Test/Images/"))]
)
def test_where_the_table_may_lie(tmp_path: Path, table: str):
    root = write_gtsrb(tmp_path, test_table=table)
    for place in (tmp_path, root, f"gtsrb:{tmp_path}", f"gtsrb:{root}"):
        assert [i.label for i in read(place, "test")] == [16, 1, 38, 33, 11]
        assert len(read(place)) == 86


def test_poison_needs_a_size(root: Path, tmp_path: Path):
    command = ["poison", f"gtsrb:{root}", "--attack", "badnets", "--out", tmp_path / "out"]
    ran = zipbatch(*command, "--split", "test")
    assert (ran.code, "--image-size" in ran.err) == (2, True)
    ran = zipbatch(*command, "--image-size", 32)
    assert ran.code == 0, ran.err
    staged = open_dataset([str(tmp_path / "out")])
    samples = {s.key: s for shard in staged.split("test") for s in read_shard(shard.path)}
    assert samples["00002"].metadata() == {"label": 38, "source": "Final_Test/Images/00002.ppm"}
    with Image.open(root / "Final_Test/Images/00002.ppm") as opened:
        resized = opened.resize((32, 32), Image.Resampling.BILINEAR)
    assert np.array_equal(samples["00002"].image(), np.asarray(resized))
    assert staged.manifest is not None
    assert (len(staged.manifest.classes), staged.manifest.options["resize"]) == (43, "stretch")


def test_train_alone(tmp_path: Path):
    root = write_gtsrb(tmp_path)
    shutil.rmtree(root / "Final_Test")
    assert open_source(root, ()).available == ("train",)


def test_test_images_without_their_classes(tmp_path: Path):
    root = write_gtsrb(tmp_path, test_table=None)
    assert len(list(open_source(root, ("train",)).images("train"))) == 86
    with pytest.raises(DataError, match=r"GT-final_test.csv: is missing; it comes in GTSRB_Final_Test_GT.zip"):
        open_source(root, ("test",)).survey("test")


TABLE = "Final_Training/Images/00007/GT-00007.csv"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["00000_00000.ppm;15;15;5;5;10;10;7"], "00000_00001.ppm: is not listed in GT-00007.csv"),
        (["00000_00009.ppm;15;15;5;5;10;10;7"], r"GT-00007.csv:2: '00000_00009.ppm' is not in"),
        (["00000_00000.ppm;15;15;5;5;10;10;7"] * 2, r"GT-00007.csv:3: '00000_00000.ppm' occurs twice"),
        (["00000_00000.ppm;15;15;5;5;10;10;8"], r"GT-00007.csv:2: '00000_00000.ppm' is of class 8"),
        (["00000_00000.ppm;15;15;5;5;10;10;43"], r"GT-00007.csv:2: needs"),
        (["00000_00000.ppm;15;15;5;5;10;10;-1"], r"GT-00007.csv:2: needs"),
        (["00000_00000.ppm;15;15;5;5;10;10;" + "9" * 5000], r"GT-00007.csv:2: needs"),
        (["00000_00000.ppm;15;15"], r"GT-00007.csv:2: needs"),
        (["../00008/00000_00000.ppm;15;15;5;5;10;10;7"], r"GT-00007.csv:2: needs"),
        (["/etc/passwd;15;15;5;5;10;10;7"], r"GT-00007.csv:2: needs"),
        ([""], "is not listed"),
    ],
)
def test_damaged_tables_are_named(tmp_path: Path, rows: list[str], words: str):
    root = write_gtsrb(tmp_path)
    write_table(root / TABLE, rows)
    with pytest.raises(DataError, match=words):
        read(root)


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"Filename,ClassId\r\n00000_00000.ppm,7\r\n", b"x" * 200_000])
def test_what_is_no_table(tmp_path: Path, content: bytes | None):
    root = write_gtsrb(tmp_path)
    (root / TABLE).unlink()
    if content is not None:
        (root / TABLE).write_bytes(content)
    with pytest.raises(DataError, match=r"GT-00007.csv|is not listed"):
        read(root)


@pytest.mark.parametrize(("name", "words"), [("00007", "is missing"), ("7", "is not a class of GTSRB")])
def test_class_folders_are_exactly_those_of_gtsrb(tmp_path: Path, name: str, words: str):
    """A folder 7 instead of 00007 would reorder the classes of a reader that sorts names."""
    folder = write_gtsrb(tmp_path) / "Final_Training/Images"
    if words == "is missing":
        shutil.rmtree(folder / name)
    else:
        (folder / name).mkdir()
    with pytest.raises(DataError, match=f"{name}: {words}"):
        read(tmp_path)


def test_a_damaged_image_is_named(tmp_path: Path):
    root = write_gtsrb(tmp_path)
    (root / "Final_Test/Images/00003.ppm").write_bytes(ppm(20, 18, 0)[:-1])
    ran = zipbatch("poison", root, "--image-size", 32, "--attack", "badnets", "--out", tmp_path / "out")
    assert (ran.code, ran.out) == (1, "")
    assert "Final_Test/Images/00003.ppm: key '00003': unreadable ppm image" in ran.err
    assert not (tmp_path / "out").exists()


def test_what_is_no_gtsrb(tmp_path: Path):
    with pytest.raises(UsageError, match=r"not there; gtsrb: takes GTSRB/Final_Training"):
        open_source(f"gtsrb:{tmp_path}", ())


def test_ppm_in_an_image_folder(tmp_path: Path):
    (tmp_path / "train/a").mkdir(parents=True)
    (tmp_path / "train/a/x.PPM").write_bytes(ppm(9, 9, 1))
    (image,) = read(tmp_path)
    assert np.array_equal(image.pixels(), images.decode(ppm(9, 9, 1), "ppm"))
