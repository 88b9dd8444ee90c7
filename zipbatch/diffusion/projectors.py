"""Projectors P = A⁺A: what of an image survives a linear degradation A (ZIP, arXiv 2303.12175, section 4)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

Apply = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Projector:
    """A linear, idempotent map of images [B, C, H, W] to themselves.

    Attributes:
        name: as users write it, ``blur:2`` or ``gray``.
        block: side of the pixel blocks it works on; H and W must be multiples of it.
        apply: the map.
    """

    name: str
    block: int
    apply: Apply

    def check(self, height: int, width: int) -> None:
        """Raises ``ValueError`` when H or W is no multiple of the block."""
        if height % self.block or width % self.block:
            raise ValueError(f"{self.name}: {self.block} does not divide the image's {height} x {width} pixels")


def blur(factor: int) -> Projector:
    """Average-pool by ``factor``, then repeat each mean over its block. ``blur(1)`` is the identity."""
    if factor < 1:
        raise ValueError(f"blur needs a factor of 1 or more, got {factor}")

    def apply(x: Tensor) -> Tensor:
        if factor == 1:
            return x
        return F.interpolate(F.avg_pool2d(x, factor), scale_factor=factor, mode="nearest")

    return Projector(f"blur:{factor}", factor, apply)


def gray() -> Projector:
    """The mean of the channels, in every channel."""
    return Projector("gray", 1, lambda x: x.mean(dim=1, keepdim=True).expand_as(x))


def parse_projector(text: str) -> Projector:
    """``gray`` or ``blur:N``.

    Raises:
        ValueError: anything else.
    """
    if text == "gray":
        return gray()
    match = re.fullmatch(r"blur:([1-9][0-9]*)", text)
    if not match:
        raise ValueError(f"unknown transform {text!r}; it is 'gray' or 'blur:N'")
    return blur(int(match.group(1)))


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
