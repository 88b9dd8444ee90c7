"""Pickles of others: what they say is read, what they would do is not done."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tests.foreign import Evil, rename
from zipbatch.checkpoints import pickles
from zipbatch.checkpoints.pickles import plain, read_pickle
from zipbatch.checkpoints.state_dict import find_state
from zipbatch.checkpoints.tensors import read_tensors
from zipbatch.errors import UsageError


def refused(path: Path, *parts: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_pickle(path)
    for part in (str(path), *parts):
        assert part in str(caught.value)


def saved(path: Path, value: Any, **options: Any) -> Path:
    torch.save(value, path, **options)
    return path


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("core", [b"numpy._core", b"numpy.core"])
def test_numpy_numbers_and_arrays_of_any_version(tmp_path: Path, core: bytes, zipped: bool):
    arrays = [np.arange(6).reshape(2, 3), np.asfortranarray(np.eye(3, 2)), np.array([True, False]), np.float32([7])]
    value = {np.int64(3): arrays, "scalars": [np.float64(0.5), np.int32(-2), np.bool_(True), np.uint8(200)]}
    file = saved(tmp_path / "f.pt", value, _use_new_zipfile_serialization=zipped)
    if zipped and core == b"numpy.core":
        rename(file, b"numpy._core", core)
    read = read_pickle(file)
    assert isinstance(read, dict)
    assert read["scalars"] == [0.5, -2, True, 200]
    assert [type(number) for number in read["scalars"]] == [float, int, bool, int]
    for got, want in zip(read[3], arrays, strict=True):
        array = plain(got)
        assert isinstance(array, np.ndarray)
        assert np.array_equal(array, want)
        assert array.dtype == want.dtype


def test_an_empty_array(tmp_path: Path):
    array = plain(read_pickle(saved(tmp_path / "f.pt", [np.empty((0, 3))]))[0])
    assert isinstance(array, np.ndarray)
    assert array.shape == (0, 3)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_not_run(tmp_path: Path, zipped: bool):
    value = {"state_dict": {"a": torch.ones(2)}, "note": Evil(tmp_path / "marker")}
    file = saved(tmp_path / "f.pt", value, _use_new_zipfile_serialization=zipped)
    refused(file, "refused, and nothing was run", "open")
    assert not (tmp_path / "marker").exists()
    torch.load(file, weights_only=False)
    assert (tmp_path / "marker").exists(), "the file is as dangerous as it is meant to be"


def test_a_bare_pickle_is_not_run(tmp_path: Path):
    (tmp_path / "f.pt").write_bytes(pickle.dumps(Evil(tmp_path / "marker")))
    refused(tmp_path / "f.pt")
    assert not (tmp_path / "marker").exists()


def test_a_whole_network_is_refused_with_the_way_out(tmp_path: Path):
    refused(saved(tmp_path / "f.pt", nn.Linear(2, 2)), "torch.nn.modules.linear.Linear", "torch.save(model.state_dict")


def test_pictures_as_objects_are_refused_with_the_reason(tmp_path: Path):
    """Version 1 of BackdoorBench: bd_test = {x: [PIL images], y, original_index, original_targets}."""
    bd_test = {"x": [Image.new("RGB", (4, 4))], "y": [0], "original_index": [3], "original_targets": [3]}
    file = saved(tmp_path / "attack_result.pt", {"model": {"a": torch.ones(1)}, "bd_test": bd_test})
    refused(file, "refused, and nothing was run", "PIL.Image", "version 1 of BackdoorBench")


@pytest.mark.parametrize(
    "array",
    [
        np.array([{"a": 1}], dtype=object),
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f4")]),
        np.array(["text"]),
        np.array([1 + 2j]),
        np.array(["2020-01-01"], dtype="datetime64[D]"),
    ],
    ids=["objects", "structure", "text", "complex", "dates"],
)
def test_arrays_of_anything_but_numbers_are_refused(tmp_path: Path, array: np.ndarray):
    refused(saved(tmp_path / "f.pt", [array]))


class Call:
    """Pickles as a call of ``function`` with ``arguments``, then ``state`` set on the result."""

    def __init__(self, function: Any, arguments: tuple[Any, ...], state: Any = None) -> None:
        self.call = (function, arguments, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call if self.call[2] is not None else self.call[:2]


REBUILD = np._core.multiarray._reconstruct
SCALAR = np._core.multiarray.scalar
I8 = np.dtype("i8")


@pytest.mark.parametrize(
    "call",
    [
        Call(REBUILD, (np.ndarray, (0,), b"b"), (1, (10**15,), I8, False, b"12345678")),
        Call(REBUILD, (np.ndarray, (0,), b"b"), (1, (-1,), I8, False, b"12345678")),
        Call(REBUILD, (np.ndarray, (0,), b"b"), (1, (1,), I8, False, [1])),
        Call(REBUILD, (np.ndarray, (0,), b"b"), (1,)),
        Call(REBUILD, (np.dtype, (10**15,), b"b")),
        Call(SCALAR, (I8, b"1234567")),
        Call(SCALAR, (np.dtype("O"), b"12345678")),
        Call(np.dtype, ("i8", False, True), (3, "<", None, ("a",), {"a": (I8, 10**6)}, 8, 1, 0)),
        Call(np.dtype, ("V8", False, True), (3, "|", None, ("a",), {"a": (np.dtype("O"), 10**6)}, 8, 1, 0)),
        Call(np.dtype, ({"names": ["a"], "formats": ["O"]},)),
    ],
)
def test_numpy_pickles_that_lie_do_no_harm(tmp_path: Path, call: Call):
    """Such states make numpy's own unpickling read memory that is not its own; here they are refused or ignored."""
    file = saved(tmp_path / "f.pt", [call])
    try:
        read = read_pickle(file)
    except UsageError as error:
        assert str(file) in str(error)
    else:
        assert isinstance(read[0], pickles._Dtype)
        assert read[0].dtype == I8


