"""Fewer bits a channel (Xu et al. 2017, "Feature squeezing", arXiv 1704.01155)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from zipbatch.config import Settings
from zipbatch.pixels import from_u8, to_u8
from zipbatch.purifiers.base import Purifier, Resources
from zipbatch.purifiers.settings import BitDepthSettings


class BitDepth(Purifier):
    """Each channel rounded to 2^bits evenly spaced levels from 0 to 255."""

    settings_type: ClassVar[type[Settings]] = BitDepthSettings
    source: ClassVar[str] = "Xu et al. 2017, arXiv 1704.01155; rounding as in ART 23539e2"

    def __init__(self, settings: BitDepthSettings, resources: Resources) -> None:
        self._steps, self._device = 2**settings.bits - 1, resources.device

    def __call__(self, images: Tensor, keys: Sequence[str]) -> Tensor:  # noqa: ARG002 (deterministic)
        """Purify uint8 images [N, 3, H, W]; same shape and dtype, on the CPU."""
        levels = (from_u8(images.to(self._device), "unit") * self._steps).round()
        return to_u8(levels / self._steps, "unit").cpu()
