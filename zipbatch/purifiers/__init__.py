"""Purifiers: uint8 images in, uint8 images out. ``zip`` is the method of the paper, ``chain`` joins several, the others
are baselines.

Adding one is a new module here, its settings in ``settings.py``, and a line in ``METHODS`` and in ``SETTINGS``. Names
are imported when they are first used: settings are known without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from zipbatch.purifiers.settings import PriorSettings, RepaintSettings, RestoreSettings, SamplerSettings

if TYPE_CHECKING:
    from zipbatch.purifiers.base import Purifier, Resources
    from zipbatch.purifiers.blur import Blur
    from zipbatch.purifiers.chain import Chain, ChainSettings, Step
    from zipbatch.purifiers.diffusion_sampler import DiffusionSampler
    from zipbatch.purifiers.methods import METHODS
    from zipbatch.purifiers.registry import PURIFIERS
    from zipbatch.purifiers.repaint import calibration_of
    from zipbatch.purifiers.zip import Zip

__all__ = [
    "METHODS",
    "PURIFIERS",
    "Blur",
    "Chain",
    "ChainSettings",
    "DiffusionSampler",
    "PriorSettings",
    "Purifier",
    "RepaintSettings",
    "Resources",
    "RestoreSettings",
    "SamplerSettings",
    "Step",
    "Zip",
    "calibration_of",
]
_WHERE = {
    "METHODS": "methods",
    "PURIFIERS": "registry",
    "Blur": "blur",
    "Chain": "chain",
    "ChainSettings": "chain",
    "DiffusionSampler": "diffusion_sampler",
    "Purifier": "base",
    "Resources": "base",
    "Step": "chain",
    "Zip": "zip",
    "calibration_of": "repaint",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'zipbatch.purifiers' has no attribute {name!r}")
    return getattr(import_module(f"zipbatch.purifiers.{_WHERE[name]}"), name)