@pytest.mark.parametrize("cut", [0, 1, 10, 100, 400, -1])
def test_damaged_files(tmp_path: Path, cut: int):
    data = saved(tmp_path / "whole.pt", {"a": torch.ones(50), "b": np.arange(5)}).read_bytes()
    (tmp_path / "f.pt").write_bytes(data[:cut])
    refused(tmp_path / "f.pt")


def test_damaged_bytes_are_refused_or_read_but_never_worse(tmp_path: Path):
    """Every byte of the pickle in turn is something else."""
    file = saved(tmp_path / "f.pt", {"a": torch.ones(3), "b": np.arange(5)})
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in members if name.endswith("data.pkl"))
    for place in range(0, len(members[name]), 3):
        damaged = bytearray(members[name])
        damaged[place] ^= 0x2A
        with zipfile.ZipFile(tmp_path / "d.pt", "w") as archive:
            for member, data in members.items():
                archive.writestr(member, bytes(damaged) if member == name else data)
        try:
            read_pickle(tmp_path / "d.pt")
        except UsageError as error:
            assert str(tmp_path / "d.pt") in str(error)


def test_what_unpacks_to_too_much_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for compression, words in ((zipfile.ZIP_DEFLATED, "compressed records"), (zipfile.ZIP_STORED, "over 100000")):
        with zipfile.ZipFile(tmp_path / "bomb.pt", "w", compression) as archive:
            archive.writestr("bomb/data.pkl", b"\0" * 200_000)
        monkeypatch.setattr(pickles, "MAX_BYTES", 100_000)
        refused(tmp_path / "bomb.pt", words)
    monkeypatch.undo()
    monkeypatch.setattr(pickles, "MAX_PICKLE_BYTES", 100_000)
    refused(tmp_path / "bomb.pt", "bomb/data.pkl has 200000 bytes")


def test_compressed_records_are_not_read_as_numbers(tmp_path: Path):
    """Mapped into memory as they are, they would be other numbers than were packed."""
    file = saved(tmp_path / "f.pt", {"a.weight": torch.arange(60.0)})
    with zipfile.ZipFile(file) as there, zipfile.ZipFile(tmp_path / "g.pt", "w", zipfile.ZIP_DEFLATED) as made:
        for name in there.namelist():
            made.writestr(name, there.read(name))
    refused(tmp_path / "g.pt", "compressed records")


def test_records_that_overlap_are_refused(tmp_path: Path):
    """A zip can name the same bytes many times over: here the directory says a record has more than the file."""
    file = saved(tmp_path / "f.pt", {"a.weight": torch.arange(60.0)})
    data = bytearray(file.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = (10**6).to_bytes(4, "little")
    file.write_bytes(data)
    refused(file)


@pytest.mark.parametrize(
    "odd",
    [
        torch.zeros(3, 3).to_sparse(),
        torch.zeros(3, 3, device="meta"),
        torch.zeros(1).expand(10**12),
        torch.zeros(3, dtype=torch.complex64),
    ],
    ids=["sparse", "meta", "repeated", "complex"],
)
def test_tensors_that_are_not_what_they_seem(tmp_path: Path, odd: torch.Tensor):
    file = saved(tmp_path / "f.pt", {"a.weight": torch.zeros(3), "b.weight": odd})
    with pytest.raises(UsageError, match="not a flat state dict of dense tensors"):
        read_tensors(file)
    with pytest.raises(UsageError, match="no state dict"):
        find_state(read_pickle(file), where=file)


def test_a_missing_file(tmp_path: Path):
    refused(tmp_path / "gone.pt", "missing")
