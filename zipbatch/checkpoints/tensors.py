"""Read tensors from files without running anything that is in them."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from zipbatch.errors import UsageError

MAX_JSON_BYTES = 4_000_000


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        UsageError: missing, too large, or not a JSON object.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise UsageError(f"{path}: over {MAX_JSON_BYTES} bytes; that is no model config")
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UsageError(f"{path}: missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(value, dict):
        raise UsageError(f"{path}: must hold a JSON object")
    return value


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a ``.safetensors`` file, or of a ``.bin`` / ``.pt`` state dict read with weights only.

    Raises:
        UsageError: missing, damaged, or a pickle that holds more than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UsageError(f"{path}: missing") from None
    except pickle.UnpicklingError as error:
        raise UsageError(f"{path}: refused: it is a pickle with more than tensors in it (nothing was run)") from error
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise UsageError(f"{path}: not a readable checkpoint ({error})") from error
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise UsageError(f"{path}: is not a flat state dict of tensors")
    return state


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], *, where: Path) -> None:
    """Load every tensor, with no key missing, unexpected or of another shape.

    Raises:
        UsageError: names the first few of each kind and their number.
    """
    own = module.state_dict()
    missing = sorted(set(own) - set(state))
    unexpected = sorted(set(state) - set(own))
    shapes = [
        f"{key} is {tuple(state[key].shape)}, the config says {tuple(own[key].shape)}"
        for key in sorted(set(own) & set(state))
        if own[key].shape != state[key].shape
    ]
    faults = [
        f"{len(keys)} {what}: {', '.join(keys[:4])}{' …' if len(keys) > 4 else ''}"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if keys
    ]
    if faults:
        raise UsageError(f"{where}: does not fit its config: " + "; ".join(faults))
    module.load_state_dict(dict(state))
