"""Images damaged on purpose as triggers damage them: a patch, a picture mixed in, a warp. All of it is drawn anew for
each image, so that a network that learns to undo it learns no trigger by heart.

Shapes: images float32 [B, 3, S, S], model units (clean pixels span [-1, 1]); results are of the same shape.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_SHARES = (0.45, 0.85)
"""Of what is damaged: patches below the first, pictures mixed in below the second, warps above."""
_GRIDS = (2, 3, 4, 6, 8, 16)
"""Values a side of a drawn picture, which are interpolated; and the image's own side, which makes it noise."""
_OPACITY = (0.05, 0.3)
_WARP_GRIDS, _WARP = (3, 9), (0.15, 0.8)
"""Control points a side; mean displacement in units of WaNet's strength (Nguyen & Tran 2021, arXiv 2102.10369)."""


def damaged(images: Tensor, *, plain: float, generator: torch.Generator) -> Tensor:
    """Each image with one damage, the share ``plain`` of them with none."""
    kind = (torch.rand(len(images), generator=generator) - plain) / max(1 - plain, 1e-9)
    result, others = images.clone(), images.roll(1, dims=0)
    for low, high, damage in (
        (0.0, _SHARES[0], patched),
        (_SHARES[0], _SHARES[1], mixed),
        (_SHARES[1], 2.0, warped),
    ):
        rows = ((kind >= low) & (kind < high)).nonzero()[:, 0]
        if len(rows):
            result[rows] = damage(images[rows], others[rows], generator)
    return result


def patched(images: Tensor, _others: Tensor, generator: torch.Generator) -> Tensor:
    """A rectangle of 2 pixels to a quarter of the side, a third of them in corners: of one colour, of two, or of noise;
    some with holes, some translucent.
    """
    count, side = len(images), images.shape[-1]
    sizes = torch.randint(2, max(3, side // 4) + 1, (2, count), generator=generator)
    starts = (torch.rand(2, count, generator=generator) * (side - sizes + 1)).long()
    ends = (torch.rand(2, count, generator=generator) < 0.5) * (side - sizes)
    starts = torch.where(torch.rand(count, generator=generator) < 1 / 3, ends, starts)
    axis = torch.arange(side)
    down, across = (axis >= starts[..., None]) & (axis < (starts + sizes)[..., None])
    inside = (down[:, None, :, None] & across[:, None, None, :]).float()
    holes = torch.rand(count, 1, side, side, generator=generator) < 0.6
    whole = torch.rand(count, 1, 1, 1, generator=generator) < 0.6
    opacity = torch.where(_some(count, 0.7, generator), 1.0, _between(0.3, 1, count, generator))
    cover: Tensor = inside * opacity * (whole | holes)
    return (1 - cover) * images + cover * _patterns(count, side, generator)


def _patterns(count: int, side: int, generator: torch.Generator) -> Tensor:
    """Of one colour, of one at the ends of the scale, of two colours, or noise; as many of each."""
    first, second = torch.rand(2, count, 3, 1, 1, generator=generator) * 2 - 1
    coin = torch.rand(count, 1, side, side, generator=generator) < 0.5
    noise = torch.rand(count, 3, side, side, generator=generator) * 2 - 1
    kind = torch.randint(4, (count, 1, 1, 1), generator=generator)
    flat = torch.where(kind == 0, first, first.sign()).expand_as(noise)
    rich = torch.where(kind == 2, torch.where(coin, first, second), noise)
    drawn: Tensor = torch.where(kind < 2, flat, rich)
    return drawn


def mixed(images: Tensor, others: Tensor, generator: torch.Generator) -> Tensor:
    """A picture mixed into the whole image: drawn, or one of ``others``."""
    count = len(images)
    pictures = torch.where(_some(count, 0.4, generator), others, drawn_pictures(count, images.shape[-1], generator))
    opacity = _between(*_OPACITY, count, generator)
    return (1 - opacity) * images + opacity * pictures


def drawn_pictures(count: int, side: int, generator: torch.Generator) -> Tensor:
    """Pictures float32 [count, 3, side, side] from a few values to noise, a quarter of them grey."""
    grids = [grid for grid in _GRIDS if grid < side] + [side]
    chosen = torch.randint(len(grids), (count,), generator=generator)
    pictures = torch.empty(count, 3, side, side)
    for number, grid in enumerate(grids):
        rows = (chosen == number).nonzero()[:, 0]
        values = torch.rand(len(rows), 3, grid, grid, generator=generator) * 2 - 1
        values = torch.where(_some(len(rows), 0.25, generator), values[:, :1], values)
        if len(rows):
            pictures[rows] = F.interpolate(1.3 * values, size=side, mode="bicubic", align_corners=True).clamp(-1, 1)
    return pictures


def warped(images: Tensor, _others: Tensor, generator: torch.Generator) -> Tensor:
    """A smooth warp, sampled bilinearly."""
    count, side = len(images), images.shape[-1]
    grid = int(torch.randint(*_WARP_GRIDS, (1,), generator=generator))
    control = torch.rand(count, 2, grid, grid, generator=generator) * 2 - 1
    control = control / control.abs().mean(dim=(1, 2, 3), keepdim=True)
    flow = F.interpolate(control, size=side, mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    axis = torch.linspace(-1, 1, side)
    rows, columns = torch.meshgrid(axis, axis, indexing="ij")
    places = torch.stack((columns, rows), dim=2) + _between(*_WARP, count, generator) * flow / side
    return F.grid_sample(images, places.clamp(-1, 1), mode="bilinear", padding_mode="border", align_corners=True)


def _some(count: int, share: float, generator: torch.Generator) -> Tensor:
    """bool [count, 1, 1, 1]: each True with that probability."""
    return torch.rand(count, 1, 1, 1, generator=generator) < share


def _between(low: float, high: float, count: int, generator: torch.Generator) -> Tensor:
    """float32 [count, 1, 1, 1], uniform."""
    return low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator)
