"""BATT turns the picture as PIL does: counter-clockwise about its middle, nearest pixel, black outside."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.attacks.stamping import stamp
from tests.making import picture
from zipbatch.attacks.batt import BATT, BATTSettings


def sources(size: int, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Where each output pixel's middle lies in the input, in pixels from its upper left corner: (x, y) [S, S]."""
    angle, middle = math.radians(degrees), size / 2
    rows, columns = np.mgrid[:size, :size] + 0.5 - middle
    x = math.cos(angle) * columns - math.sin(angle) * rows + middle
    y = math.sin(angle) * columns + math.cos(angle) * rows + middle
    return x, y


@pytest.mark.parametrize(("size", "degrees"), [(32, 16.0), (47, 16.0), (32, -30.0), (32, 90.0)])
def test_restatement(size: int, degrees: float):
    images = np.stack([picture(seed, size) | 1 for seed in range(3)])  # no black of their own
    attack = BATT(BATTSettings(angle_degrees=degrees))
    stamped = stamp(attack, images, attack.make_trigger(size, seed=0))
    x, y = sources(size, degrees)
    inside = (x >= 0) & (x < size) & (y >= 0) & (y < size)
    at = (np.floor(y).astype(int).clip(0, size - 1), np.floor(x).astype(int).clip(0, size - 1))
    clear = (np.abs(x - np.rint(x)) > 1e-2) & (np.abs(y - np.rint(y)) > 1e-2)  # PIL works in fixed point
    assert clear.mean() > 0.9
    expected = np.where(inside[..., None], images[:, at[0], at[1]], 0)
    assert np.array_equal(stamped[:, clear], expected[:, clear])
    assert (~inside).any() == (degrees % 90 != 0)


def test_no_turn_is_no_change():
    images = np.stack([picture(seed) for seed in range(2)])
    attack = BATT(BATTSettings(angle_degrees=0.0))
    assert np.array_equal(stamp(attack, images, attack.make_trigger(16, seed=0)), images)


def test_the_clean_images_are_turned_in_training():
    assert BATT.train_transform == "batt"


def test_angle_must_be_finite():
    with pytest.raises(ValueError, match="angle_degrees\n  Input should be a finite number"):
        BATT(BATTSettings(angle_degrees=float("nan")))
