"""Colour spaces against their published formulas."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from zipbatch.attacks.colour import rgb_to_ycrcb, rgb_to_yuv, wrapped, ycrcb_to_rgb, yuv_to_rgb

STEPS = range(0, 256, 15)
COLOURS = np.array(list(itertools.product(STEPS, repeat=3)), np.uint8)[None, :, None]  # one image, one pixel wide


def test_ycrcb_is_the_documented_formula_rounded():
    """Cr and Cb are made from a Y rounded already, so that is where half a level goes."""
    red, green, blue = (COLOURS[..., channel].astype(float) for channel in range(3))
    y, cr, cb = rgb_to_ycrcb(COLOURS)
    assert np.abs(y - (0.299 * red + 0.587 * green + 0.114 * blue)).max() < 0.51
    assert np.abs(cr - ((red - y) * 0.713 + 128).clip(0, 255)).max() < 0.52
    assert np.abs(cb - ((blue - y) * 0.564 + 128).clip(0, 255)).max() < 0.52


@pytest.mark.parametrize(
    ("rgb", "ycrcb"),
    [
        ((0, 0, 0), (0, 128, 128)),
        ((255, 255, 255), (255, 128, 128)),
        ((255, 0, 0), (76, 255, 85)),  # Cr would be 255.6
        ((0, 255, 0), (150, 21, 43)),
        ((0, 0, 255), (29, 107, 255)),  # Cb would be 255.5
    ],
)
def test_ycrcb_of_primaries(rgb: tuple[int, ...], ycrcb: tuple[int, ...]):
    image = np.array(rgb, np.uint8).reshape(1, 1, 1, 3)
    assert tuple(int(channel.item()) for channel in rgb_to_ycrcb(image)) == ycrcb


def test_ycrcb_there_and_back():
    back = ycrcb_to_rgb(*rgb_to_ycrcb(COLOURS)).astype(int)
    inside = (COLOURS != 255).all(axis=3) & (COLOURS != 0).all(axis=3)
    assert np.abs(back - COLOURS)[inside].max() <= 2


def test_ycrcb_to_rgb_is_the_documented_formula_clipped():
    y, cr, cb = (COLOURS[..., channel].astype(np.int32) for channel in range(3))
    expected = np.stack(
        [y + 1.403 * (cr - 128), y - 0.714 * (cr - 128) - 0.344 * (cb - 128), y + 1.773 * (cb - 128)], axis=-1
    )
    assert np.abs(ycrcb_to_rgb(y, cr, cb) - expected.clip(0, 255)).max() < 0.55


def test_yuv_is_the_documented_matrix():
    matrix = np.array([[0.299, 0.587, 0.114], [-0.147, -0.289, 0.436], [0.615, -0.515, -0.100]])
    yuv = np.stack(rgb_to_yuv(COLOURS), axis=-1)
    assert yuv.dtype == np.float32
    assert np.abs(yuv - COLOURS @ matrix.T).max() < 1e-4
    back = np.array([[1, 0, 1.14], [1, -0.396, -0.581], [1, 2.029, 0]])
    rgb = yuv_to_rgb(yuv[..., 0], yuv[..., 1], yuv[..., 2])
    assert rgb.dtype == np.float32
    assert np.abs(rgb - yuv @ back.T).max() < 1e-3
    assert 0.05 < np.abs(rgb - COLOURS).max() < 0.6


def test_levels_are_cut_and_wrap():
    levels = np.array([0, 0.99, 254.9, 255.99, 256, 300.5, -0.99, -1, -3.7, -256.5], np.float32)
    assert wrapped(levels).tolist() == [0, 0, 254, 255, 0, 44, 0, 255, 253, 0]
