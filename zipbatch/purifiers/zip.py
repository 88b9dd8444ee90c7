"""ZIP: blur the trigger away, let a guided diffusion model paint the picture back (NeurIPS 2023, arXiv 2303.12175)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from zipbatch.config import Settings, Transform
from zipbatch.diffusion import (
    Tiling,
    guided_sample,
    mean_projection,
    noise_streams,
    parse_projector,
    standard_normal,
    timesteps,
)
from zipbatch.pixels import from_u8, to_u8
from zipbatch.purifiers.base import Precision, Resources, check_finite


class ZipSettings(Settings):
    """Settings of ``zip``; the defaults are the published ones for CIFAR-10."""

    transforms: tuple[Transform, ...] = Field(("blur:2", "gray"), min_length=1)
    guidance_exponent: float = Field(1.0, gt=0)
    steps: int = Field(20, ge=1)
    eta: float = Field(1.0, ge=0, le=1)
    start_step: int | None = Field(None, ge=1, description="None: T, pure noise")


class Zip:
    """Guided sampling with the prior. Images smaller than the prior's are tiled onto its canvas, in key order."""

    settings_type: ClassVar[type[Settings]] = ZipSettings
    needs_prior: ClassVar[bool] = True
    version: ClassVar[int] = 1

    def __init__(self, settings: ZipSettings, resources: Resources) -> None:
        if resources.prior is None:
            raise ValueError("zip needs a prior")
        self._settings, self._device = settings, resources.device
        self._seed, self._precision = resources.seed, resources.precision
        self._layout = _fastest_layout(self._device, self._precision)
        self._prior = resources.prior.to(memory_format=self._layout)
        self._projectors = [parse_projector(text) for text in settings.transforms]
        training_steps = len(self._prior.alpha_bar)
        self._start_step = training_steps if settings.start_step is None else settings.start_step
        timesteps(training_steps, settings.steps, self._start_step)  # says what is wrong, before work

    @classmethod
    def row_of(cls, settings: ZipSettings, height: int, width: int, *, prior_size: int | None) -> int:
        """Tiles a canvas; raises ``ValueError`` when the size neither equals nor tiles the prior's, or a block of a
        projector does not divide it (a block must not reach into a neighbour)."""
        assert prior_size is not None  # needs_prior
        slots = Tiling.fit(height, width, prior_size).slots
        for text in settings.transforms:
            parse_projector(text).check(height, width)
        return slots

    @torch.inference_mode()
    def __call__(self, images: Tensor, keys: Sequence[str]) -> Tensor:
        """Purify uint8 images [N, 3, H, W] named by ``keys``; same shape and dtype, on the CPU."""
        settings = self._settings
        height, width = images.shape[-2:]
        tiling = Tiling.fit(height, width, self._prior.image_size)
        streams = noise_streams(self._seed, keys, device=self._device)
        y = tiling.pack(from_u8(images.to(self._device), "model"))

        def noise_at(counter: int) -> Tensor:
            return tiling.pack(standard_normal(streams, step=counter, shape=images.shape[1:]))

        x = guided_sample(
            self._predict,
            y,
            alpha_bar=self._prior.alpha_bar,
            project=mean_projection(self._projectors),
            guidance_exponent=settings.guidance_exponent,
            steps=settings.steps,
            start_step=self._start_step,
            eta=settings.eta,
            noise_at=noise_at,
        )
        purified = tiling.unpack(x, len(images))
        check_finite(purified, keys)
        return to_u8(purified, "model").cpu()

    def _predict(self, x_t: Tensor, t: int) -> Tensor:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._precision == "bfloat16"):
            eps: Tensor = self._prior(x_t.contiguous(memory_format=self._layout), t)
        return eps


def _fastest_layout(device: torch.device, precision: Precision) -> torch.memory_format:
    """Channels last, except for bfloat16 on CPUs, where planes are a quarter faster."""
    planes = device.type == "cpu" and precision == "bfloat16"
    return torch.contiguous_format if planes else torch.channels_last
