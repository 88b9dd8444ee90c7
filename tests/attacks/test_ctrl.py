"""CTRL against a restatement that transforms the whole image, in float64."""

from __future__ import annotations

import numpy as np
import pytest

from tests.attacks.stamping import stamp
from tests.making import picture
from zipbatch.attacks.ctrl import CTRL, CTRLSettings
from zipbatch.attacks.frequency import cosine_basis

TO_YUV = np.array([[0.299, 0.587, 0.114], [-0.147, -0.289, 0.436], [0.615, -0.515, -0.100]])
TO_RGB = np.array([[1, 0, 1.14], [1, -0.396, -0.581], [1, 2.029, 0]])


def restated(images: np.ndarray, magnitude: float) -> np.ndarray:
    """RGB levels, float64, neither rounded nor clipped."""
    basis, yuv = cosine_basis(images.shape[1]), images @ TO_YUV.T
    for channel in (1, 2):
        coefficients = basis @ yuv[..., channel] @ basis.T
        coefficients[:, 15, 15] += magnitude
        coefficients[:, 31, 31] += magnitude
        yuv[..., channel] = basis.T @ coefficients @ basis
    return yuv @ TO_RGB.T


@pytest.mark.parametrize("size", [32, 50, 64])
def test_restatement(size: int):
    images = np.stack([picture(seed, size) for seed in range(4)])
    images[0] = 0  # all around it the trigger leaves 0..255
    images[1] = 255
    attack = CTRL()
    expected = restated(images, 100.0)
    stamped = stamp(attack, images, attack.make_trigger(size, seed=0))
    clear = np.abs(expected - np.rint(expected)) > 1e-3
    assert clear.mean() > 0.99
    assert np.array_equal(stamped[clear], (np.trunc(expected).astype(int) % 256)[clear])


def test_levels_below_zero_wrap_to_bright_ones():
    attack = CTRL()
    stamped = stamp(attack, np.zeros((1, 32, 32, 3), np.uint8), attack.make_trigger(32, seed=0))
    assert ((stamped > 200) | (stamped < 56)).all()
    assert (stamped > 200).any()


@pytest.mark.parametrize("size", [8, 16, 31])
def test_too_small(size: int):
    with pytest.raises(ValueError, match=f"32 px or more, got {size} px"):
        CTRL().make_trigger(size, seed=0)


@pytest.mark.parametrize("magnitude", [float("nan"), float("-inf")])
def test_magnitude_must_be_finite(magnitude: float):
    with pytest.raises(ValueError, match="magnitude\n  Input should be a finite number"):
        CTRL(CTRLSettings(magnitude=magnitude))
