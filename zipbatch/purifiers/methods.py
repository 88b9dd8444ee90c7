"""The purifiers that can be a step of a chain."""

from __future__ import annotations

from zipbatch.purifiers.base import Purifier
from zipbatch.purifiers.bitdepth import BitDepth
from zipbatch.purifiers.blur import Blur
from zipbatch.purifiers.ddnm import Ddnm
from zipbatch.purifiers.diffpure import DiffPure
from zipbatch.purifiers.jpeg import Jpeg
from zipbatch.purifiers.median import Median
from zipbatch.purifiers.repaint import Repaint
from zipbatch.purifiers.restore import Restore
from zipbatch.purifiers.shrinkpad import ShrinkPad
from zipbatch.purifiers.zip import Zip

METHODS: dict[str, type[Purifier]] = {
    "zip": Zip,
    "repaint": Repaint,
    "restore": Restore,
    "ddnm": Ddnm,
    "diffpure": DiffPure,
    "blur": Blur,
    "median": Median,
    "bitdepth": BitDepth,
    "jpeg": Jpeg,
    "shrinkpad": ShrinkPad,
}
