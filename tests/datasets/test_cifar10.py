"""CIFAR-10's python version, as a folder and as the tar.gz itself; nothing in it is run, unpacked or believed."""

from __future__ import annotations

import gzip
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from tests.archives import (
    LABEL_NAMES,
    Python2Pickler,
    cifar10_files,
    member,
    planes,
    write_cifar10,
    write_cifar10_tar,
)
from tests.making import files_below, zipbatch
from zipbatch.datasets import SourceImage, cifar10, open_dataset
from zipbatch.datasets.source import open_source
from zipbatch.errors import DataError, UsageError
from zipbatch.shards import read_shard


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cifar10(tmp_path_factory.mktemp("cifar10"))


@pytest.fixture(scope="module")
def tar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cifar10_tar(tmp_path_factory.mktemp("cifar10") / "cifar-10-python.tar.gz")


def read(source: str | Path, split: str = "train") -> list[SourceImage]:
    return list(open_source(source, ()).images(split))


def test_every_image(folder: Path):
    source = open_source(f"cifar10:{folder}", ())
    assert (source.available, source.archive.classes) == (("train", "test"), LABEL_NAMES)
    images = read(folder)
    assert [(i.key, i.origin) for i in images[:5]] == [
        ("train_00000", "data_batch_1:0"),
        ("train_00001", "data_batch_1:1"),
        ("train_00002", "data_batch_1:2"),
        ("train_00003", "data_batch_1:3"),
        ("train_00004", "data_batch_2:0"),
    ]
    assert [i.label for i in images] == [i % 10 for i in range(20)]
    for number, image in enumerate(images):
        plane = planes(4, number // 4)[number % 4].reshape(3, 32, 32)
        assert np.array_equal(image.pixels(), plane.transpose(1, 2, 0))
    assert [(i.key, i.origin, i.label) for i in read(folder, "test")] == [
        (f"test_{i:05d}", f"test_batch:{i}", i % 10) for i in range(4)
    ]


def test_same_as_torchvision(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setitem(CIFAR10.meta, "md5", None)
    for split in ("train", "test"):
        theirs = CIFAR10(str(folder.parent), train=split == "train")
        ours = read(folder, split)
        assert [i.label for i in ours] == theirs.targets
        assert np.array_equal(np.stack([i.pixels() for i in ours]), theirs.data)
        assert theirs.classes == LABEL_NAMES


def test_folder_parent_and_tar_are_one(folder: Path, tar: Path):
    for split in ("train", "test"):
        images = read(folder, split)
        for place in (folder.parent, tar, f"cifar10:{folder}", f"cifar10:{folder.parent}", f"cifar10:{tar}"):
            assert read(place, split) == images


def test_an_uncompressed_tar(tar: Path, tmp_path: Path):
    (tmp_path / "plain").write_bytes(gzip.decompress(tar.read_bytes()))
    assert read(tmp_path / "plain") == read(tar)


def test_poison(tar: Path, folder: Path, tmp_path: Path):
    for source in (tar, folder):
        ran = zipbatch("poison", f"cifar10:{source}", "--attack", "badnets", "--out", tmp_path / source.name)
        assert ran.code == 0, ran.err
    assert files_below(tmp_path / tar.name) == files_below(tmp_path / folder.name)
    staged = open_dataset([str(tmp_path / tar.name)])
    assert staged.classes == LABEL_NAMES
    samples = [s for shard in staged.split("test") for s in read_shard(shard.path)]
    assert samples[2].metadata() == {"label": 2, "source": "test_batch:2"}
    assert np.array_equal(samples[2].image(), planes(4, 5)[2].reshape(3, 32, 32).transpose(1, 2, 0))


def test_limit_reads_no_further(folder: Path, tmp_path: Path):
    write_cifar10(tmp_path)
    (tmp_path / folder.name / "data_batch_2").write_bytes(b"damaged")
    assert len(list(open_source(tmp_path, (), 4).images("train"))) == 4
    with pytest.raises(DataError, match="data_batch_2"):
        list(open_source(tmp_path, (), 5).images("train"))


def damaged(tmp_path: Path, name: str, data: bytes | None) -> Path:
    root = write_cifar10(tmp_path)
    if data is None:
        (root / name).unlink()
    else:
        (root / name).write_bytes(data)
    return root


def batch(**changes: object) -> bytes:
    content = {"labels": [1, 2], "data": planes(2, 0), **changes}
    return Python2Pickler().dump({key.encode(): value for key, value in content.items() if value is not None})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "is missing; unpack the official archive again"),
        (b"", "not a file of CIFAR-10"),
        (cifar10_files()["data_batch_1"][:-100], "not a file of CIFAR-10"),
        (pickle.dumps([1], 2), "holds a list, not a dict"),
        (batch(labels=None), "no labels or no data"),
        (batch(data=None), "no labels or no data"),
        (batch(data=[1, 2]), "no labels or no data"),
        (batch(labels=[1, 2, 3]), r"shape \(2, 3072\) for 3 labels"),
        (batch(data=planes(2, 0)[:, :3071]), r"shape \(2, 3071\)"),
        (batch(labels=[1, 10]), "class index of 0 to 9"),
        (batch(labels=[1, b"2"]), "class index of 0 to 9"),
        (batch(labels=[1, [2]]), "class index of 0 to 9"),
    ],
)
def test_a_damaged_batch_is_named(tmp_path: Path, data: bytes | None, words: str):
    root = damaged(tmp_path, "data_batch_3", data)
    with pytest.raises(DataError, match=words) as caught:
        read(root)
    assert str(root / "data_batch_3") in str(caught.value)


