"""Pictures mixed into images: the arithmetic that several attacks share."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import BeforeValidator, Field

from zipbatch.attacks.base import U8
from zipbatch.config import listed

Opacity = Annotated[float, Field(gt=0, le=1)]
Opacities = Annotated[tuple[Opacity, ...], BeforeValidator(listed), Field(min_length=1)]


def mix(images: U8, pattern: U8, opacity: npt.NDArray[np.float32]) -> U8:
    """``rint((1 - opacity) x + opacity p)`` in float32, on uint8 [B, S, S, 3]; pattern and opacity of that shape, or of
    one that is spread over it.
    """
    mixed: U8 = np.rint(mix_levels(images.astype(np.float32), pattern, opacity)).astype(np.uint8)
    return mixed


def mix_levels(
    levels: npt.NDArray[np.float32], pattern: U8, opacity: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """As ``mix``, on levels float32 [B, S, S, 3], and not rounded."""
    return (1 - opacity) * levels + opacity * pattern.astype(np.float32)


def resized(picture: U8, height: int, width: int) -> U8:
    """A picture uint8 [H, W, C] of another size, bilinear with antialiasing."""
    return np.array(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR))


def opacity_of(picture: U8, alpha: float) -> npt.NDArray[np.float32]:
    """Opacity float32 [H, W, 1], 0 to 1, of an RGBA picture [H, W, 4] that is to have ``alpha`` where it is opaque.

    Raises:
        ValueError: nothing of it is to be seen.
    """
    if not picture[:, :, 3].any():
        raise ValueError("the picture is transparent all over")
    return picture[:, :, 3:].astype(np.float32) * np.float32(alpha / 255)
