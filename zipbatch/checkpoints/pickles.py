"""Checkpoints that ``torch.save`` wrote, by anyone: tensors, plain values and numpy numbers are read, no code is run.

``torch.load(weights_only=True)`` refuses every global that is not on a list. BackdoorBench's records need a few of
numpy's (REFERENCE 4); as numpy's own way of unpickling trusts what it reads, these names lead to stand-ins here that
make plain numbers and arrays of checked bytes, and nothing else.
"""

from __future__ import annotations

import math
import pickle
import re
import struct
import threading
import warnings
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zipbatch.errors import UsageError
from zipbatch.kinds import a_few, head_of, instead
from zipbatch.storage import StoragePath, local_copy

MAX_BYTES = 8_000_000_000
"""Of a checkpoint; the largest classifiers of torchvision have 2.5 GB."""
MAX_PICKLE_BYTES = 32_000_000
"""Of the pickle in a checkpoint, which holds all but the tensors."""
_PLAIN = re.compile(r"[|<>=]?(?:b1|[iu][1248]|f[248])")
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_ONE_AT_A_TIME = threading.Lock()
"""``safe_globals`` changes a list that the whole process shares."""


class _Dtype:
    """Stands for ``numpy.dtype``: numbers and booleans alone, no objects, no structures."""

    def __init__(self, code: object, align: object = False, copy: object = True) -> None:  # noqa: ARG002 - numpy's own
        if not isinstance(code, str) or not _PLAIN.fullmatch(code):
            raise ValueError(f"holds a numpy array of type {str(code)[:40]!r}, which is not one of plain numbers")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: object) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in {"<", ">", "|", "="}:
            raise ValueError("holds a damaged numpy type")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """Stands for ``numpy.ndarray``: filled from bytes that are as many as its shape says."""

    def __init__(self) -> None:
        self.array: npt.NDArray[Any] = np.empty(0)

    def __setstate__(self, state: object) -> None:
        match state:
            case (_, tuple(shape), _Dtype() as kind, bool(fortran), bytes(data)):
                fits = all(isinstance(side, int) and side >= 0 for side in shape)
                if fits and math.prod(shape) * kind.dtype.itemsize == len(data):
                    self.array = np.frombuffer(data, kind.dtype).reshape(shape, order="F" if fortran else "C")
                    return
        raise ValueError("holds a damaged numpy array, or one of objects")


def _reconstruct(kind: object, shape: object, code: object) -> _Array:  # noqa: ARG001 - its state says both
    if kind is not _Array:
        raise ValueError("holds a numpy array of another class than ndarray")
    return _Array()


def _scalar(kind: object, data: object) -> int | float | bool:
    if not isinstance(kind, _Dtype) or not isinstance(data, bytes) or len(data) != kind.dtype.itemsize:
        raise ValueError("holds a damaged numpy number")
    value: int | float | bool = np.frombuffer(data, kind.dtype)[0].item()
    return value


def _encode(text: object, encoding: object) -> bytes:
    """How pickle protocol 2 writes bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError("holds bytes in an encoding other than latin1")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """How pickle protocol 2 writes bytes of length 0."""
    return b""


_STAND_INS: list[Any] = [
    (_Dtype, "numpy.dtype"),
    (_Array, "numpy.ndarray"),
    *((_reconstruct, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    *((_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    (_encode, "_codecs.encode"),
    (_no_bytes, "builtins.bytes"),
]


def read_pickle(path: StoragePath) -> object:
    """What ``torch.save`` put into a file: tensors (on the CPU), containers, text, numbers; numpy's as plain ones.

    Raises:
        UsageError: missing, no checkpoint (says what it is), too large, damaged, or with anything in it that code
            would have to be run for.
    """
    try:
        with local_copy(path) as file:
            _check_kind(file, where=path)
            _check_size(file, where=path)
            with _ONE_AT_A_TIME, warnings.catch_warnings(), torch.serialization.safe_globals(_STAND_INS):
                warnings.simplefilter("ignore")  # of pickle protocols other than 2: read or refused all the same
                return torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except FileNotFoundError:
        raise UsageError(f"{path}: missing") from None
    except pickle.UnpicklingError as error:
        raise UsageError(f"{path}: refused, and nothing was run: {_why(error)}") from error
    except UsageError:
        raise
    except (
        *(RuntimeError, OSError, EOFError, ValueError, LookupError, AttributeError, TypeError, AssertionError),
        *(MemoryError, RecursionError, OverflowError, struct.error, zipfile.BadZipFile, NotImplementedError),
    ) as error:  # whatever a damaged pickle makes of a reader that trusts its structure
        first_line = str(error).strip().partition("\n")[0][:300]
        raise UsageError(f"{path}: not a readable checkpoint ({first_line or type(error).__name__})") from error


def _check_kind(path: Path, *, where: StoragePath) -> None:
    if told := instead(head_of(path), "a checkpoint", fit={"zip", "pickle"}):
        raise UsageError(f"{where}: {told}")


def _check_size(path: Path, *, where: StoragePath) -> None:
    size = path.stat().st_size
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            _check_members(archive, size, where=where)
    if size > MAX_BYTES:
        raise UsageError(f"{where}: has {size} bytes; no classifier has over {MAX_BYTES}")


def _check_members(archive: zipfile.ZipFile, size: int, *, where: StoragePath) -> None:
    """Records of ``torch.save`` lie in the file as they are: read as such, compressed ones are other numbers."""
    members = archive.infolist()
    if not any(member.filename.endswith("data.pkl") for member in members):
        raise UsageError(f"{where}: is {_other_zip(archive)}, not a checkpoint of torch.save")
    if any(PurePosixPath(member.filename).name == "constants.pkl" for member in members):
        raise UsageError(
            f"{where}: is a TorchScript archive, which holds code; export the network to ONNX, or save its state dict "
            "alone: torch.save(torch.jit.load(FILE).state_dict(), OTHER)"
        )
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise UsageError(f"{where}: holds compressed records, as torch.save never writes; unpack it and pack it anew")
    if sum(member.file_size for member in members) > size:
        raise UsageError(f"{where}: its records are larger than the file; download it again")
    if large := [m for m in members if m.filename.endswith("/data.pkl") and m.file_size > MAX_PICKLE_BYTES]:
        raise UsageError(f"{where}: {large[0].filename} has {large[0].file_size} bytes, over {MAX_PICKLE_BYTES}")


def _other_zip(archive: zipfile.ZipFile) -> str:
    names = archive.namelist()
    kind = "a numpy archive (.npz)" if names and all(name.endswith(".npy") for name in names) else "a zip archive"
    return f"{kind} of {a_few(names)}" if names else "an empty zip archive"


def is_dense(value: object) -> TypeGuard[Tensor]:
    """Whether it is a tensor of plain numbers, all of which lie in memory: not sparse, quantized, empty or repeated."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        and not value.is_complex()
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


def _why(error: pickle.UnpicklingError) -> str:
    found = _GLOBAL.search(str(error))
    name = found[1] if found else None
    if name is None:
        return "it is a pickle that holds more than tensors and plain values"
    if name.startswith("PIL."):
        return (
            f"it holds pictures as Python objects ({name}), as version 1 of BackdoorBench wrote them, and reading "
            "those means running what the file says; take a record of version 2, or a state dict saved alone"
        )
    return (
        f"it names {name}, so reading it would mean running what the file says; whoever has that code can save the "
        "weights alone with torch.save(model.state_dict(), FILE)"
    )


def plain(value: object) -> object:
    """The numpy array that a stand-in holds; any other value as it is."""
    return value.array if isinstance(value, _Array) else value
