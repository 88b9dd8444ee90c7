"""The settings of each stage and what they may be."""

from __future__ import annotations

import bisect
import math
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Settings(BaseModel):
    """Base of all settings: unknown fields, NaN and infinity are errors.

    ``LATER`` names fields that came when results without them were there: None leaves them out of an identity.
    ``LEARNED`` names those that come with a prior's folder where they are not given: the first of them is None then.
    """

    LATER: ClassVar[frozenset[str]] = frozenset()
    LEARNED: ClassVar[tuple[str, ...]] = ()

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class VictimConfig(Settings):
    """How a victim is trained."""

    arch: str = "resnet18"
    epochs: int = Field(100, ge=1)
    minutes: float | None = Field(None, gt=0)
    batch_size: int = Field(128, ge=2)
    lr: float = Field(0.1, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0)
    warmup: float = Field(0.05, ge=0, lt=1)
    augment: bool = True
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.25, 0.25, 0.25)
    seed: int = Field(0, ge=0)


class DenoiserConfig(Settings):
    """How a network is trained that takes noise away: a prior, or its restorer."""

    steps: int = Field(30_000, ge=1)
    minutes: float | None = Field(None, gt=0)
    batch_size: int = Field(16, ge=1)
    lr: float = Field(1e-3, gt=0)
    final_lr: float = Field(0.02, ge=0, le=1)
    warmup: float = Field(0.01, ge=0, lt=1)
    beta2: float = Field(0.99, gt=0, lt=1)
    clip_grad_norm: float = Field(1.0, gt=0)
    ema: float = Field(0.9992, ge=0, lt=1)
    flip: bool = True
    held_out: int = Field(512, ge=1)
    seed: int = Field(0, ge=0)


class PriorConfig(DenoiserConfig):
    """How a prior is trained. ``unet`` is a diffusers UNet2DModel config without channels and sample size.

    With ``max_step`` only the timesteps below it are learned, and the prior is good for those alone. ``min_snr`` is the
    gamma of min-SNR weighting (Hang et al. 2023, arXiv 2303.09556); None weighs all timesteps alike.
    """

    LATER: ClassVar[frozenset[str]] = frozenset({"max_step", "min_snr"})

    unet: dict[str, Any] = {
        "block_out_channels": [64, 128],
        "down_block_types": ["DownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "UpBlock2D"],
        "layers_per_block": 1,
        "add_attention": False,
        "norm_num_groups": 16,
    }
    patch: int = Field(2, ge=1, le=8)
    beta_schedule: str = "linear"
    beta_start: float = Field(1e-4, gt=0, lt=1)
    beta_end: float = Field(0.02, gt=0, lt=1)
    training_steps: int = Field(1000, ge=10)
    max_step: int | None = Field(None, ge=2)
    min_snr: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _fits(self) -> PriorConfig:
        if self.max_step is not None and self.max_step > self.training_steps:
            raise ValueError(f"max_step must be at most training_steps, {self.training_steps}, got {self.max_step}")
        return self


class RestorerConfig(DenoiserConfig):
    """How a prior's restorer is trained: from the prior's own weights, on images that were damaged on purpose.

    Of the images of a batch, the share ``plain`` is only compressed and noised; the others get a patch, a picture mixed
    in or a warp before that, drawn anew each time.
    """

    steps: int = Field(6000, ge=1)
    batch_size: int = Field(32, ge=1)
    lr: float = Field(4e-4, gt=0)
    warmup: float = Field(0.03, ge=0, lt=1)
    ema: float = Field(0.998, ge=0, lt=1)
    max_step: int = Field(150, ge=2)
    quality: tuple[int, int] = (30, 90)
    plain: float = Field(0.5, ge=0, le=1)

    @model_validator(mode="after")
    def _fits(self) -> RestorerConfig:
        if not 1 <= self.quality[0] <= self.quality[1] <= 100:
            raise ValueError(f"quality must go from the lower to the higher of 1 to 100, got {self.quality}")
        return self


class Calibration(Settings):
    """What a prior makes of clean images: the residuals of its estimates, and how far up their scores go.

    ``levels`` are the mean absolute residuals at ``residual_steps``, in model units. Of the clean pixels, the share
    ``shares[i]`` has a score of ``scores[i]`` or more; shares go down, scores up.
    """

    SHARES: ClassVar[tuple[float, ...]] = (0.5, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01, 0.005, 0.002, 0.001, 5e-4, 2e-4, 1e-4)
    LEAST_PIXELS: ClassVar[int] = 10
    """Clean pixels that a score must be held against."""
    LEAST: ClassVar[float] = 1e-4

    image_size: int = Field(ge=1)
    residual_steps: tuple[int, ...] = Field(min_length=1, max_length=32)
    levels: tuple[float, ...] = Field(max_length=32)
    shares: tuple[float, ...] = Field(min_length=2, max_length=100)
    scores: tuple[float, ...] = Field(max_length=100)

    @model_validator(mode="after")
    def _fits(self) -> Calibration:
        if len(self.levels) != len(self.residual_steps) or len(self.scores) != len(self.shares):
            raise ValueError("levels go with residual_steps, scores with shares, one for one")
        if min(self.levels) < self.LEAST or min(self.scores) < self.LEAST:
            raise ValueError(f"levels and scores must be above 0, {self.LEAST:g} or more")
        if not 0 < min(self.shares) <= max(self.shares) < 1:
            raise ValueError("shares must be between 0 and 1")
        if list(self.shares) != sorted(self.shares, reverse=True) or list(self.scores) != sorted(self.scores):
            raise ValueError("shares must go down, scores up")
        return self

    def score(self, share: float) -> float:
        """The score that ``share`` of the clean pixels reach, by a line through the logarithms of the shares beside it.

        Raises:
            ValueError: a share outside of those that were measured.
        """
        if not self.shares[-1] <= share <= self.shares[0]:
            raise ValueError(
                f"of clean pixels, shares of {self.shares[-1]:g} to {self.shares[0]:g} were measured, not {share:g}; "
                "calibrate with more images, or take another share"
            )
        right = max(1, bisect.bisect_left(self.shares, -share, key=lambda one: -one))
        (high, low), (near, far) = self.shares[right - 1 : right + 1], self.scores[right - 1 : right + 1]
        if high == low:
            return far
        return round(near + (far - near) * math.log(high / share) / math.log(high / low), 4)
