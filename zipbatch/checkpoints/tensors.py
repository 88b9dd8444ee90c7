"""Read tensors from files without running anything that is in them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from zipbatch.checkpoints.pickles import is_dense, read_pickle
from zipbatch.errors import DataError, UsageError
from zipbatch.kinds import HEAD_BYTES, SAFETENSORS, a_few, head_of, instead, kind_of
from zipbatch.storage import StoragePath, local_copy, plain, stamp

MAX_JSON_BYTES, MAX_WEIGHTS_BYTES = 4_000_000, 64_000_000_000
_CHECKPOINTS = {"safetensors", "zip", "pickle", "onnx"}


def read_json(path: StoragePath) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        UsageError: missing, too large, or not a JSON object.
    """
    try:
        if stamp(path).size > MAX_JSON_BYTES:
            raise UsageError(f"{path}: over {MAX_JSON_BYTES} bytes; that is no model config")
        data = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"{path}: missing") from None
    except OSError as error:
        raise UsageError(f"{path}: not readable ({error})") from error
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        told = instead(data[:HEAD_BYTES], "JSON", fit={"json", "text"})
        raise UsageError(f"{path}: {told or f'not readable as JSON ({error})'}") from error
    if not isinstance(value, dict):
        raise UsageError(f"{path}: must hold a JSON object")
    return value


def check_kind(path: StoragePath) -> None:
    """Refuse a file that surely is no checkpoint, before anything is planned with it; its bytes are not read.

    Raises:
        UsageError: it is larger than any, or says what it is, such as the pointer that a clone without Git LFS leaves.
    """
    if (size := stamp(path).size) > MAX_WEIGHTS_BYTES:
        raise UsageError(f"{path}: has {size} bytes, over the limit of {MAX_WEIGHTS_BYTES} for a file of weights")
    if isinstance(path, Path) and (told := instead(head_of(path), "a checkpoint", fit=_CHECKPOINTS)):
        raise UsageError(f"{path}: {told}")


def read_checkpoint(path: StoragePath) -> object:
    """What a checkpoint holds: the tensors of a safetensors file, or what ``read_pickle`` reads. Its bytes say which
    it is, whatever its name says.

    They may be views into the file, read when they are first used: copy what is to be kept.

    Raises:
        UsageError: missing, damaged, no checkpoint at all (says what it is), or a pickle that holds more than tensors.
    """
    try:
        with local_copy(path) as file:
            head = head_of(file)
            if kind_of(head) == SAFETENSORS:
                return load_file(file)
            if path.suffix == ".safetensors":
                _refuse_other(path, head)
    except FileNotFoundError:
        raise UsageError(f"{path}: missing") from None
    except (
        *(SafetensorError, RuntimeError, OSError, EOFError, ValueError, LookupError, TypeError, AttributeError),
        *(OverflowError, MemoryError),
    ) as error:
        raise UsageError(f"{path}: not a readable checkpoint ({error})") from error
    return read_pickle(path)


def _refuse_other(path: StoragePath, head: bytes) -> NoReturn:
    kind = kind_of(head)
    if kind is not None and kind.name in {"zip", "pickle"}:
        raise UsageError(f"{path}: is {kind.what}, not a safetensors file; call it .pth if torch.save wrote it")
    raise UsageError(f"{path}: {instead(head, 'a safetensors file') or 'not a readable checkpoint, but other bytes'}")


def read_tensors(path: StoragePath) -> dict[str, Tensor]:
    """``read_checkpoint`` of a flat state dict.

    Raises:
        UsageError: as ``read_checkpoint``, or it holds anything else.
    """
    state = read_checkpoint(path)
    if not isinstance(state, dict) or not all(isinstance(k, str) and is_dense(v) for k, v in state.items()):
        raise UsageError(f"{path}: is not a flat state dict of dense tensors of real numbers")
    return state


def is_whole(path: Path) -> bool:
    """Whether a ``.safetensors`` file has exactly the bytes that its header promises; no tensor is read."""
    try:
        plain(path)
        with safe_open(path, framework="pt"):
            return True
    except (SafetensorError, OSError, DataError):
        return False


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """The shape of each tensor."""
    return {key: tensor.shape for key, tensor in state.items()}


def misfits(wanted: Mapping[str, torch.Size], state: Mapping[str, Tensor]) -> list[str]:
    """In what tensors differ from those that a network has, one text for each kind of difference: how many, and the
    first few by name."""
    shapes = [
        f"{key} is {tuple(state[key].shape)}, it must be {tuple(wanted[key])}"
        for key in sorted(set(wanted) & set(state))
        if wanted[key] != state[key].shape
    ]
    kinds = {
        "missing": sorted(set(wanted) - set(state)),
        "unexpected": sorted(set(state) - set(wanted)),
        "of another shape": shapes,
    }
    return [f"{len(keys)} {what}: {a_few(keys)}" for what, keys in kinds.items() if keys]


def check_fit(state: Mapping[str, Tensor], wanted: Mapping[str, torch.Size], *, where: StoragePath) -> None:
    """Hold a checkpoint's keys and shapes against those that a network has.

    Raises:
        UsageError: counts the keys that are missing, unexpected or of another shape, and names the first few.
    """
    if faults := misfits(wanted, state):
        raise UsageError(f"{where}: does not fit its config:\n  " + "\n  ".join(faults))


def layout_of(build: Callable[[], nn.Module]) -> dict[str, torch.Size]:
    """The shapes that a network's tensors have, without the memory that they take: a config may ask for any size."""
    return shapes_of(_without_values(build).state_dict())


def filled(build: Callable[[], nn.Module], state: Mapping[str, Tensor]) -> nn.Module:
    """The network that ``build`` makes, in the network's own dtypes, with copies of the tensors of ``state``, which
    must fit ``layout_of``.
    """
    module = _without_values(build)
    own = {key: state[key].to(tensor.dtype, copy=True) for key, tensor in module.state_dict().items()}
    if not {name for name, _ in module.named_buffers()} <= set(own):
        module = build()  # it has constants that no checkpoint brings
    module.load_state_dict(own, assign=True)
    return module


def _without_values(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return build()
