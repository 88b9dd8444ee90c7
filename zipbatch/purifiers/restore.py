"""Restore: one call of a network that was taught to undo damage, as triggers do it and as compression and noise do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from zipbatch.config import Settings
from zipbatch.diffusion import NoiseAt, diffuse, restored
from zipbatch.purifiers.base import Purifier, Resources
from zipbatch.purifiers.diffusion_sampler import DiffusionSampler, PriorSettings, SamplerSettings, images_per_canvas


class RestoreSettings(PriorSettings):
    """Settings of ``restore``."""

    LEARNED: ClassVar[tuple[str, ...]] = ("weights",)

    noise_step: int = Field(30, ge=0, description="timestep whose noise is added before; more hides more")
    weights: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="SHA-256 of the restorer's weights; null: the prior's restorer"
    )

    def taught(self, weights: str, max_step: int) -> RestoreSettings:
        """With the digest of the prior's restorer, which was taught at the timesteps below ``max_step``.

        Raises:
            ValueError: other weights are asked for, or a timestep that it does not know.
        """
        if self.weights not in {None, weights}:
            raise ValueError(f"its restorer has weights {weights[:12]}…, {str(self.weights)[:12]}… are asked for")
        if self.noise_step >= max_step:
            raise ValueError(f"its restorer was taught at timesteps below {max_step}; noise_step is {self.noise_step}")
        return self.model_copy(update={"weights": weights})

    def calls(self, training_steps: int) -> int:  # noqa: ARG002 (as of every purifier with a prior)
        """Always one."""
        return 1


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
            alpha_bar = y.new_tensor([sampler.alpha_bar[t]])
            return restored(sampler.predict(x_t, t), x_t, alpha_bar=alpha_bar)

        return sampler.paint(images, keys, sample)
