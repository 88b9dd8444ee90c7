"""ShrinkPad: shrink the image and pad it back at a random place (Li et al. 2021, arXiv 2104.02361)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from zipbatch.config import Settings
from zipbatch.diffusion import noise_streams, uniform_integers
from zipbatch.pixels import from_u8, to_u8
from zipbatch.purifiers.base import Purifier, Resources


class ShrinkPadSettings(Settings):
    """Settings of ``shrinkpad``; the default is the published one for 32 px and does not grow with the image."""

    pad: int = Field(4, ge=1, description="pixels that height and width lose, and get back as black borders")


class ShrinkPad(Purifier):
    """The image p pixels smaller, in black, at one of (p + 1)² places: a trigger is neither where nor what it was.

    Bilinear without antialiasing, as tensors are resized in THUYimingLi/BackdoorBox; that draws one place for a whole
    batch, here each key has its own.
    """

    settings_type: ClassVar[type[Settings]] = ShrinkPadSettings
    source: ClassVar[str] = "Li et al. 2021, arXiv 2104.02361; resize as in THUYimingLi/BackdoorBox af3afd1"
    seeded: ClassVar[bool] = True

    def __init__(self, settings: ShrinkPadSettings, resources: Resources) -> None:
        self._pad, self._seed, self._device = settings.pad, resources.seed, resources.device
        self._heartbeat = resources.heartbeat

    @classmethod
    def images_per_row(cls, settings: ShrinkPadSettings, height: int, width: int, *, prior_size: int | None) -> int:  # noqa: ARG003
        """Always 1; raises ``ValueError`` when nothing would be left of the image."""
        if min(height, width) <= settings.pad:
            raise ValueError(f"shrinkpad: pad {settings.pad} leaves nothing of an image of {width}x{height} pixels")
        return 1

    def __call__(self, images: Tensor, keys: Sequence[str]) -> Tensor:
        """Purify uint8 images [N, 3, H, W] named by ``keys``; same shape and dtype, on the CPU."""
        height, width = (side - self._pad for side in images.shape[-2:])
        places = uniform_integers(noise_streams(self._seed, keys), bound=self._pad + 1, count=2)
        padded = images.new_zeros(images.shape, device="cpu")
        for i, (top, left) in enumerate(places.tolist()):
            self._heartbeat()
            padded[i, :, top : top + height, left : left + width] = self._shrunk(images[i], height, width)
        return padded

    def _shrunk(self, image: Tensor, height: int, width: int) -> Tensor:
        unit = from_u8(image[None].to(self._device), "unit")
        return to_u8(F.interpolate(unit, (height, width), mode="bilinear", align_corners=False), "unit")[0].cpu()
