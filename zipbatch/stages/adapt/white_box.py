"""What an attacker can ask of a defence and of a classifier of their own: answers, gradients, what a mask goes by."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from zipbatch.attacks.optimise import Slope
from zipbatch.checkpoints import load_prior
from zipbatch.diffusion import derived_seed, unexplained
from zipbatch.errors import DataError, UsageError
from zipbatch.pixels import from_u8
from zipbatch.purifiers import DiffusionSampler, Purifier, RepaintSettings, Resources
from zipbatch.purifiers.base import NonFiniteError
from zipbatch.stages.purify.build import build_purifier
from zipbatch.stages.purify.spec import PurifierSpec
from zipbatch.victims import Victim


def slope_of(victim: Victim, target: int, device: torch.device) -> Slope:
    """The gradient of a classifier's cross entropy for the target, at each pixel of uint8 images [B, 3, S, S]."""

    def slope(shown: Tensor) -> tuple[Tensor, float]:
        unit = from_u8(shown.to(device), "unit").requires_grad_()
        scores = victim(unit)
        wanted = torch.full((len(unit),), target, device=device)
        (gradient,) = torch.autograd.grad(F.cross_entropy(scores, wanted), unit)
        return gradient.cpu(), float((scores.argmax(dim=1) == wanted).float().mean())

    return slope


@torch.inference_mode()
def answers(victim: Victim, shown: Tensor, device: torch.device) -> Tensor:
    """The class of each of uint8 images [N, 3, S, S], int64 [N], on the CPU."""
    return torch.cat([victim(from_u8(rows.to(device), "unit")).argmax(dim=1).cpu() for rows in torch.split(shown, 128)])


class Defence:
    """A purifier as an attacker meets it. Each occasion has noise of its own if it names its images by other keys.

    Args:
        spec: which; None for none at all.
        device: where it computes.
        place: of the images, for messages.
    """

    def __init__(self, spec: PurifierSpec | None, device: torch.device, place: str) -> None:
        self._purifier: Purifier | None = None if spec is None else build_purifier(spec, device)
        self._place = place

    def __call__(self, shown: Tensor, keys: Sequence[str]) -> Tensor:
        """Purified uint8 images [B, 3, S, S]; raises ``DataError`` where they are not finite."""
        if self._purifier is None:
            return shown
        try:
            return self._purifier(shown, keys)
        except NonFiniteError as error:
            raise DataError(self._place, str(error), key=error.key.rpartition("\n")[2]) from error


class MaskAlarm:
    """What the ``repaint`` of a defence masks by: that has a gradient, the mask itself has none.

    Args:
        spec: a purifier with a step of ``repaint``.
        device: where it computes.
        seed: of its own noise.

    Raises:
        UsageError: it has none.
    """

    def __init__(self, spec: PurifierSpec | None, device: torch.device, *, seed: int) -> None:
        steps = () if spec is None else spec.steps
        settings = next((step.settings for step in steps if isinstance(step.settings, RepaintSettings)), None)
        if spec is None or spec.prior is None or settings is None:
            raise UsageError("‹evade› is for a defence that masks what it repaints; that of ‹through› does not")
        if settings.levels is None or settings.seed_threshold is None or settings.region_threshold is None:
            raise ValueError("repaint needs levels and thresholds: a calibrated prior has them")
        self._levels, self._steps = settings.levels, settings.residual_steps
        self._threshold = (settings.seed_threshold + settings.region_threshold) / 2
        prior = load_prior(spec.prior).to(device).requires_grad_(False)
        resources = Resources(device=device, prior=prior, seed=derived_seed(seed, "alarm"), precision=spec.precision)
        self._painter, self._device = DiffusionSampler(settings, resources), device

    def excess(self, pixels: Tensor, keys: Sequence[str]) -> Tensor:
        """By how much each pixel's score is above what comes near to beginning a region, else 0: float32 [B, 1, S, S].

        The threshold is half way between that of a region's beginning and that of its going on, for noise differs.

        Args:
            pixels: images, float32 [B, 3, S, S], model units, on the device.
            keys: of their noise.
        """
        tiling, noise_at = self._painter.placed(pixels, keys)
        residuals = self._painter.residuals_of(tiling.pack(pixels), noise_at, tiling, len(pixels), self._steps)
        return (unexplained(residuals, self._levels) - self._threshold).clamp_min(0)

    def slope(self, shown: Tensor, keys: Sequence[str]) -> Tensor:
        """The gradient of all the excess at each pixel of uint8 images [B, 3, S, S]: float32 of that shape, CPU."""
        pixels = from_u8(shown.to(self._device), "model").requires_grad_()
        (gradient,) = torch.autograd.grad(self.excess(pixels, keys).sum(), pixels)
        return gradient.cpu()
