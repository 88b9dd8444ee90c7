"""Arrays in numpy's own ``.npy`` format, from strangers: nothing is unpickled, nothing allocated that is not there."""

from __future__ import annotations

import io
import math
import tokenize
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def is_npy(data: bytes) -> bool:
    """Whether it begins as such a file does."""
    return data.startswith(np.lib.format.MAGIC_PREFIX)


def from_npy(data: bytes) -> Array:
    """The array of a ``.npy`` file, read-only: whole or floating-point numbers of any shape.

    Raises:
        ValueError: it is none, damaged, or of other things.
    """
    if not is_npy(data):
        raise ValueError("is not a .npy array, as numpy.save writes it")
    stream = io.BytesIO(data)
    try:
        major, _ = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers that Python 2 wrote
            shape, fortran, dtype = read(stream)
    except (
        *(ValueError, SyntaxError, RecursionError, MemoryError, TypeError, LookupError, AttributeError),
        *(ArithmeticError, tokenize.TokenError),
    ) as error:  # whatever numpy's reader of Python literals makes of one that is none
        raise ValueError(f"a damaged .npy array ({error})") from error
    body = data[stream.tell() :]
    sized = all(type(side) is int and side >= 0 for side in shape)
    if not sized or dtype.kind not in "fiu" or len(body) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"a .npy array that says {dtype} {shape} and holds {len(body)} bytes")
    return np.frombuffer(body, dtype).reshape(shape, order="F" if fortran else "C")
