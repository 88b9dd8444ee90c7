"""Read tensors from files without running anything that is in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from zipbatch.checkpoints.pickles import read_pickle
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
    except FileNotFoundError:
        raise UsageError(f"{path}: missing") from None
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise UsageError(f"{path}: not a readable checkpoint ({error})") from error
    state = read_pickle(path)
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise UsageError(f"{path}: is not a flat state dict of tensors")
    return state


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], *, where: Path) -> None:
    """Load every tensor, with no key missing, unexpected or of another shape.

    Raises:
        UsageError: names the first few of each kind and their number.
    """
    faults = misfits(module.state_dict(), state, named=4, wanted="the config says")
    if faults:
        raise UsageError(f"{where}: does not fit its config: " + "; ".join(faults))
    module.load_state_dict(dict(state))


def misfits(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], *, named: int | None = None, wanted: str = "it must be"
) -> list[str]:
    """In what tensors differ from a network's own, one text for each kind of difference; empty when they fit.

    ``named`` is how many names of each kind are given, None for all; ``wanted`` introduces the network's own shape.
    """
    shapes = [
        f"{key} is {tuple(state[key].shape)}, {wanted} {tuple(own[key].shape)}"
        for key in sorted(set(own) & set(state))
        if own[key].shape != state[key].shape
    ]
    kinds = {
        "missing": sorted(set(own) - set(state)),
        "unexpected": sorted(set(state) - set(own)),
        "of another shape": shapes,
    }
    return [
        f"{len(keys)} {what}: {', '.join(keys[:named])}{' …' if len(keys) > len(keys[:named]) else ''}"
        for what, keys in kinds.items()
        if keys
    ]
