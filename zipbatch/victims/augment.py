"""Training-time augmentation of a whole batch at once; randomness comes from the generator that is passed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor
from torch.nn import functional as F


def crop_and_flip(unit: Tensor, *, generator: Generator, padding: int = 4) -> Tensor:
    """Zero-pad by ``padding``, crop back at a random offset, flip each image left to right with probability 1/2.

    Shapes: unit pixels [B, C, H, W] in and out.
    """
    batch, _, height, width = unit.shape
    padded = F.pad(unit, [padding] * 4)
    top = torch.randint(0, 2 * padding + 1, (batch,), generator=generator)
    left = torch.randint(0, 2 * padding + 1, (batch,), generator=generator)
    rows = top[:, None] + torch.arange(height)
    columns = left[:, None] + torch.arange(width)
    flip = torch.rand(batch, generator=generator) < 0.5
    columns = torch.where(flip[:, None], columns.flip(1), columns)
    index = torch.arange(batch)[:, None, None]
    return padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def physical_transforms(unit: Tensor, *, generator: Generator) -> Tensor:
    """PhysicalBA's training transform (REFERENCE: flip .5, brightness and contrast .2, rotation 10 degrees, shift .1,
    scale .8-.9, nearest, black outside), drawn anew for each image.

    Shapes: unit pixels [B, 3, H, W] in and out.
    """
    batch, _, height, width = unit.shape

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(batch, generator=generator) * (high - low) + low

    flip = torch.where(torch.rand(batch, generator=generator) < 0.5, -1.0, 1.0)
    brightness = uniform(0.8, 1.2).view(-1, 1, 1, 1)
    contrast = uniform(0.8, 1.2).view(-1, 1, 1, 1)
    luma = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    jittered = (unit * brightness).clamp(0, 1)
    grey = (jittered * luma).sum(dim=1, keepdim=True).mean(dim=(2, 3), keepdim=True)
    jittered = (contrast * jittered + (1 - contrast) * grey).clamp(0, 1)
    angle, scale = uniform(-10, 10) * math.pi / 180, uniform(0.8, 0.9)
    shift_x, shift_y = uniform(-0.1, 0.1) * 2, uniform(-0.1, 0.1) * 2
    cos, sin, ratio = torch.cos(angle) / scale, torch.sin(angle) / scale, height / width
    # Output pixel (x, y) in [-1, 1] reads the input at R^-1 (p - shift) / scale; the flip comes first, so last here.
    a, b = cos, sin * ratio
    c, d = -sin / ratio, cos
    theta = torch.stack(
        [
            torch.stack([flip * a, flip * b, -flip * (a * shift_x + b * shift_y)], dim=1),
            torch.stack([c, d, -(c * shift_x + d * shift_y)], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(theta, list(unit.shape), align_corners=False)
    return F.grid_sample(jittered, grid, mode="nearest", padding_mode="zeros", align_corners=False)


def random_rotation(unit: Tensor, *, generator: Generator, degrees: float = 10) -> Tensor:
    """Turn each image about its middle by a random angle of up to ``degrees`` either way, nearest, black outside.

    Shapes: unit pixels [B, C, H, W] in and out.
    """
    batch, _, height, width = unit.shape
    angle = (torch.rand(batch, generator=generator) * 2 - 1) * degrees * math.pi / 180
    cos, sin, none = torch.cos(angle), torch.sin(angle), torch.zeros(batch)
    theta = torch.stack(
        [
            torch.stack([cos, sin * height / width, none], dim=1),
            torch.stack([-sin * width / height, cos, none], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(theta, list(unit.shape), align_corners=False)
    return F.grid_sample(unit, grid, mode="nearest", padding_mode="zeros", align_corners=False)


class _Draw(Protocol):
    def __call__(self, unit: Tensor, *, generator: Generator) -> Tensor: ...


@dataclass(frozen=True)
class TrainTransform:
    """A transform that belongs to an attack's training; ``clean_only``: images with the trigger stay as they are."""

    draw: _Draw
    clean_only: bool = False

    def __call__(self, unit: Tensor, stamped: Tensor, *, generator: Generator) -> Tensor:
        """Transform unit pixels [B, C, H, W]; ``stamped`` bool [B] says which carry the trigger."""
        drawn = self.draw(unit, generator=generator)
        return torch.where(stamped[:, None, None, None], unit, drawn) if self.clean_only else drawn


TRAIN_TRANSFORMS = {
    "physicalba": TrainTransform(physical_transforms),
    "batt": TrainTransform(random_rotation, clean_only=True),
}
"""By the name that an attack gives as its ``train_transform``."""
