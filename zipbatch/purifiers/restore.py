"""Restore: one call of a network that was taught to undo damage, as triggers do it and as compression and noise do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from torch import Tensor

from zipbatch.config import Settings
from zipbatch.diffusion import NoiseAt, diffuse, restored
from zipbatch.purifiers.base import Purifier, Resources
from zipbatch.purifiers.diffusion_sampler import DiffusionSampler, images_per_canvas
from zipbatch.purifiers.settings import RestoreSettings, SamplerSettings


class Restore(Purifier):
    """The image under a little noise, and what the prior's restorer makes of it in one call."""

    settings_type: ClassVar[type[Settings]] = RestoreSettings
    source: ClassVar[str] = "of this project; one denoising call as Ho et al. 2020, arXiv 2006.11239, eq. 15"
    needs_prior: ClassVar[bool] = True
    seeded: ClassVar[bool] = True

    def __init__(self, settings: RestoreSettings, resources: Resources) -> None:
        if resources.restorer is None:
            raise ValueError("restore needs a prior with a restorer")
        self._step = settings.noise_step
        self._painter = DiffusionSampler(
            SamplerSettings.model_validate({"steps": 1}), replace(resources, prior=resources.restorer)
        )

    @classmethod
    def images_per_row(cls, settings: RestoreSettings, height: int, width: int, *, prior_size: int | None) -> int:  # noqa: ARG003
        """Tiles a canvas."""
        return images_per_canvas(height, width, prior_size)

    def __call__(self, images: Tensor, keys: Sequence[str]) -> Tensor:
        """Purify uint8 images [N, 3, H, W] named by ``keys``; same shape and dtype, on the CPU."""
        sampler, t = self._painter, self._step

        def sample(y: Tensor, noise_at: NoiseAt) -> Tensor:
            x_t = diffuse(y, noise_at(t), t=t, alpha_bar=sampler.alpha_bar)
            alpha_bar = y.new_full((1,), float(sampler.alpha_bar[t]))
            return restored(sampler.predict(x_t, t), x_t, alpha_bar=alpha_bar)

        return sampler.paint(images, keys, sample)
