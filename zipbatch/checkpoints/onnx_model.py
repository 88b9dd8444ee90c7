"""ONNX files as self-contained bytes. Weights that lie beside a model, as torch exports them, are read at import alone.

A model names the files of its weights itself, and onnxruntime would look for them in the current directory. So a model
is parsed first, whatever field a tensor stands in (graphs in nodes, functions, sparse tensors), and what onnxruntime
gets is written anew from what was looked through: the two cannot read one file in two ways.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zipbatch import atomic
from zipbatch.errors import UsageError
from zipbatch.kinds import HEAD_BYTES, instead
from zipbatch.storage import StoragePath, local_copy, stamp

if TYPE_CHECKING:
    from google.protobuf.message import Message

MAX_BYTES = 2**31 - 1
"""What the format itself allows."""


@dataclass(frozen=True)
class OnnxModel:
    """A model that needs no other file. ``beside``: the files that its weights came from, and their SHA-256."""

    content: bytes
    beside: dict[str, str] = field(default_factory=dict)


def read_model(path: StoragePath) -> bytes:
    """The bytes of a model's file.

    Raises:
        UsageError: missing, or larger than the format allows.
    """
    try:
        if stamp(path).size > MAX_BYTES:
            raise UsageError(f"{path}: over {MAX_BYTES} bytes, more than an ONNX file can have")
        with local_copy(path) as file:
            return file.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"{path}: missing") from None


def checked(content: bytes, path: StoragePath) -> bytes:
    """A model in the one way of writing it, once it is sure to need no other file.

    Raises:
        UsageError: not a model, or one with weights elsewhere.
    """
    model = _parsed(content, path)
    if outside := next(_outside(model), None):
        raise UsageError(
            f"{path}: keeps weights in another file ({_location(outside)!r}), which is read only when it is imported: "
            "zipbatch import victim"
        )
    return _written(model, path)


def whole_model(path: Path) -> OnnxModel:
    """A model as its file has it, or with the weights in it that lie beside it.

    Raises:
        UsageError: not a model, or it names weights that are not a file right beside it or not within that file.
    """
    content = read_model(path)
    model = _parsed(content, path)
    names, taken = dict[str, None](), len(content)
    for tensor in _outside(model):
        name = _location(tensor)
        data = _beside(tensor, path, room=MAX_BYTES - taken)
        taken += len(data)
        names[name] = None
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
        tensor.raw_data = data
    if not names:
        return OnnxModel(content)
    return OnnxModel(_written(model, path), {name: atomic.sha256_file(path.with_name(name)) for name in names})


def _parsed(content: bytes, path: StoragePath) -> Any:
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ModuleNotFoundError as error:
        raise UsageError(f"{path}: needs onnx, which is not installed: pip install 'zipbatch[onnx]'") from error
    try:
        model = onnx.ModelProto.FromString(content)
    except (DecodeError, UnicodeDecodeError) as error:
        if told := instead(content[:HEAD_BYTES], "an ONNX model", fit={"onnx"}):
            raise UsageError(f"{path}: {told}") from error
        raise UsageError(f"{path}: not a model that onnxruntime can read: not ONNX's protobuf") from error
    known = model.ByteSize()
    model.DiscardUnknownFields()
    if model.ByteSize() != known:
        raise UsageError(
            f"{path}: not a model that onnxruntime can read: has fields that onnx {onnx.__version__} does not know; "
            "export it with an older opset, or: pip install --upgrade onnx"
        )
    return model


def _written(model: Any, path: StoragePath) -> bytes:
    if model.ByteSize() > MAX_BYTES:
        raise UsageError(f"{path}: over {MAX_BYTES} bytes with its weights, more than one ONNX file can have")
    return bytes(model.SerializeToString(deterministic=True))


def _outside(model: Message) -> Iterator[Any]:
    """The tensors, wherever in a model they stand, whose values are in another file."""
    waiting = [model]
    while waiting:
        message = waiting.pop()
        if message.DESCRIPTOR.name == "TensorProto" and message.data_location != message.DEFAULT:
            yield message
        for kind, value in message.ListFields():
            if kind.message_type is not None:
                waiting.extend([value] if hasattr(value, "ListFields") else value)


def _facts(tensor: Any) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _location(tensor: Any) -> str:
    return _facts(tensor).get("location", "")


def _beside(tensor: Any, path: Path, *, room: int) -> bytes:
    """The bytes of a tensor, from a file in the model's own folder."""
    facts, name = _facts(tensor), _location(tensor)
    if not name or name in {".", ".."} or set(name) & set("/\\\0"):
        raise UsageError(
            f"{path}: keeps weights in {name!r}, which is no file right beside it; such weights are not read. Export "
            "it again with its weights in its own folder, or in itself: torch.onnx.export(external_data=False)"
        )
    file = path.with_name(name)
    try:
        stream = open(file, "rb", opener=_no_link)  # noqa: SIM115  closed by the block below
    except OSError as error:
        link = "is a link, which is not followed; put the file itself there" if file.is_symlink() else error.strerror
        raise UsageError(f"{file}: {link}; {path.name} keeps its weights there") from error
    with stream:
        found = os.fstat(stream.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise UsageError(f"{file}: is no plain file; {path.name} keeps its weights there")
        start, length = _extent(facts, found.st_size, f"{path}: tensor {tensor.name!r}")
        if length > room:
            raise UsageError(f"{path}: over {MAX_BYTES} bytes with its weights, more than one ONNX file can have")
        stream.seek(start)
        return stream.read(length)


def _no_link(path: str, flags: int) -> int:
    """Opens neither a link, nor waits for a writer of a pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _extent(facts: dict[str, str], size: int, what: str) -> tuple[int, int]:
    """Where in its file of ``size`` bytes a tensor begins, and its bytes."""
    numbers = facts.get("offset", "0"), facts.get("length", "0")
    if not all(number.isascii() and number.isdigit() and len(number) < 20 for number in numbers):
        raise UsageError(f"{what}: offset and length must be whole numbers, got {numbers[0]!r} and {numbers[1]!r}")
    start, length = map(int, numbers)
    length = length if "length" in facts else max(0, size - start)
    if start + length > size:
        raise UsageError(f"{what}: ends at byte {start + length} of {facts['location']}, which has {size}")
    return start, length
