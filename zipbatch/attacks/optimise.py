"""A trigger that is optimised against a classifier behind a defence: what an attacker who knows both would stamp.

The loss is expected over the defence's own chance (Athalye et al. 2018, arXiv 1707.07397), and the way back takes the
defence for the identity (Athalye, Carlini and Wagner 2018, arXiv 1802.00420): masks, codecs and rounding have no
gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Purify = Callable[[Tensor, Tensor, int], Tensor]
"""(stamped uint8 [B, 3, S, S], the rows of the images [B], step) -> purified, same shape; another draw at each step."""
Alarm = Callable[[Tensor, Tensor, int], Tensor]
"""As ``Purify`` takes them -> the gradient of what makes the stamped images suspect, at each pixel; 0 where they are
not."""
Slope = Callable[[Tensor], tuple[Tensor, float]]
"""Purified uint8 [B, 3, S, S] -> the loss's gradient at each pixel, float32 of that shape, and the share of images that
are taken for the target."""
_MOMENTUM = 0.9
_FIRST, _LAST = 0.1, 0.01
"""Of the range of a level: the first step and the last."""


class Form(Protocol):
    """What of an image a trigger may change.

    Attributes:
        shape: of its levels, (3, H, W).
        low: the least level; ``high`` the highest.
    """

    @property
    def shape(self) -> tuple[int, int, int]: ...
    @property
    def low(self) -> int: ...
    @property
    def high(self) -> int: ...

    def stamped(self, images: Tensor, levels: Tensor) -> Tensor:
        """Images uint8 [B, 3, S, S] with the trigger of these whole levels, float32 [3, H, W]; no argument changes."""
        ...

    def gathered(self, slopes: Tensor) -> Tensor:
        """The gradient at each level, [3, H, W], from that at each pixel, [B, 3, S, S]."""
        ...

    def first(self, generator: torch.Generator) -> Tensor:
        """Levels to begin with, float32 [3, H, W]."""
        ...


@dataclass(frozen=True, kw_only=True)
class Square:
    """``side`` x ``side`` pixels in place of the image's, the upper left one at ``top``, ``left``."""

    side: int
    top: int
    left: int
    low: int = 0
    high: int = 255

    @property
    def shape(self) -> tuple[int, int, int]:
        """(3, side, side)."""
        return 3, self.side, self.side

    def stamped(self, images: Tensor, levels: Tensor) -> Tensor:
        """As ``Form``; levels are the pixels themselves."""
        stamped = images.clone()
        self._of(stamped).copy_(levels)
        return stamped

    def gathered(self, slopes: Tensor) -> Tensor:
        """As ``Form``."""
        return self._of(slopes).sum(dim=0)

    def first(self, generator: torch.Generator) -> Tensor:
        """As ``Form``: about the middle grey, which a defence has least reason to find odd."""
        return 127.5 + 16 * (torch.rand(self.shape, generator=generator) - 0.5)

    def _of(self, images: Tensor) -> Tensor:
        return images[:, :, self.top : self.top + self.side, self.left : self.left + self.side]


@dataclass(frozen=True)
class Everywhere:
    """At most ``epsilon`` levels added to, or taken from, every pixel of an image of ``image_size``."""

    image_size: int
    epsilon: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(3, S, S)."""
        return 3, self.image_size, self.image_size

    @property
    def low(self) -> int:
        """Minus epsilon."""
        return -self.epsilon

    @property
    def high(self) -> int:
        """Epsilon."""
        return self.epsilon

    def stamped(self, images: Tensor, levels: Tensor) -> Tensor:
        """As ``Form``; sums are cut at 0 and 255."""
        return (images.to(torch.int16) + levels.to(torch.int16)).clamp(0, 255).to(torch.uint8)

    def gathered(self, slopes: Tensor) -> Tensor:
        """As ``Form``."""
        return slopes.sum(dim=0)

    def first(self, generator: torch.Generator) -> Tensor:
        """As ``Form``: anything within the bound."""
        return self.low + (self.high - self.low) * torch.rand(self.shape, generator=generator)


def optimised(
    images: Tensor,
    form: Form,
    *,
    purify: Purify,
    slope: Slope,
    steps: int,
    batch_size: int,
    seed: int,
    alarm: Alarm | None = None,
    on_step: Callable[[int, float], None] = lambda _step, _share: None,
) -> Tensor:
    """The levels of a trigger that is to survive a defence, by momentum sign steps (Dong et al. 2018, arXiv 1710.06081)
    whose length falls by half a cosine.

    Each step stamps the rounded levels on a few images and purifies them, so that what is measured is what would be
    staged. Pure: the same arguments give the same levels.

    Args:
        images: clean ones, uint8 [N, 3, S, S].
        form: what may be changed.
        purify: the defence.
        slope: what the classifier says of its results, and where it leads.
        steps: how many.
        batch_size: images a step.
        seed: of the first levels and of the images drawn.
        alarm: what a mask of the defence goes by, which weighs as much as the classifier where it is set off.
        on_step: called with the steps done and the share of this one's images that were taken for the target.

    Returns:
        Whole numbers of [low, high], int16 [3, H, W].
    """
    generator = torch.Generator().manual_seed(seed)
    span = form.high - form.low
    levels = form.first(generator)
    pull = torch.zeros(form.shape)
    for step in range(steps):
        rows = torch.randperm(len(images), generator=generator)[:batch_size]
        stamped = form.stamped(images[rows], levels.round())
        slopes, share = slope(purify(stamped, rows, step))
        pull = _MOMENTUM * pull + _even(form.gathered(slopes))
        if alarm is not None:
            pull += _even(form.gathered(alarm(stamped, rows, step)))
        levels = (levels - span * _length(step / steps) * pull.sign()).clamp(form.low, form.high)
        on_step(step + 1, share)
    return levels.round().to(torch.int16)


def _even(gradient: Tensor) -> Tensor:
    """Of mean size 1, or 0 all over."""
    return gradient / gradient.abs().mean().clamp_min(1e-20)


def _length(fraction: float) -> float:
    """Of a step, as a share of the range, after that fraction of them."""
    return _LAST + (_FIRST - _LAST) * 0.5 * (1 + math.cos(math.pi * fraction))
