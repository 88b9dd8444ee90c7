"""Arrays of strangers: numbers as they are, nothing unpickled, nothing allocated that is not there."""

from __future__ import annotations

import io

import numpy as np
import pytest

from zipbatch.arrays import from_npy


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32, ">f8"])
def test_numbers_come_as_they_are(kind: str | type):
    array = np.arange(24).reshape(2, 3, 4).astype(kind)
    assert np.array_equal(from_npy(npy(array)), array)
    assert np.array_equal(from_npy(npy(np.asfortranarray(array))), array)


def huge() -> bytes:
    """A header that promises terabytes, and three numbers."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": (10**13,)})
    return stream.getvalue() + bytes(24)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is not a .npy array, as numpy.save writes it"),
        (b"PK\x03\x04", "is not a .npy array"),
        (npy(np.zeros(3))[:9], "a damaged .npy array"),
        (npy(np.zeros(3))[:-1], r"a .npy array that says float64 \(3,\) and holds 23 bytes"),
        (npy(np.array([{"a": 1}])), "a .npy array that says object"),
        (npy(np.array(["text"])), "a .npy array that says <U4"),
        (huge(), r"a .npy array that says float64 \(10000000000000,\) and holds 24 bytes"),
    ],
)
def test_anything_else_is_refused(data: bytes, words: str):
    with pytest.raises(ValueError, match=words):
        from_npy(data)
