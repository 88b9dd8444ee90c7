"""Purifiers: uint8 images in, uint8 images out. ``zip`` is the method of the paper, the others are baselines.

Adding one is a new module here and a line in ``PURIFIERS``.
"""

from __future__ import annotations

from zipbatch.purifiers.base import Purifier, Resources
from zipbatch.purifiers.bitdepth import BitDepth
from zipbatch.purifiers.blur import Blur
from zipbatch.purifiers.ddnm import Ddnm
from zipbatch.purifiers.diffpure import DiffPure
from zipbatch.purifiers.jpeg import Jpeg
from zipbatch.purifiers.median import Median
from zipbatch.purifiers.painter import SamplerSettings
from zipbatch.purifiers.shrinkpad import ShrinkPad
from zipbatch.purifiers.zip import Zip

PURIFIERS: dict[str, type[Purifier]] = {
    "zip": Zip,
    "ddnm": Ddnm,
    "diffpure": DiffPure,
    "blur": Blur,
    "median": Median,
    "bitdepth": BitDepth,
    "jpeg": Jpeg,
    "shrinkpad": ShrinkPad,
}

__all__ = ["PURIFIERS", "Blur", "Purifier", "Resources", "SamplerSettings", "Zip"]
