"""Purifiers: uint8 images in, uint8 images out. ``zip`` is the method of the paper, ``chain`` joins several, the others
are baselines.

Adding one is a new module here and a line in ``METHODS``.
"""

from __future__ import annotations

from zipbatch.purifiers.base import Purifier, Resources
from zipbatch.purifiers.blur import Blur
from zipbatch.purifiers.chain import Chain, ChainSettings, Step
from zipbatch.purifiers.diffusion_sampler import DiffusionSampler, PriorSettings, SamplerSettings
from zipbatch.purifiers.methods import METHODS
from zipbatch.purifiers.repaint import RepaintSettings, calibration_of
from zipbatch.purifiers.restore import RestoreSettings
from zipbatch.purifiers.zip import Zip

PURIFIERS: dict[str, type[Purifier]] = {**METHODS, "chain": Chain}

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
