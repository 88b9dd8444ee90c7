"""How close purified images are to the clean ones: PSNR and SSIM."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

_WINDOW = 11
_AT_ONCE, _STRIP = 1 << 20, 1 << 18
"""Pixels that are measured at once: of whole images, and of a strip of a larger one."""


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
    if image.shape != reference.shape:
        raise ValueError(f"shapes differ: {tuple(image.shape)} and {tuple(reference.shape)}")
    if min(image.shape[-2:]) < _WINDOW:
        raise ValueError(f"SSIM needs images of 11 px or more, got {tuple(image.shape[-2:])}")
    count = _AT_ONCE // (image.shape[-2] * image.shape[-1])  # SSIM takes a kilobyte a pixel
    measure = _by_strips if count == 0 else _whole
    total = Fidelity()
    for one, other in zip(torch.split(image, max(1, count)), torch.split(reference, max(1, count)), strict=True):
        mse, ssim = measure(one, other)
        psnr = 10 * torch.log10(255**2 / mse.clamp_min(255**2 * 1e-10))
        total += Fidelity(_sum(psnr), _sum(ssim), len(one))
    return total


def _whole(image: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    return _mse(image, reference), _ssim(image, reference)


def _mse(image: Tensor, reference: Tensor) -> Tensor:
    return (image.float() - reference.float()).double().square().mean(dim=(1, 2, 3))


def _ssim(image: Tensor, reference: Tensor, *, within: int = 0) -> Tensor:
    """Of each image, the mean over all places of the window, but for those less than ``within`` from an edge."""
    from torchmetrics.functional.image import structural_similarity_index_measure  # slow to import

    a, b = image.float(), reference.float()  # the window's convolution is many times slower in float64
    found = structural_similarity_index_measure(a, b, data_range=255.0, reduction="none", return_full_image=within > 0)
    if isinstance(found, Tensor):
        return found
    full: Tensor = found[1]
    return full[..., within:-within, within:-within].double().mean(dim=(1, 2, 3))


def _by_strips(image: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Squared error and SSIM of each large image, strip by strip: they take many times the image in memory."""
    height, width = image.shape[-2:]
    step, border = max(1, _STRIP // width), _WINDOW // 2
    rows, columns = (_reflected(side, border) for side in (height, width))
    mse, ssim = torch.zeros(len(image), dtype=torch.float64), torch.zeros(len(image), dtype=torch.float64)
    for number, start in itertools.product(range(len(image)), range(0, height, step)):
        pair = [images[number : number + 1] for images in (image, reference)]
        share = (min(start + step, height) - start) / height
        mse[number] += _mse(*(one[..., start : start + step, :] for one in pair)).item() * share
        around = rows[start : start + step + 2 * border]
        ssim[number] += _ssim(*(one[..., around, :][..., columns] for one in pair), within=border).item() * share
    return mse, ssim


def _reflected(side: int, border: int) -> Tensor:
    """Indices of a side and the borders that the window sees, mirrored without the edge: int64 [side + 2 border]."""
    place = torch.arange(-border, side + border).abs()
    return torch.minimum(place, 2 * (side - 1) - place)


def _sum(values: Tensor) -> Fraction:
    return Fraction(math.fsum(values.flatten().tolist()))
