"""Colour spaces in which some triggers are added, with the rounding of the libraries that published code calls.

Channels are arrays [B, H, W] of their own, levels 0-255.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from zipbatch.attacks.base import U8

I32 = npt.NDArray[np.int32]
F32 = npt.NDArray[np.float32]

_BITS = 14  # OpenCV's fixed point: coefficients times 2**14, rounded to whole numbers
_HALF = 1 << (_BITS - 1)


def rgb_to_ycrcb(images: U8) -> tuple[I32, I32, I32]:
    """RGB uint8 [B, H, W, 3] -> Y, Cr, Cb in 0..255, as OpenCV's ``cvtColor`` does it for uint8, bit for bit.

    Y = .299 R + .587 G + .114 B, Cr = .713 (R - Y) + 128, Cb = .564 (B - Y) + 128 (OpenCV's documentation of
    ``COLOR_RGB2YCrCb``), in fixed point of 14 bits, halves rounded up, clipped. Checked against OpenCV 5.0 on all
    colours.
    """
    red, green, blue = (images[..., channel].astype(np.int32) for channel in range(3))
    y = (4899 * red + 9617 * green + 1868 * blue + _HALF) >> _BITS
    cr = (11682 * (red - y) + (128 << _BITS) + _HALF) >> _BITS
    cb = (9241 * (blue - y) + (128 << _BITS) + _HALF) >> _BITS
    return y, cr.clip(0, 255), cb.clip(0, 255)


def ycrcb_to_rgb(y: I32, cr: I32, cb: I32) -> U8:
    """The way back, R = Y + 1.403 (Cr - 128), G = Y - .714 (Cr - 128) - .344 (Cb - 128), B = Y + 1.773 (Cb - 128),
    in the same fixed point, clipped to uint8 [B, H, W, 3].
    """
    cr, cb = cr - 128, cb - 128
    red = y + ((22987 * cr + _HALF) >> _BITS)
    green = y + ((-11698 * cr - 5636 * cb + _HALF) >> _BITS)
    blue = y + ((29049 * cb + _HALF) >> _BITS)
    return np.stack([red, green, blue], axis=-1).clip(0, 255).astype(np.uint8)


def rgb_to_yuv(images: U8) -> tuple[F32, F32, F32]:
    """RGB uint8 [B, H, W, 3] -> Y, U, V float32 on the scale of the levels, with the coefficients of kornia's
    ``rgb_to_yuv`` (ITU-R BT.470, three decimals).
    """
    red, green, blue = (images[..., channel].astype(np.float32) for channel in range(3))
    y = 0.299 * red + 0.587 * green + 0.114 * blue
    u = -0.147 * red - 0.289 * green + 0.436 * blue
    v = 0.615 * red - 0.515 * green - 0.100 * blue
    return y, u, v


def yuv_to_rgb(y: F32, u: F32, v: F32) -> F32:
    """The way back with the coefficients of ``yuv_to_rgb`` of kornia 0.6, when CTRL was published: float32
    [B, H, W, 3], neither rounded nor clipped. They are rounded too, so that there and back is not quite the identity.
    """
    return np.stack([y + 1.14 * v, y - 0.396 * u - 0.581 * v, y + 2.029 * u], axis=-1)


def wrapped(levels: F32) -> U8:
    """What a cast to uint8 makes of levels outside 0..255 on x86: the fraction cut off, then modulo 256."""
    whole = np.trunc(levels).astype(np.int32)
    return np.bitwise_and(whole, 0xFF).astype(np.uint8)
