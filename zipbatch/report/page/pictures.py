"""Pictures inside a page: as data URIs, none larger than its part of what the page may take."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from zipbatch.images import encode_png, stretch
from zipbatch.report.page.model import U8

BUDGET_BYTES = 4_400_000
"""What all pictures of a page may take, as text."""
MOST_BYTES = 60_000
"""What one may take at most, encoded."""
GAIN = 4
"""How many times stronger differences are shown than they are."""
_SMALLER = ((288, 90), (224, 88), (176, 85), (144, 80), (112, 75), (80, 65), (48, 50), (24, 30))
"""Longer side in pixels and quality, one after the other, until the picture fits."""


@dataclass(frozen=True)
class Inlined:
    """A picture as a page has it: ``exact`` says that every pixel is as it was."""

    source: str
    width: int
    height: int
    exact: bool


def share_of(count: int) -> int:
    """Encoded bytes that each of so many pictures may take."""
    return min(MOST_BYTES, BUDGET_BYTES * 3 // 4 // max(1, count))


def inlined(pixels: U8, *, most_bytes: int) -> Inlined:
    """A picture, uint8 [H, W, 3], as PNG; where that takes more than ``most_bytes``, smaller and as WebP.

    Nothing is made smaller than the last step of that, whatever it takes.
    """
    height, width = pixels.shape[:2]
    data = encode_png(pixels)
    if len(data) <= most_bytes:
        return Inlined(_uri(data, "png"), width, height, exact=True)
    for side, quality in _SMALLER:
        factor = min(1.0, side / max(height, width))
        shown = stretch(pixels, max(1, round(height * factor)), max(1, round(width * factor)))
        data = _webp(shown, quality)
        if len(data) <= most_bytes:
            break
    return Inlined(_uri(data, "webp"), shown.shape[1], shown.shape[0], exact=False)


def difference(one: U8, other: U8) -> tuple[U8, float]:
    """How far two images of one size are apart, ``GAIN`` times as strong, and on average in levels of 255."""
    apart = np.abs(one.astype(np.int16) - other.astype(np.int16))
    return (apart * GAIN).clip(0, 255).astype(np.uint8), float(apart.mean())


def _webp(pixels: U8, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
