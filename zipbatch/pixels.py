"""Pixel domains by name: ``u8`` 0..255, ``unit`` [0, 1], ``model`` [-1, 1]. Two functions convert; no others do."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Domain = Literal["unit", "model"]


def from_u8(pixels: Tensor, domain: Domain) -> Tensor:
    """uint8 pixels of any shape -> float32 in ``domain``, same shape."""
    if pixels.dtype != torch.uint8:
        raise ValueError(f"expected uint8 pixels, got {pixels.dtype}")
    unit = pixels.to(torch.float32) / 255
    return unit if domain == "unit" else unit * 2 - 1


def to_u8(pixels: Tensor, domain: Domain) -> Tensor:
    """Float pixels in ``domain`` -> uint8, clipped, then rounded half to even, same shape.

    Raises:
        ValueError: a value is not finite; a picture is never made of NaN.
    """
    if not bool(torch.isfinite(pixels).all()):
        raise ValueError("pixels are not finite")
    unit = pixels if domain == "unit" else (pixels + 1) / 2
    return (unit.clamp(0, 1) * 255).round().to(torch.uint8)
