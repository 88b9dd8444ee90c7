"""Backdoor attacks: uint8 images in, uint8 images with the trigger out. Pure, on numpy arrays.

Adding one is a new module here and a line in ``ATTACKS``.

A profile is a set of defaults for the attacks that it knows: their parameters, and with them the published figures.
``standard`` has the choices of the papers and of common benchmarks. ``zip-code`` has those of the ZIP reference code
(sycny/ZIP 3778253), pixel for pixel on the same seed; it differs in WaNet alone, whose 256 control points a side make
the warp a jitter of each pixel. ``backdoorbench`` has those of the field's largest benchmark.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from zipbatch.attacks.adaptive import AdaptiveBlend, AdaptivePatch
from zipbatch.attacks.backdoorbench import BENCHMARKED
from zipbatch.attacks.badnets import BadNets
from zipbatch.attacks.base import Attack, FromArray, FromPicture, FromPictures, Trigger
from zipbatch.attacks.batt import BATT
from zipbatch.attacks.blended import Blended
from zipbatch.attacks.bpp import BPP
from zipbatch.attacks.ctrl import CTRL
from zipbatch.attacks.ftrojan import FTrojan
from zipbatch.attacks.function import FunctionAttack, FunctionSettings
from zipbatch.attacks.goal import Goal
from zipbatch.attacks.indices import chosen_indices, cover_indices, poison_indices
from zipbatch.attacks.label_consistent import LabelConsistent
from zipbatch.attacks.lf import LF
from zipbatch.attacks.patch import Patch, Pattern
from zipbatch.attacks.physicalba import PhysicalBA
from zipbatch.attacks.refool import Refool
from zipbatch.attacks.sig import SIG
from zipbatch.attacks.tact import TaCT
from zipbatch.attacks.wanet import WaNet, WaNetSettings
from zipbatch.config import validate
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
    "zip-code": {
        attack.name: attack for attack in (BadNets(), Blended(), WaNet(WaNetSettings(grid_size=256)), PhysicalBA())
    },
    "backdoorbench": {attack.name: attack for attack in BENCHMARKED},
}


def get_attack(name: str, params: Mapping[str, object] | None = None, *, profile: str = "standard") -> Attack:
    """The attack of that name, with its profile's settings but for ``params``: values, or texts such as ``"256"`` for a
    number and ``"5,7"`` for a list.

    Raises:
        UsageError: unknown profile or attack, an attack that the profile lacks, or parameters that the attack's
            settings do not allow.
    """
    if profile not in PROFILES:
        raise UsageError(f"unknown profile {profile!r}; known: {', '.join(PROFILES)}")
    if name not in ATTACKS:
        raise UsageError(f"unknown attack {name!r}; known: {', '.join(sorted(ATTACKS))}")
    if name not in PROFILES[profile]:
        raise UsageError(f"profile {profile} has no attack {name}; it has: {', '.join(PROFILES[profile])}")
    attack = PROFILES[profile][name]
    values = {**attack.settings.model_dump(), **(params or {})}
    return replace(attack, settings=validate(type(attack.settings), values, where=f"attack {name}"))


def attack_params(attack: Attack) -> dict[str, object]:
    """The attack's own parameters, for a manifest."""
    return attack.settings.model_dump(mode="json")


__all__ = [
    "ATTACKS",
    "PROFILES",
    "Attack",
    "FromArray",
    "FromPicture",
    "FromPictures",
    "FunctionAttack",
    "FunctionSettings",
    "Goal",
    "Trigger",
    "attack_params",
    "chosen_indices",
    "cover_indices",
    "get_attack",
    "poison_indices",
]
