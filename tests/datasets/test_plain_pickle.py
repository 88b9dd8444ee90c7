"""Pickles of plain data are read; whatever else a pickle asks for is refused, and never run."""

from __future__ import annotations

import collections
import os
import pickle
import pickletools
import random
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.archives import Python2Pickler, cifar10_files
from zipbatch.datasets import plain_pickle
from zipbatch.datasets.plain_pickle import RefusedError, load_plain


def test_the_python_2_writer_is_faithful():
    """The official batches.meta has 158 bytes; the standard library reads ours as it reads the official files."""
    files = cifar10_files()
    assert len(files["batches.meta"]) == 158
    assert files["data_batch_1"].startswith(
        b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03U\x06lab"
    )
    assert pickle.loads(files["batches.meta"], encoding="bytes")[b"num_vis"] == 3072


@pytest.mark.parametrize("name", ["batches.meta", "data_batch_1", "test_batch"])
def test_same_as_the_standard_library(name: str):
    data = cifar10_files(300)[name]  # over 256 memo entries, so that all forms of them occur
    ours, theirs = load_plain(data), pickle.loads(data, encoding="bytes")
    assert isinstance(ours, dict)
    assert list(ours) == list(theirs)
    for key, value in theirs.items():
        assert type(ours[key]) is type(value)
        assert np.array_equal(ours[key], value)


def test_protocol_2_of_python_3():
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)
    data = pickle.dumps({"data": array, "labels": [1, 2, 70000], "none": None, "b": b"\xff", "t": (True, False)}, 2)
    found = load_plain(data)
    assert isinstance(found, dict)
    assert np.array_equal(found.pop("data"), array)
    assert found == {"labels": [1, 2, 70000], "none": None, "b": b"\xff", "t": (True, False)}


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_the_names_of_numpy_1_and_2(module: bytes):
    data = Python2Pickler().dump({b"data": np.ones((2, 3), np.uint8)}).replace(b"numpy.core.multiarray", module)
    found = load_plain(data)
    assert isinstance(found, dict)
    assert (found[b"data"] == np.ones((2, 3))).all()


class Calls:
    """Pickles as a call of ``function``."""

    def __init__(self, function: object, *arguments: object) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self._call  # type: ignore[return-value]


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("what", ["system", "popen", "eval", "subclass", "object"])
def test_code_is_refused_and_not_run(tmp_path: Path, what: str, protocol: int):
    mark = tmp_path / "was-here"
    value = {
        "system": Calls(os.system, f"touch {mark}"),
        "popen": Calls(subprocess.Popen, ["touch", str(mark)]),
        "eval": Calls(eval, f"open({str(mark)!r}, 'w')"),
        "subclass": collections.OrderedDict(a=1),
        "object": Path(mark),
    }[what]
    with pytest.raises(ValueError, match=r"not allowed|protocol"):
        load_plain(pickle.dumps({"labels": [1], "data": value}, protocol))
    assert not mark.exists()


