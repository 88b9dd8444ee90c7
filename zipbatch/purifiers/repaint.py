"""Repaint: find what the prior cannot explain, and let it paint only that anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from zipbatch.config import Calibration, Settings
from zipbatch.diffusion import NoiseAt, filled, regions, repainted, unexplained
from zipbatch.purifiers.base import Purifier, Resources, check_finite
from zipbatch.purifiers.diffusion_sampler import DiffusionSampler, images_per_canvas
from zipbatch.purifiers.settings import RepaintSettings


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
        sampler, tiling, found = self._painter, self._painter.tiling(images), list[Tensor]()

        def sample(y: Tensor, noise_at: NoiseAt) -> Tensor:
            residuals = sampler.residuals_of(y, noise_at, tiling, len(images), self._steps)
            score = unexplained(residuals, self._levels)
            masks = regions(score, seed_threshold=self._seed, region_threshold=self._region)
            on_host = masks.cpu()
            check_finite(torch.cat(residuals, dim=1), keys)  # it is above no threshold, and must not pass for clean
            found.append(on_host[:, 0])
            touched = tiling.pack(on_host).flatten(1).any(dim=1).nonzero()[:, 0]
            if not len(touched):
                return y
            mask, rows = tiling.pack(masks), touched.to(y.device, non_blocking=True)
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

        purified = sampler.paint(images, keys, sample)
        self._keep_masks(keys, *found)
        return purified


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
