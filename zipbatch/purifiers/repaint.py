"""Repaint: find what the prior cannot explain, and let it paint only that anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor

from zipbatch.config import Calibration, Settings, listed
from zipbatch.diffusion import NoiseAt, filled, regions, repainted, unexplained
from zipbatch.purifiers.base import Purifier, Resources, check_finite
from zipbatch.purifiers.diffusion_sampler import DiffusionSampler, SamplerSettings, images_per_canvas


def _listed(value: object) -> object:
    """``100,300`` as a list; a single number, which YAML reads as such, too."""
    return [value] if isinstance(value, int | float) else listed(value)


class RepaintSettings(SamplerSettings):
    """Settings of ``repaint``. What is usual on clean images, and so the last four, comes with the prior, from its
    ``calibration.json``, where they are not given.
    """

    LEARNED: ClassVar[tuple[str, ...]] = ("levels", "seed_threshold", "region_threshold", "image_size")

    start_step: int = Field(100, ge=1, description="repaint from the first step below it on")
    residual_steps: Annotated[tuple[int, ...], BeforeValidator(_listed), Field(min_length=1, max_length=32)] = Field(
        (100, 300, 500), description="timesteps whose clean estimates an image is held against"
    )
    seed_share: float = Field(0.0005, gt=0, le=0.5, description="share of clean pixels that would begin a region")
    region_share: float = Field(0.03, gt=0, le=0.5, description="share of clean pixels that could belong to one")
    levels: Annotated[tuple[float, ...] | None, BeforeValidator(_listed)] = Field(
        None, description="mean absolute residual of clean images at each timestep; null: the prior's"
    )
    seed_threshold: float | None = Field(None, gt=0, description="score above which a region begins; null: the prior's")
    region_threshold: float | None = Field(None, gt=0, description="score above which it goes on; null: the prior's")
    image_size: int | None = Field(None, ge=1, description="side of the images that all this holds for; null: any")

    @model_validator(mode="after")
    def _fits(self) -> RepaintSettings:
        if len(set(self.residual_steps)) < len(self.residual_steps) or min(self.residual_steps) < 0:
            raise ValueError("residual_steps must differ and be 0 or more")
        given = [self.levels is None, self.seed_threshold is None, self.region_threshold is None]
        if any(given) and not all(given):
            raise ValueError("levels, seed_threshold and region_threshold are given together or not at all")
        if self.levels is not None and (len(self.levels) != len(self.residual_steps) or min(self.levels) <= 0):
            raise ValueError("levels must be above 0, one for each of residual_steps")
        if self.region_share < self.seed_share:
            raise ValueError("region_share must be no less than seed_share")
        return self

    def grid(self, training_steps: int) -> tuple[int, int]:
        """As of every sampler; the timesteps of residuals must be below T, too."""
        if max(self.residual_steps) >= training_steps:
            raise ValueError(f"residual_steps must be below the prior's {training_steps}, got {self.residual_steps}")
        return super().grid(training_steps)

    def highest(self, training_steps: int) -> int:
        """As of every sampler, or that of a residual."""
        return max(super().highest(training_steps), *self.residual_steps)

    def calls(self, training_steps: int) -> int:
        """Those that look, and those that paint where something was found."""
        return len(self.residual_steps) + super().calls(training_steps)

    def least_calls(self, training_steps: int) -> int:  # noqa: ARG002
        """Those that look: where nothing is found, nothing is painted."""
        return len(self.residual_steps)

    def calibrated(self, calibration: Calibration) -> RepaintSettings:
        """With what is usual on clean images, as far as it is not given.

        Raises:
            ValueError: it was measured at other timesteps, or on too few images for the shares.
        """
        if self.levels is not None:
            return self
        if self.residual_steps != calibration.residual_steps:
            raise ValueError(
                f"residual_steps are {self.residual_steps}, the prior was calibrated at {calibration.residual_steps}; "
                "'zipbatch calibrate --residual-steps' does it at others"
            )
        return self.model_copy(
            update={
                "levels": calibration.levels,
                "seed_threshold": calibration.score(self.seed_share),
                "region_threshold": calibration.score(self.region_share),
                "image_size": calibration.image_size,
            }
        )


class Repaint(Purifier):
    """What sticks out of an image, for a prior that knows clean ones, is masked and painted anew from its surroundings;
    all else stays as it is. Where nothing sticks out, the image comes back unchanged.
    """

    settings_type: ClassVar[type[Settings]] = RepaintSettings
    source: ClassVar[str] = "of this project; inpainting as Wang et al. 2022, arXiv 2212.00490"
    needs_prior: ClassVar[bool] = True
    seeded: ClassVar[bool] = True
    masks: ClassVar[bool] = True

    def __init__(self, settings: RepaintSettings, resources: Resources) -> None:
        if settings.levels is None or settings.seed_threshold is None or settings.region_threshold is None:
            raise ValueError("repaint needs levels and thresholds: a calibrated prior has them")
        self._levels, self._steps = settings.levels, settings.residual_steps
        self._seed, self._region = settings.seed_threshold, settings.region_threshold
        self._painter, self._keep_masks = DiffusionSampler(settings, resources), resources.keep_masks

    @classmethod
    def images_per_row(cls, settings: RepaintSettings, height: int, width: int, *, prior_size: int | None) -> int:
        """Tiles a canvas; raises ``ValueError`` for images of another size than was calibrated for."""
        tiles = images_per_canvas(height, width, prior_size)
        if settings.image_size is not None and (height, width) != (settings.image_size, settings.image_size):
            raise ValueError(
                f"image of {width}x{height} pixels: the prior was calibrated on {settings.image_size} px images; "
                "calibrate it with clean images of this size ('zipbatch calibrate')"
            )
        return tiles

    def __call__(self, images: Tensor, keys: Sequence[str]) -> Tensor:
        """Purify uint8 images [N, 3, H, W] named by ``keys``; same shape and dtype, on the CPU."""
        sampler, tiling = self._painter, self._painter.tiling(images)

        def sample(y: Tensor, noise_at: NoiseAt) -> Tensor:
            residuals = sampler.residuals_of(y, noise_at, tiling, len(images), self._steps)
            for residual in residuals:  # what is not finite is above no threshold, and must not pass for clean
                check_finite(residual, keys)
            score = unexplained(residuals, self._levels)
            masks = regions(score, seed_threshold=self._seed, region_threshold=self._region)
            self._keep_masks(keys, masks[:, 0].cpu())
            mask = tiling.pack(masks)
            rows = mask.flatten(1).any(dim=1).nonzero()[:, 0]
            if not len(rows):
                return y
            guess = tiling.pack(filled(tiling.unpack(y, len(images)), masks))  # from the image's own surroundings
            painted = repainted(
                sampler.predict,
                y[rows],
                mask[rows],
                guess[rows],
                alpha_bar=sampler.alpha_bar,
                steps=sampler.steps,
                start_step=sampler.start_step,
                eta=sampler.eta,
                noise_at=lambda counter: noise_at(counter)[rows],
            )
            return y.index_copy(0, rows, painted)

        return sampler.paint(images, keys, sample)


def calibration_of(residuals: Sequence[Tensor], steps: Sequence[int], *, image_size: int) -> Calibration:
    """What is usual on clean images.

    Args:
        residuals: of all of them, float32 [N, 3, S, S], one a timestep.
        steps: these timesteps.
        image_size: S.

    Raises:
        ValueError: too few pixels to tell the tail of the scores, or a residual that is 0 or not finite.
    """
    levels = [float(one.abs().mean(dtype=torch.float64)) for one in residuals]
    if not all(np.isfinite(level) and level > 0 for level in levels):
        raise ValueError("the prior's residuals on these images are not finite, or 0 throughout")
    scores = np.sort(unexplained(residuals, levels).flatten().cpu().numpy())[::-1]
    shares = [share for share in Calibration.SHARES if share * len(scores) >= Calibration.LEAST_PIXELS]
    if len(shares) < 2:
        raise ValueError(f"{len(scores)} pixels are too few to calibrate with")
    return Calibration(
        image_size=image_size,
        residual_steps=tuple(steps),
        levels=tuple(round(level, 6) for level in levels),
        shares=tuple(shares),
        scores=tuple(round(float(scores[int(share * len(scores)) - 1]), 4) for share in shares),
    )
