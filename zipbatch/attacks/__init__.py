"""Backdoor attacks: uint8 images in, uint8 images with the trigger out. Pure, on numpy arrays.

Adding one is a new module here and a line in ``ATTACKS``.

A profile is a set of defaults for the attacks that it knows: their parameters, and with them the published figures.
``standard`` has the choices of the papers and of common benchmarks. ``zip-code`` has those of the ZIP reference code
(sycny/ZIP 3778253), pixel for pixel on the same seed; it differs in WaNet alone, whose 256 control points a side make
the warp a jitter of each pixel. ``backdoorbench`` has those of the field's largest benchmark.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import get_type_hints

from zipbatch.attacks.backdoorbench import BENCHMARKED
from zipbatch.attacks.badnets import BadNets
from zipbatch.attacks.base import Attack, FromPicture, Trigger
from zipbatch.attacks.batt import BATT
from zipbatch.attacks.blended import Blended
from zipbatch.attacks.bpp import BPP
from zipbatch.attacks.ctrl import CTRL
from zipbatch.attacks.ftrojan import FTrojan
from zipbatch.attacks.goal import Goal
from zipbatch.attacks.indices import chosen_indices, poison_indices
from zipbatch.attacks.patch import Patch, Pattern
from zipbatch.attacks.physicalba import PhysicalBA
from zipbatch.attacks.sig import SIG
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
    )
}
PROFILES: dict[str, dict[str, Attack]] = {
    "standard": ATTACKS,
    "zip-code": {attack.name: attack for attack in (BadNets(), Blended(), WaNet(grid_size=256), PhysicalBA())},
    "backdoorbench": {attack.name: attack for attack in BENCHMARKED},
}


def get_attack(name: str, params: Mapping[str, str] | None = None, *, profile: str = "standard") -> Attack:
    """The attack of that name, its parameters overridden from strings such as ``{"grid_size": "256"}``.

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
            changes[key] = known[key](text)
        except ValueError:
            raise UsageError(f"attack {name}: {key} must be a {known[key].__name__}, got {text!r}") from None
    try:
        return replace(attack, **changes)  # type: ignore[type-var]
    except ValueError as error:
        raise UsageError(f"attack {name}: {error}") from None


def attack_params(attack: Attack) -> dict[str, object]:
    """The attack's own parameters, for a manifest."""
    return asdict(attack)  # type: ignore[call-overload, no-any-return]


__all__ = [
    "ATTACKS",
    "PROFILES",
    "Attack",
    "FromPicture",
    "Goal",
    "Trigger",
    "attack_params",
    "chosen_indices",
    "get_attack",
    "poison_indices",
]