@pytest.mark.parametrize("names", [None, b"airplane", [], [1, 2]])
def test_damaged_class_names(tmp_path: Path, names: object):
    content = {} if names is None else {b"label_names": names}
    root = damaged(tmp_path, "batches.meta", Python2Pickler().dump({b"num_vis": 3072, **content}))
    with pytest.raises(DataError, match=r"batches.meta.*label_names"):
        read(root)


class Evil:
    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> object:
        return os.system, (f"touch {self._mark}",)


@pytest.mark.parametrize("name", ["batches.meta", "data_batch_1", "test_batch"])
def test_an_evil_pickle_does_nothing(tmp_path: Path, name: str):
    mark = tmp_path / "was-here"
    root = damaged(tmp_path / "in", name, pickle.dumps({"labels": Evil(mark), "label_names": Evil(mark)}, 2))
    ran = zipbatch("poison", f"cifar10:{root}", "--attack", "badnets", "--out", tmp_path / "out")
    assert (ran.code, ran.out) == (1, "")
    assert f"{name}: not a file of CIFAR-10's python version: it calls posix.system" in ran.err
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


BATCH = "cifar-10-batches-py/data_batch_1"


def hostile(path: Path, *extra: tuple[tarfile.TarInfo, bytes]) -> Path:
    return write_cifar10_tar(path / "cifar-10-python.tar.gz", extra)


def test_names_that_climb_are_never_written(tmp_path: Path):
    names = [
        "../evil",
        str(tmp_path / "absolute"),
        "cifar-10-batches-py/../../evil",
        "x/cifar-10-batches-py/data_batch_1",
    ]
    links = [
        (member("cifar-10-batches-py/link", kind=tarfile.SYMTYPE, target="/etc/passwd"), b""),
        (member("x/data_batch_1", kind=tarfile.LNKTYPE, target="../../etc/passwd"), b""),
        (member("cifar-10-batches-py/pipe", kind=tarfile.FIFOTYPE), b""),
    ]
    tar = hostile(tmp_path, *[(member(name, 4), b"evil") for name in names], *links)
    before = files_below(tmp_path)
    assert len(read(tar)) == 20
    assert files_below(tmp_path) == before
    assert not (tmp_path.parent / "evil").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE])
def test_a_batch_must_be_a_file(tmp_path: Path, kind: bytes):
    tar = hostile(tmp_path, (member(BATCH, kind=kind, target="/etc/passwd"), b""))
    with pytest.raises(DataError, match="data_batch_1' is not a regular file"):
        read(tar)


def test_a_batch_twice(tmp_path: Path):
    with pytest.raises(DataError, match="data_batch_1' occurs twice"):
        read(hostile(tmp_path, (member(f"./{BATCH}", 4), b"evil")))


def test_huge_members_are_refused_before_they_are_read(tmp_path: Path):
    size = 2**40
    for number, name in enumerate((BATCH, "padding")):
        path = tmp_path / str(number)
        path.mkdir()
        info = member(name, size)
        tar = hostile(path)
        with gzip.open(path / "x.tar.gz", "wb") as stream:
            whole = gzip.decompress(tar.read_bytes())
            end = len(whole.rstrip(b"\0")) + 511 & ~511
            stream.write(whole[:end] + info.tobuf() + bytes(1024))
        with pytest.raises(DataError, match=f"{name}' is too much"):
            read(f"cifar10:{path / 'x.tar.gz'}")


def test_a_header_that_asks_for_too_much(tmp_path: Path):
    """A pax header of a terabyte is read into memory by tarfile itself, unless the stream says no."""
    folder = tarfile.TarInfo("cifar-10-batches-py")
    folder.type = tarfile.DIRTYPE
    with gzip.open(tmp_path / "x.tar.gz", "wb") as stream:
        header = member("pax", 2**40, kind=tarfile.XHDTYPE).tobuf(tarfile.GNU_FORMAT)
        stream.write(folder.tobuf() + header + bytes(1024))
    with pytest.raises(DataError, match="a header asks for 1099511627776 bytes"):
        read(f"cifar10:{tmp_path / 'x.tar.gz'}")


def test_too_many_members(tmp_path: Path):
    with pytest.raises(DataError, match="too much for CIFAR-10"):
        read(hostile(tmp_path, *[(member(f"x{i}", 0), b"") for i in range(100)]))


def test_a_large_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = write_cifar10(tmp_path)
    monkeypatch.setattr(cifar10, "MAX_BYTES", 1000)
    with pytest.raises(DataError, match=r"data_batch_1.*over the limit of 1000"):
        read(root)


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_truncated_tar(tar: Path, tmp_path: Path, share: float):
    data = tar.read_bytes()
    (tmp_path / "x.tar.gz").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match=r"damaged or truncated|missing in the archive"):
        read(f"cifar10:{tmp_path / 'x.tar.gz'}")


def test_what_is_no_cifar10(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("x")
    with tarfile.open(tmp_path / "other.tar.gz", "w:gz") as made:
        made.addfile(member("other/file"))
    for name in ("notes.txt", "other.tar.gz", ".", "gone"):
        with pytest.raises(UsageError, match=f"{name}: .*; cifar10: takes cifar-10-batches-py"):
            open_source(f"cifar10:{tmp_path}/{name}", ())
        with pytest.raises(UsageError, match="zipbatch ls datasets"):
            open_source(tmp_path / name, ())
