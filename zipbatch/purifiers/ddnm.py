"""DDNM: paint only what a linear degradation has lost (Wang et al. 2022, arXiv 2212.00490)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field, field_validator
from torch import Tensor

from zipbatch.config import Settings, Transforms, parse_transform
from zipbatch.purifiers.base import Purifier, Resources
from zipbatch.purifiers.diffusion_sampler import DiffusionSampler, SamplerSettings, images_per_canvas


class DdnmSettings(SamplerSettings):
    """Settings of ``ddnm``; steps and eta are the published ones."""

    steps: int | None = Field(100, ge=1, description="S, sampling steps over the whole schedule; null: all T")
    eta: float = Field(0.85, ge=0, le=1, description="0 deterministic (DDIM) to 1 ancestral")
    transforms: Transforms = Field(
        ("blur:2",), max_length=1, description="the one transform whose image is kept; a mean of several keeps none"
    )

    @field_validator("transforms")
    @classmethod
    def _projects(cls, transforms: tuple[str, ...]) -> tuple[str, ...]:
        if odd := [text for text in transforms if not parse_transform(text).is_projection]:
            raise ValueError(f"{odd[0]} is no projection, whose image could be kept; take blur:N, blur:N@key or dct:N")
        return transforms


class Ddnm(Purifier):
    """Hard consistency: at every step the clean estimate gets the suspect's own part in the transform's range.

    That is ZIP's update with a full pull, x0 + P(y - x0), to the last step, so that P of the result is P(y).
    """

    settings_type: ClassVar[type[Settings]] = DdnmSettings
    source: ClassVar[str] = "Wang et al. 2022, arXiv 2212.00490, section 3.2; eps of the step as in wyhuai/DDNM"
    needs_prior: ClassVar[bool] = True
    seeded: ClassVar[bool] = True

    def __init__(self, settings: DdnmSettings, resources: Resources) -> None:
        self._settings, self._painter = settings, DiffusionSampler(settings, resources)

    @classmethod
    def images_per_row(cls, settings: DdnmSettings, height: int, width: int, *, prior_size: int | None) -> int:
        """Tiles a canvas."""
        return images_per_canvas(height, width, prior_size, settings.transforms)

    def __call__(self, images: Tensor, keys: Sequence[str]) -> Tensor:
        """Purify uint8 images [N, 3, H, W] named by ``keys``; same shape and dtype, on the CPU."""
        return self._painter.paint_guided(
            images, keys, transforms=self._settings.transforms, guidance_exponent=math.inf
        )
