"""What purifiers find of an image not to be trusted, kept beside it where that is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
from torch import Tensor

from zipbatch.images import U8, encode_png, stretch_nearest

MASK = "mask.png"
"""The member of a purified sample that holds its mask: white where the image was repainted."""
_KEPT: ContextVar[dict[str, Tensor]] = ContextVar("masks")


def keep_masks(keys: Sequence[str], masks: Tensor) -> None:
    """To be called by a purifier with what it repaints, bool [N, H, W], in the context of ``kept_masks``: masks of one
    image, of several steps or draws, become one.
    """
    kept = _KEPT.get(None)
    if kept is None:
        return
    for key, mask in zip(keys, masks, strict=True):
        kept[key] = kept[key] | mask if key in kept else mask


@contextmanager
def kept_masks() -> Iterator[dict[str, Tensor]]:
    """Within, what purifiers find is kept: key -> bool [H, W]."""
    kept: dict[str, Tensor] = {}
    token = _KEPT.set(kept)
    try:
        yield kept
    finally:
        _KEPT.reset(token)


def forget_masks(kept: dict[str, Tensor], keys: Sequence[str]) -> None:
    """Drop those of images whose purification is begun anew."""
    for key in keys:
        kept.pop(key, None)


def encoded(mask: Tensor, height: int, width: int) -> bytes:
    """A mask, bool [H, W], as a grey PNG of that size."""
    pixels: U8 = mask.numpy().astype(np.uint8) * 255
    return encode_png(stretch_nearest(pixels, height, width))
