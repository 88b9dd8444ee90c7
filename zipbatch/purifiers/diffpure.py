"""DiffPure: drown the trigger in noise, then denoise (Nie et al. 2022, arXiv 2205.07460), with a DDPM prior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from zipbatch.config import Settings
from zipbatch.diffusion import NoiseAt, clipped, denoise, diffuse, timesteps
from zipbatch.purifiers.base import Purifier, Resources
from zipbatch.purifiers.diffusion_sampler import DiffusionSampler, SamplerSettings, images_per_canvas


class DiffPureSettings(SamplerSettings):
    """Settings of ``diffpure``; the defaults are the published ones for CIFAR-10 (ImageNet: start step 150)."""

    steps: int | None = Field(None, ge=1, description="sampling steps over the whole schedule; null: all T")
    start_step: int = Field(100, ge=1, description="t, how many training steps of noise the image gets")


class DiffPure(Purifier):
    """The suspect with t steps of noise on it, denoised step by step; nothing holds the result to the suspect.

    The clean estimate is clipped to [-1, 1] at every step, as in the published DDPM sampler. Its learned variance is
    not used: the posterior's own (eta 1) takes its place.
    """

    settings_type: ClassVar[type[Settings]] = DiffPureSettings
    source: ClassVar[str] = "Nie et al. 2022, arXiv 2205.07460, DDPM variant; default t as in NVlabs/DiffPure 985703f"
    needs_prior: ClassVar[bool] = True
    seeded: ClassVar[bool] = True

    def __init__(self, settings: DiffPureSettings, resources: Resources) -> None:
        self._painter = DiffusionSampler(settings, resources)
        alpha_bar = self._painter.alpha_bar
        self._schedule = timesteps(len(alpha_bar), self._painter.steps, self._painter.start_step)
        self._predict = clipped(self._painter.predict, alpha_bar)

    @classmethod
    def images_per_row(cls, settings: DiffPureSettings, height: int, width: int, *, prior_size: int | None) -> int:  # noqa: ARG003
        """Tiles a canvas."""
        return images_per_canvas(height, width, prior_size)

    def __call__(self, images: Tensor, keys: Sequence[str]) -> Tensor:
        """Purify uint8 images [N, 3, H, W] named by ``keys``; same shape and dtype, on the CPU."""
        return self._painter.paint(images, keys, self._sample)

    def _sample(self, y: Tensor, noise_at: NoiseAt) -> Tensor:
        alpha_bar = self._painter.alpha_bar
        return denoise(
            self._predict,
            diffuse(y, noise_at(len(alpha_bar)), t=self._schedule[0][0], alpha_bar=alpha_bar),
            schedule=self._schedule,
            alpha_bar=alpha_bar,
            guide_at=lambda _, x_0: x_0,
            eta=self._painter.eta,
            noise_at=noise_at,
        )
