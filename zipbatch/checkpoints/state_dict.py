"""Find a foreign checkpoint's weights, tell their architecture, and load them strictly."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

import torch
from torch import Tensor

from zipbatch.checkpoints.pickles import is_dense
from zipbatch.checkpoints.tensors import misfits, shapes_of
from zipbatch.errors import UsageError
from zipbatch.victims import CIFAR_ARCHITECTURES, TORCHVISION_PREFIX, VIT, Victim, build_victim

USUAL_KEYS = ("state_dict", "model_state_dict", "model", "net", "network", "weights")
AUXILIARY = {"torchvision:googlenet": ("aux1.", "aux2."), "torchvision:inception_v3": ("AuxLogits.",)}
"""Heads that only training looks at: the scores are the same without them."""
_COUNTER = ".num_batches_tracked"
"""Batch norm's count of training batches, which older torch did not save and no score depends on."""
_WRAPPER = re.compile(r"[A-Za-z0-9_]+\.")
State = dict[str, Tensor]


@dataclass(frozen=True)
class FoundState:
    """Weights as a foreign file holds them, less its wrappings.

    Attributes:
        state: name -> tensor, without the wrappers' prefixes.
        nested: the key that they lay under, None when the file is the state dict itself.
        stripped: prefixes taken off, outermost first: of DataParallel, torch.compile, a module around the network, or
            its place in a Sequential.
    """

    state: State
    nested: str | None
    stripped: tuple[str, ...]


def find_state(tree: object, *, where: Path) -> FoundState:
    """The state dict in what a file holds: all of it, or what lies under one of the usual keys.

    Where every name begins with the same part, something was wrapped around the network, and it is taken off.

    Args:
        tree: what was read.
        where: the file, for messages.

    Raises:
        UsageError: none, or more than one.
    """
    nested, state = _unnested(tree, where)
    stripped = []
    while prefix := _wrapper(state):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
        stripped.append(prefix)
    return FoundState(state, nested, tuple(stripped))


def _wrapper(state: State) -> str | None:
    """The first part of every name, if that is one; a lone layer's own name is none."""
    found = _WRAPPER.match(next(iter(state)))
    if found is None or not all(key.startswith(found[0]) for key in state):
        return None
    return found[0] if any("." in key.removeprefix(found[0]) for key in state) else None


def _unnested(tree: object, where: Path) -> tuple[str | None, State]:
    if is_state(tree):
        return None, dict(tree)
    entries = tree if isinstance(tree, dict) else {}
    found = {key: entries[key] for key in USUAL_KEYS if is_state(entries.get(key))}
    if len(found) != 1:
        have = ", ".join(str(key)[:40] for key in list(entries)[:12]) or type(tree).__name__
        what = f"state dicts under {' and '.join(found)}" if found else "no state dict"
        raise UsageError(f"{where}: holds {what} (it has: {have}); save the one state dict alone")
    return next(iter(found.items()))


def is_state(value: object) -> TypeGuard[State]:
    """Whether it is a non-empty dict of dense tensors by name."""
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(key, str) and is_dense(tensor) for key, tensor in value.items())
    )


def sniff(state: Mapping[str, Tensor], *, where: Path) -> str:
    """The architecture of this project whose tensor names are these.

    Raises:
        UsageError: none; says which is closest and in what it differs.
    """
    names = {arch: _counted(_empty(arch, 2).state_dict()) for arch in CIFAR_ARCHITECTURES}
    for arch, own in names.items():
        if own == _counted(state):
            return arch
    if {"fc.weight", "conv1.weight"} <= set(state) or {"features.0.weight", "classifier.6.weight"} <= set(state):
        raise UsageError(
            f"{where}: looks like a network of torchvision's; name it, as in ‹arch='torchvision:resnet18'›"
        )
    closest = max(names, key=lambda arch: len(names[arch] & set(state)) / len(names[arch] | set(state)))
    shared = names[closest] & set(state)
    if len(shared) * 2 < len(names[closest]):
        some = ", ".join(list(state)[:6])
        known = ", ".join(CIFAR_ARCHITECTURES)
        raise UsageError(
            f"{where}: its tensors ({some}, …) are those of no architecture that is told by its names ({known}); name "
            "it with ‹arch torchvision:NAME› or timm:NAME, or export the network to ONNX"
        )
    faults = misfits({name: torch.Size([0]) for name in names[closest]}, dict.fromkeys(_counted(state), torch.empty(0)))
    raise UsageError(
        f"{where}: is closest to {closest}, but has {'; '.join(faults)}; if it is another network, name it with ‹arch› "
        "or export it to ONNX"
    )


def _counted(names: Iterable[str]) -> set[str]:
    """Those that decide scores."""
    return {name for name in names if not name.endswith(_COUNTER)}


def head_classes(arch: str, state: Mapping[str, Tensor], *, where: Path) -> int:
    """How many classes the head of ``arch`` has in these weights.

    The head is what changes its shape when the network is built for another number of classes.

    Raises:
        UsageError: unknown architecture, or the head is not among the weights.
    """
    two, three = (_network_state(arch, classes, where) for classes in (2, 3))
    heads = [name for name in two if two[name].shape != three[name].shape]
    head = next((name for name in heads if name in state and state[name].ndim), None)
    if head is None:
        faults = misfits(shapes_of(two), state)
        raise UsageError(f"{where}: lacks the head of {arch} ({', '.join(heads)}), has " + "; ".join(faults))
    return int(state[head].shape[0])  # as many as the file has numbers for


def load_foreign(victim: Victim, state: Mapping[str, Tensor], *, arch: str, where: Path) -> None:
    """Load weights strictly, but for what no score depends on: counters of batches, and heads for training alone.

    Raises:
        UsageError: they do not fit; counts what is missing, unexpected or misshapen, and names the first few.
    """
    wanted = victim.network.state_dict()
    counters = {key: torch.zeros_like(wanted[key]) for key in wanted if key.endswith(_COUNTER) and key not in state}
    kept = {key: value for key, value in state.items() if not key.startswith(AUXILIARY.get(arch, ()))}
    if faults := misfits(shapes_of(wanted), {**kept, **counters}):
        raise UsageError(f"{where}: does not fit {arch}: " + "; ".join(faults))
    victim.network.load_state_dict({**kept, **counters})


def built_for(arch: str, state: Mapping[str, Tensor]) -> int | None:
    """Side of the images, pixels, that a network of one size has weights for; None for one of any size."""
    position, patches = state.get("encoder.pos_embedding"), state.get("conv_proj.weight")
    if not arch.startswith(TORCHVISION_PREFIX + VIT) or position is None or patches is None:
        return None
    if position.ndim != 3 or patches.ndim != 4:
        return None
    return math.isqrt(max(0, position.shape[1] - 1)) * int(patches.shape[-1])


def _network_state(arch: str, classes: int, where: Path) -> State:
    try:
        return dict(_empty(arch, classes).state_dict())
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from error


def _empty(arch: str, classes: int) -> torch.nn.Module:
    """A network without memory for its weights."""
    with torch.device("meta"):
        return build_victim(arch, num_classes=classes).network
