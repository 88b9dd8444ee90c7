"""Read tensors from files without running anything that is in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from zipbatch.checkpoints.pickles import is_dense, read_pickle
from zipbatch.errors import UsageError
from zipbatch.places import Place, local_copy, stamp

MAX_JSON_BYTES = 4_000_000


def read_json(path: Place) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        UsageError: missing, too large, or not a JSON object.
    """
    try:
        if stamp(path).size > MAX_JSON_BYTES:
            raise UsageError(f"{path}: over {MAX_JSON_BYTES} bytes; that is no model config")
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UsageError(f"{path}: missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(value, dict):
        raise UsageError(f"{path}: must hold a JSON object")
    return value


def read_tensors(path: Place) -> dict[str, Tensor]:
    """Tensors of a ``.safetensors`` file, or of a ``.bin`` / ``.pt`` state dict read with weights only.

    They may be views into the file, read when they are first used: copy what is to be kept.

    Raises:
        UsageError: missing, damaged, or a pickle that holds more than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            with local_copy(path) as file:
                return load_file(file)
    except FileNotFoundError:
        raise UsageError(f"{path}: missing") from None
    except (
        *(SafetensorError, RuntimeError, OSError, EOFError, ValueError, LookupError, TypeError, AttributeError),
        *(OverflowError, MemoryError),
    ) as error:
        raise UsageError(f"{path}: not a readable checkpoint ({error})") from error
    state = read_pickle(path)
    if not isinstance(state, dict) or not all(isinstance(k, str) and is_dense(v) for k, v in state.items()):
        raise UsageError(f"{path}: is not a flat state dict of dense tensors of real numbers")
    return state


def is_whole(path: Path) -> bool:
    """Whether a ``.safetensors`` file has exactly the bytes that its header promises; no tensor is read."""
    try:
        with safe_open(path, framework="pt"):
            return True
    except (SafetensorError, OSError):
        return False


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """The shape of each tensor."""
    return {key: tensor.shape for key, tensor in state.items()}


def misfits(wanted: Mapping[str, torch.Size], state: Mapping[str, Tensor]) -> list[str]:
    """In what tensors differ from those that a network has, one text for each kind of difference, every key named."""
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
    return [f"{len(keys)} {what}: {', '.join(keys)}" for what, keys in kinds.items() if keys]


def check_fit(state: Mapping[str, Tensor], wanted: Mapping[str, torch.Size], *, where: Place) -> None:
    """Hold a checkpoint's keys and shapes against those that a network has.

    Raises:
        UsageError: names every key that is missing, unexpected or of another shape.
    """
    if faults := misfits(wanted, state):
        raise UsageError(f"{where}: does not fit its config:\n  " + "\n  ".join(faults))


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], *, where: Place) -> None:
    """Load every tensor, with no key missing, unexpected or of another shape.

    Raises:
        UsageError: as ``check_fit``.
    """
    check_fit(state, shapes_of(module.state_dict()), where=where)
    module.load_state_dict(dict(state))
