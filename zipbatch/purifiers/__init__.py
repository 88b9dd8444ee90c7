"""Purifiers: uint8 images in, uint8 images out. ``zip`` is the method of the paper, the others are baselines.

Adding one is a new module here and a line in ``PURIFIERS``.
"""

from __future__ import annotations

from zipbatch.purifiers.base import Purifier, Resources
from zipbatch.purifiers.blur import Blur
from zipbatch.purifiers.zip import Zip

PURIFIERS: dict[str, type[Purifier]] = {"zip": Zip, "blur": Blur}

__all__ = ["PURIFIERS", "Blur", "Purifier", "Resources", "Zip"]
