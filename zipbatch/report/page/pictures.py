"""Pictures inside a page: as data URIs, none larger than its part of what the page may take."""

from __future__ import annotations

import base64
import io
import math
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
_LARGEST, _LEAST, _QUALITY = 288, 24, 85
"""Longer side in pixels of what is shown smaller, at most and at least, and its quality."""


@dataclass(frozen=True, kw_only=True)
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

    Nothing is made smaller than ``_LEAST``, whatever it takes.
    """
    height, width = pixels.shape[:2]
    if pixels.size <= 16 * most_bytes:  # pictures that compress better than that are rare, and large ones take long
        data = encode_png(pixels)
        if len(data) <= most_bytes:
            return Inlined(source=_uri(data, "png"), width=width, height=height, exact=True)
    side = min(_LARGEST, max(height, width))
    while True:
        factor = side / max(height, width)
        shown = stretch(pixels, max(1, round(height * factor)), max(1, round(width * factor)))
        data = _webp(shown)
        if len(data) <= most_bytes or side <= _LEAST:
            return Inlined(source=_uri(data, "webp"), width=shown.shape[1], height=shown.shape[0], exact=False)
        side = max(_LEAST, int(side * min(0.9, math.sqrt(most_bytes / len(data)))))


def difference(one: U8, other: U8) -> tuple[U8, float]:
    """How far two images of one size are apart, ``GAIN`` times as strong, and on average in levels of 255."""
    apart = np.abs(one.astype(np.int16) - other.astype(np.int16))
    return (apart * GAIN).clip(0, 255).astype(np.uint8), float(apart.mean())


def _webp(pixels: U8) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=_QUALITY, method=2)
    return buffer.getvalue()


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
