"""How close purified images are to the clean ones: PSNR and SSIM."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor


@dataclass(frozen=True)
class Fidelity:
    """Sums over images, so that shards add up: exact ones, the same to the last digit in whatever order shards come.

    ``psnr_db`` of an image equal to its reference is capped at 100.
    """

    psnr_sum_db: Fraction = Fraction()
    ssim_sum: Fraction = Fraction()
    n: int = 0

    def __add__(self, other: Fidelity) -> Fidelity:
        return Fidelity(self.psnr_sum_db + other.psnr_sum_db, self.ssim_sum + other.ssim_sum, self.n + other.n)

    @property
    def psnr_db(self) -> float | None:
        """Mean over images, dB."""
        return float(self.psnr_sum_db / self.n) if self.n else None

    @property
    def ssim(self) -> float | None:
        """Mean over images."""
        return float(self.ssim_sum / self.n) if self.n else None


def fidelity(image: Tensor, reference: Tensor) -> Fidelity:
    """Per-image PSNR (peak 255) and SSIM (Wang et al. 2004, 11 px Gaussian window) summed over uint8 [B, 3, H, W].

    Raises:
        ValueError: shapes differ or an image is smaller than the SSIM window.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure  # slow to import

    if image.shape != reference.shape:
        raise ValueError(f"shapes differ: {tuple(image.shape)} and {tuple(reference.shape)}")
    if min(image.shape[-2:]) < 11:
        raise ValueError(f"SSIM needs images of 11 px or more, got {tuple(image.shape[-2:])}")
    a, b = image.float(), reference.float()  # the window's convolution is many times slower in float64
    mse = (a - b).double().square().mean(dim=(1, 2, 3))
    psnr = 10 * torch.log10(255**2 / mse.clamp_min(255**2 * 1e-10))
    ssim = structural_similarity_index_measure(a, b, data_range=255.0, reduction="none")
    assert isinstance(ssim, Tensor)
    return Fidelity(_sum(psnr), _sum(ssim), len(image))


def _sum(values: Tensor) -> Fraction:
    return Fraction(math.fsum(values.flatten().tolist()))
