"""Projectors: what of an image survives a linear degradation (ZIP, arXiv 2303.12175, section 4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from zipbatch.config import MAX_SIGMA, parse_transform
from zipbatch.diffusion.noise import derived_seed, noise_streams, uniform_integers

Apply = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Projector:
    """A linear map of images [B, C, H, W] to themselves; P = A⁺A, idempotent, but for means of shifts and Gaussians.

    Attributes:
        name: as users write it, ``blur:2`` or ``gray``.
        block: side of the pixel blocks it works on; H and W must be multiples of it.
        apply: the map.
        least: the least H and W, where it reaches beyond an edge, which it sees mirrored.
        whole: whether it may be given a canvas of several images, as it reaches into no neighbour.
        keyed: whether it is another one for each image: ``with_keys`` says which.
    """

    name: str
    block: int
    apply: Apply
    least: int = 1
    whole: bool = True
    keyed: Callable[[Tensor], Apply] | None = None

    def check(self, height: int, width: int) -> None:
        """Raises ``ValueError`` when H or W is no multiple of the block, or too small."""
        if height % self.block or width % self.block:
            raise ValueError(f"{self.name}: {self.block} does not divide the image's {height} x {width} pixels")
        if min(height, width) < self.least:
            raise ValueError(f"{self.name}: images of {height} x {width} pixels are too small, {self.least} are needed")

    def with_keys(self, seed: int, keys: Sequence[str]) -> Projector:
        """The map for images of these keys, in their order."""
        if self.keyed is None:
            return self
        return Projector(
            name=self.name,
            block=self.block,
            apply=self.keyed(noise_streams(derived_seed(seed, "places"), keys)),
            least=self.least,
            whole=False,
        )


def blur(factor: int) -> Projector:
    """Average-pool by ``factor``, then repeat each mean over its block. ``blur(1)`` is the identity."""
    if factor < 1:
        raise ValueError(f"blur needs a factor of 1 or more, got {factor}")
    return Projector(name=f"blur:{factor}", block=factor, apply=lambda x: _pooled(x, factor))


def _pooled(x: Tensor, factor: int) -> Tensor:
    if factor == 1:
        return x
    return F.interpolate(F.avg_pool2d(x, factor), scale_factor=factor, mode="nearest")


def blur_of_all_shifts(factor: int) -> Projector:
    """The mean of ``blur`` over all places of its grid, which no trigger can be flush with: a triangular kernel."""
    reach = factor - 1
    kernel = torch.tensor([factor - abs(i) for i in range(-reach, reach + 1)], dtype=torch.float64) / factor**2
    return Projector(
        name=f"blur:{factor}@mean", block=1, apply=lambda x: _filtered(x, kernel), least=factor, whole=factor == 1
    )


def blur_by_key(factor: int) -> Projector:
    """``blur`` with its grid at one of its places, drawn for each image by its key."""

    def keyed(streams: Tensor) -> Apply:
        places = uniform_integers(streams, bound=factor, count=2)
        return lambda x: _shifted(x, factor, places)

    fixed = blur(factor).apply  # without keys: where the grid usually is
    return Projector(name=f"blur:{factor}@key", block=1, apply=fixed, least=factor, whole=False, keyed=keyed)


def _shifted(x: Tensor, factor: int, places: Tensor) -> Tensor:
    """``blur`` of images [N, C, H, W], the grid of each beginning ``places`` [N, 2] before its first row and column."""
    height, width = x.shape[-2:]
    made = torch.empty_like(x)
    for top, left in sorted({tuple(place) for place in places.tolist()}):
        rows = ((places[:, 0] == top) & (places[:, 1] == left)).nonzero()[:, 0].to(x.device, non_blocking=True)
        bottom, right = -(height + top) % factor, -(width + left) % factor
        pooled = _pooled(_mirrored(x[rows], (left, right, top, bottom)), factor)
        made[rows] = pooled[..., top : top + height, left : left + width]
    return made


def gaussian(sigma: float) -> Projector:
    """A Gaussian of ``sigma`` pixels, cut at three of them."""
    if not 0 < sigma <= MAX_SIGMA:
        raise ValueError(f"gauss needs a sigma above 0 and up to {MAX_SIGMA} pixels, got {sigma:g}")
    reach = max(1, math.ceil(3 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64) / sigma) ** 2)
    return Projector(
        name=f"gauss:{sigma:g}",
        block=1,
        apply=lambda x: _filtered(x, kernel / kernel.sum()),
        least=reach + 1,
        whole=False,
    )


def low_frequencies(factor: int) -> Projector:
    """The lowest 1 of ``factor`` frequencies of each axis, by the cosine transform of the whole image (DCT-II)."""

    def apply(x: Tensor) -> Tensor:
        down, across = (_beside(x, _lowest(side, max(1, side // factor))) for side in x.shape[-2:])
        return down @ x @ across

    return Projector(name=f"dct:{factor}", block=1, apply=apply, least=factor, whole=factor == 1)


def _lowest(side: int, count: int) -> Tensor:
    """The orthogonal projection [side, side] onto the first ``count`` vectors of the cosine transform."""
    frequency, place = torch.arange(count, dtype=torch.float64)[:, None], torch.arange(side, dtype=torch.float64)
    basis = torch.cos(math.pi * frequency * (2 * place + 1) / (2 * side)) * math.sqrt(2 / side)
    basis[0] /= math.sqrt(2)
    return basis.T @ basis


def _filtered(x: Tensor, kernel: Tensor) -> Tensor:
    """Images [N, C, H, W] under an odd kernel [K] along both axes, edges mirrored without the edge pixel."""
    reach, channels = len(kernel) // 2, x.shape[1]
    if reach == 0:
        return x
    weights = _beside(x, kernel).expand(channels, 1, -1)
    down = F.conv2d(_mirrored(x, (0, 0, reach, reach)), weights[..., None], groups=channels)
    return F.conv2d(_mirrored(down, (reach, reach, 0, 0)), weights[:, :, None], groups=channels)


def _beside(x: Tensor, made: Tensor) -> Tensor:
    """What was worked out on the CPU, where the images are and of their type; the host waits for no GPU meanwhile."""
    return made.to(x.device, x.dtype, non_blocking=True)


def _mirrored(x: Tensor, border: tuple[int, int, int, int]) -> Tensor:
    """With borders of so many pixels left, right, above and below."""
    return F.pad(x, border, mode="reflect") if any(border) else x


def gray() -> Projector:
    """The mean of the channels, in every channel."""
    return Projector(name="gray", block=1, apply=lambda x: x.mean(dim=1, keepdim=True).expand_as(x))


def parse_projector(text: str) -> Projector:
    """The map of a transform as users write it; see ``config.parse_transform``.

    Raises:
        ValueError: it is none.
    """
    transform = parse_transform(text)
    match transform.kind:
        case "gray":
            return gray()
        case "gauss":
            return gaussian(transform.sigma)
        case "dct":
            return low_frequencies(transform.factor)
        case "blur":
            make = {"fixed": blur, "mean": blur_of_all_shifts, "key": blur_by_key}[transform.grid]
            return make(transform.factor)


def mean_projection(projectors: Sequence[Projector]) -> Apply:
    """``x -> mean_i P_i(x)``.

    Raises:
        ValueError: no projector.
    """
    if not projectors:
        raise ValueError("at least one projector is needed")

    def apply(x: Tensor) -> Tensor:
        total = projectors[0].apply(x)
        for projector in projectors[1:]:
            total = total + projector.apply(x)
        return total / len(projectors)

    return apply
