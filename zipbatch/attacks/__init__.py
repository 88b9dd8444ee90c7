"""Backdoor attacks: uint8 images in, uint8 images with the trigger out. Pure, on numpy arrays.

Adding one is a new module here and a line in ``ATTACKS``.

A profile is a set of defaults for the attacks that it knows: their parameters, and with them the published figures.
``standard`` has the choices of the papers and of common benchmarks. ``zip-code`` has those of the ZIP reference code
(sycny/ZIP 3778253), pixel for pixel on the same seed; it differs in WaNet alone, whose 256 control points a side make
the warp a jitter of each pixel. ``backdoorbench`` has those of the field's largest benchmark.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any, get_args, get_origin, get_type_hints

from zipbatch.attacks.adaptive import AdaptiveBlend, AdaptivePatch
from zipbatch.attacks.backdoorbench import BENCHMARKED
from zipbatch.attacks.badnets import BadNets
from zipbatch.attacks.base import Attack, FromArray, FromPicture, FromPictures, Trigger
from zipbatch.attacks.batt import BATT
from zipbatch.attacks.blended import Blended
from zipbatch.attacks.bpp import BPP
from zipbatch.attacks.ctrl import CTRL
from zipbatch.attacks.ftrojan import FTrojan
from zipbatch.attacks.function import FunctionAttack
from zipbatch.attacks.goal import Goal
from zipbatch.attacks.indices import chosen_indices, cover_indices, poison_indices
from zipbatch.attacks.label_consistent import LabelConsistent
from zipbatch.attacks.lf import LF
from zipbatch.attacks.patch import Patch, Pattern
from zipbatch.attacks.physicalba import PhysicalBA
from zipbatch.attacks.refool import Refool
from zipbatch.attacks.sig import SIG
from zipbatch.attacks.tact import TaCT
from zipbatch.attacks.wanet import WaNet
from zipbatch.errors import UsageError

ATTACKS: dict[str, Attack] = {
    attack.name: attack
    for attack in (
        BadNets(),
        Blended(),
        WaNet(),
        PhysicalBA(),
        SIG(),
        FTrojan(),
        CTRL(),
        BPP(),
        BATT(),
        Patch(),
        Pattern(),
        AdaptiveBlend(),
        AdaptivePatch(),
        TaCT(),
        LabelConsistent(),
        LF(),
        Refool(),
    )
}
PROFILES: dict[str, dict[str, Attack]] = {
    "standard": ATTACKS,
    "zip-code": {attack.name: attack for attack in (BadNets(), Blended(), WaNet(grid_size=256), PhysicalBA())},
    "backdoorbench": {attack.name: attack for attack in BENCHMARKED},
}


def get_attack(name: str, params: Mapping[str, str] | None = None, *, profile: str = "standard") -> Attack:
    """The attack of that name, its parameters overridden from strings such as ``{"grid_size": "256"}``, lists of
    numbers from ``"5,7"``.

    Raises:
        UsageError: unknown profile, attack or parameter, an attack that the profile lacks, or a value that is not a
            number of the parameter's type.
    """
    if profile not in PROFILES:
        raise UsageError(f"unknown profile {profile!r}; known: {', '.join(PROFILES)}")
    if name not in ATTACKS:
        raise UsageError(f"unknown attack {name!r}; known: {', '.join(sorted(ATTACKS))}")
    if name not in PROFILES[profile]:
        raise UsageError(f"profile {profile} has no attack {name}; it has: {', '.join(PROFILES[profile])}")
    attack = PROFILES[profile][name]
    types = get_type_hints(type(attack))
    known = {field.name: types[field.name] for field in fields(attack)}  # type: ignore[arg-type]
    changes: dict[str, object] = {}
    for key, text in (params or {}).items():
        if key not in known:
            raise UsageError(f"attack {name} has no parameter {key!r}; it has: {', '.join(known) or 'none'}")
        try:
            changes[key] = _reader(known[key])(text)
        except ValueError:
            raise UsageError(f"attack {name}: {key} must be {_called(known[key])}, got {text!r}") from None
    try:
        return replace(attack, **changes)  # type: ignore[type-var]
    except ValueError as error:
        raise UsageError(f"attack {name}: {error}") from None


def attack_params(attack: Attack) -> dict[str, object]:
    """The attack's own parameters, for a manifest."""
    values = {field.name: getattr(attack, field.name) for field in fields(attack)}  # type: ignore[arg-type]
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if not callable(value)
    }


def _reader(kind: Any) -> Callable[[str], object]:
    """What makes a parameter of its text; raises ``ValueError``."""
    if get_origin(kind) is not tuple:
        return kind  # type: ignore[no-any-return]
    number = get_args(kind)[0]
    return lambda text: tuple(number(part) for part in text.split(","))


def _called(kind: Any) -> str:
    return f"{get_args(kind)[0].__name__}s such as 1,2" if get_origin(kind) is tuple else f"a {kind.__name__}"


__all__ = [
    "ATTACKS",
    "PROFILES",
    "Attack",
    "FromArray",
    "FromPicture",
    "FromPictures",
    "FunctionAttack",
    "Goal",
    "Trigger",
    "attack_params",
    "chosen_indices",
    "cover_indices",
    "get_attack",
    "poison_indices",
]
