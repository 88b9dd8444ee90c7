"""ZIP: blur the trigger away, let a guided diffusion model paint the picture back (NeurIPS 2023, arXiv 2303.12175)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from zipbatch.config import Settings, Transforms
from zipbatch.purifiers.base import Purifier, Resources
from zipbatch.purifiers.diffusion_sampler import DiffusionSampler, SamplerSettings, images_per_canvas


class ZipSettings(SamplerSettings):
    """Settings of ``zip``; the defaults are those of the preset ``balanced-v1``, the published ones are ``paper``."""

    start_step: int | None = Field(300, ge=1, description="start at the first step below it; null: T, pure noise")
    transforms: Transforms = Field(("blur:2", "blur:1"), description="what guides the sampler; several are averaged")
    guidance_exponent: float = Field(10.0, gt=0, description="k; the pull at step t is 1 - alpha_bar[t]^k")


class Zip(Purifier):
    """Guided sampling with the prior: a picture painted anew, held to what the transforms leave of the suspect."""

    settings_type: ClassVar[type[Settings]] = ZipSettings
    source: ClassVar[str] = "Shi et al. 2023, arXiv 2303.12175; update as in sycny/ZIP 3778253"
    needs_prior: ClassVar[bool] = True
    seeded: ClassVar[bool] = True

    def __init__(self, settings: ZipSettings, resources: Resources) -> None:
        self._settings, self._painter = settings, DiffusionSampler(settings, resources)

    @classmethod
    def images_per_row(cls, settings: ZipSettings, height: int, width: int, *, prior_size: int | None) -> int:
        """Tiles a canvas."""
        return images_per_canvas(height, width, prior_size, settings.transforms)

    def __call__(self, images: Tensor, keys: Sequence[str]) -> Tensor:
        """Purify uint8 images [N, 3, H, W] named by ``keys``; same shape and dtype, on the CPU."""
        return self._painter.paint_guided(
            images,
            keys,
            transforms=self._settings.transforms,
            guidance_exponent=self._settings.guidance_exponent,
        )
