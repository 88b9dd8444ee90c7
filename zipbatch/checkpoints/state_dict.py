"""Find a foreign checkpoint's weights, tell their architecture, and load them strictly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

import torch
from torch import Tensor

from zipbatch.checkpoints.pickles import is_dense
from zipbatch.checkpoints.tensors import misfits, shapes_of
from zipbatch.errors import UsageError
from zipbatch.victims import CIFAR_ARCHITECTURES, Victim, build_victim

USUAL_KEYS = ("state_dict", "model_state_dict", "model", "net", "network", "weights")
WRAPPERS = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name."""
State = dict[str, Tensor]


@dataclass(frozen=True)
class FoundState:
    """Weights as a foreign file holds them, less its wrappings.

    Attributes:
        state: name -> tensor, without the wrappers' prefixes.
        nested: the key that they lay under, None when the file is the state dict itself.
        stripped: prefixes taken off, outermost first.
    """

    state: State
    nested: str | None
    stripped: tuple[str, ...]


def find_state(tree: object, *, where: Path, prefixes: Sequence[str] = WRAPPERS) -> FoundState:
    """The state dict in what a file holds: all of it, or what lies under one of the usual keys.

    Args:
        tree: what was read.
        where: the file, for messages.
        prefixes: taken off the names as long as every name has one of them.

    Raises:
        UsageError: none, or more than one.
    """
    nested, state = _unnested(tree, where)
    stripped = []
    while prefix := next((prefix for prefix in prefixes if all(key.startswith(prefix) for key in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
        stripped.append(prefix)
    return FoundState(state, nested, tuple(stripped))


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
        UsageError: none; says which is closest and in what it differs, every name of it.
    """
    names = {arch: set(_empty(arch, 2).state_dict()) for arch in CIFAR_ARCHITECTURES}
    for arch, own in names.items():
        if own == set(state):
            return arch
    if "fc.weight" in state and "conv1.weight" in state:
        raise UsageError(f"{where}: looks like a network of torchvision's; name it, as in --arch torchvision:resnet18")
    closest = max(names, key=lambda arch: len(names[arch] & set(state)) / len(names[arch] | set(state)))
    shared = names[closest] & set(state)
    if len(shared) * 2 < len(names[closest]):
        some = ", ".join(list(state)[:6])
        known = ", ".join(CIFAR_ARCHITECTURES)
        raise UsageError(
            f"{where}: its tensors ({some}, …) are those of no architecture that is told by its names ({known}); name "
            "it with --arch torchvision:NAME or timm:NAME, or export the network to ONNX"
        )
    faults = misfits({name: torch.Size([0]) for name in names[closest]}, dict.fromkeys(state, torch.empty(0)))
    raise UsageError(f"{where}: is closest to {closest}, but has " + "; ".join(faults))


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
    """Load weights strictly: every missing, unexpected or misshapen tensor is named.

    Raises:
        UsageError: they do not fit.
    """
    if faults := misfits(shapes_of(victim.network.state_dict()), state):
        raise UsageError(f"{where}: does not fit {arch}: " + "; ".join(faults))
    victim.network.load_state_dict(dict(state))


def _network_state(arch: str, classes: int, where: Path) -> State:
    try:
        return dict(_empty(arch, classes).state_dict())
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from error


def _empty(arch: str, classes: int) -> torch.nn.Module:
    """A network without memory for its weights."""
    with torch.device("meta"):
        return build_victim(arch, num_classes=classes).network