HEAD = b"\x80\x02"
RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
REFUSED = {
    "a call by a name from the stack": HEAD + b"U\x02osU\x06system\x93.",
    "a call of what is no function": HEAD + b"U\x06system)R.",
    "the old way to call": b"(S'touch x'\nios\nsystem\n.",
    "an object": HEAD + b"ccollections\nOrderedDict\n)\x81.",
    "an extension": HEAD + b"\x82\x01.",
    "a persistent id": HEAD + b"U\x01aQ.",
    "another dtype": HEAD + b"cnumpy\ndtype\nU\x02O8K\x00K\x01\x87R.",
    "another class of array": HEAD + RECONSTRUCT + b"cnumpy\nmatrix\nK\x00\x85U\x01b\x87R.",
    "an array with a shape to come": HEAD + RECONSTRUCT + b"cnumpy\nndarray\nK\x09\x85U\x01b\x87R.",
    "another codec": HEAD + b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00hex\x86R.",
    "the state of a list": HEAD + b"]}b.",
    "the state of a name": HEAD + b"cos\nsystem\n}b.",
    "items of a list": HEAD + b"]K\x01K\x02s.",
    "items appended to a dict": HEAD + b"}K\x01a.",
    "a list as a key": HEAD + b"}]K\x01s.",
    "half an item": HEAD + b"}(K\x01u.",
    "a number in digits": HEAD + b"I" + b"9" * 5000 + b"\n.",
    "another protocol": b"\x80\x04K\x01.",
    "data after its end": HEAD + b"K\x01.K\x02.",
    "more than one value": HEAD + b"K\x01K\x02.",
    "an open mark": HEAD + b"(K\x01.",
    "no value": HEAD + b".",
    "no mark": HEAD + b"}u.",
    "nothing": b"",
    "no end": HEAD + b"K\x01",
    "a string longer than the file": HEAD + b"T\xff\xff\xff\x7fabc.",
    "a negative length": HEAD + b"T\xff\xff\xff\xffabc.",
    "an entry that is not there": HEAD + b"h\x07.",
    "an unknown opcode": HEAD + b"\xff.",
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str):
    with pytest.raises(ValueError):
        load_plain(REFUSED[case])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\x02u1K", b"\x02u2K"),  # another type
        (b"U\x06\x01\x01\x01\x01\x01\x01", b"U\x05\x01\x01\x01\x01\x01"),  # too few bytes
        (b"K\x02K\x03\x86", b"K\x02J\xff\xff\xff\xff\x86"),  # a negative length
        (b"K\x02K\x03\x86", b"K\x02U\x01a\x86"),  # a length that is none
        (b"\x89U\x06", b"\x88U\x06"),  # in Fortran order
    ],
)
def test_arrays_must_be_what_their_state_says(old: bytes, new: bytes):
    data = Python2Pickler().dump({b"data": np.ones((2, 3), np.uint8)})
    assert old in data
    with pytest.raises(ValueError, match=r"array|numpy.dtype"):
        load_plain(data.replace(old, new))


def test_a_high_memo_index_costs_nothing():
    """The standard library's unpickler would make room for four billion entries."""
    assert load_plain(HEAD + b"K\x05r" + struct.pack("<I", 2**32 - 1) + b".") == 5


def test_deep_nesting_does_no_harm():
    value = load_plain(HEAD + b"]" * 50_000 + b"a" * 49_999 + b".")
    assert isinstance(value, list)
    nested = load_plain(HEAD + b")" + b"\x85" * 50_000 + b".")
    assert isinstance(nested, tuple)
    with pytest.raises(RefusedError, match="key of type tuple"):
        load_plain(HEAD + b"})" + b"\x85" * 50_000 + b"K\x01s.")
    with pytest.raises(RefusedError, match="not allowed"):
        load_plain(HEAD + b"cnumpy\ndtype\n)" + b"\x85" * 50_000 + b"R.")


def test_limits(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(plain_pickle, "MAX_OPCODES", 100)
    with pytest.raises(RefusedError, match="over 100 opcodes"):
        load_plain(HEAD + b"K\x01" * 200 + b".")
    monkeypatch.setattr(plain_pickle, "MAX_BYTES", 10)
    with pytest.raises(RefusedError, match="11 bytes are over the limit of 10"):
        load_plain(b"x" * 11)


def test_damaged_bytes_are_plain_data_or_a_value_error():
    whole = cifar10_files(2)["batches.meta"]
    array = Python2Pickler().dump({b"data": np.ones((2, 3), np.uint8), b"labels": [1, 2]})
    rng = random.Random(0)
    for _ in range(3000):
        data = bytearray(rng.choice([whole, array]))
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] = rng.choice([*b"RbqhU(tu}]a0123c\x81\x93", rng.randrange(256)])
        try:
            load_plain(bytes(data))
        except ValueError:
            continue


def test_only_opcodes_of_plain_data_are_admitted():
    """Of all opcodes there are, these and no others get through."""
    admitted = {
        *plain_pickle._LITERALS,
        *plain_pickle._BYTE_STRINGS,
        *plain_pickle._PUSHED,
        *plain_pickle._TUPLES,
        *plain_pickle._PUTS,
        *plain_pickle._GETS,
        *plain_pickle._ACTIONS,
        "PROTO",
        "MARK",
        "GLOBAL",
        "STOP",
    }
    assert admitted < {opcode.name for opcode in pickletools.opcodes}
    dangerous = {"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID"}
    assert not admitted & dangerous
