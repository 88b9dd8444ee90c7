"""Projection alone, without a prior: the cheapest baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from zipbatch.config import Settings, Transforms
from zipbatch.diffusion import mean_projection, parse_projector
from zipbatch.pixels import from_u8, to_u8
from zipbatch.purifiers.base import Purifier, Resources


class BlurSettings(Settings):
    """Settings of ``blur``."""

    transforms: Transforms = Field(("blur:2",), description="what is left of the image; several are averaged")


class Blur(Purifier):
    """The mean of the projectors' images: what ZIP guides with."""

    settings_type: ClassVar[type[Settings]] = BlurSettings
    source: ClassVar[str] = "Shi et al. 2023, arXiv 2303.12175; average pooling as in sycny/ZIP 3778253"

    def __init__(self, settings: BlurSettings, resources: Resources) -> None:
        self._projectors = [parse_projector(text) for text in settings.transforms]
        self._device, self._seed = resources.device, resources.seed

    @classmethod
    def images_per_row(cls, settings: BlurSettings, height: int, width: int, *, prior_size: int | None) -> int:  # noqa: ARG003
        """Always 1; raises ``ValueError`` when a block does not divide the size."""
        for text in settings.transforms:
            parse_projector(text).check(height, width)
        return 1

    def __call__(self, images: Tensor, keys: Sequence[str]) -> Tensor:
        """Project uint8 images [N, 3, H, W] named by ``keys``; same shape and dtype."""
        unit = from_u8(images.to(self._device), "unit")
        projectors = [projector.with_keys(self._seed, keys) for projector in self._projectors]
        return to_u8(mean_projection(projectors)(unit), "unit").cpu()
