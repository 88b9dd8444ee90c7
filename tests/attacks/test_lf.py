"""LF: an array added in levels; one that would change nothing is refused."""

from __future__ import annotations

import numpy as np
import pytest

from tests.attacks.stamping import stamp
from tests.attacks.test_patch import images
from zipbatch.attacks.lf import LF, LFSettings

RNG = np.random.default_rng(4)
LEVELS = RNG.integers(0, 52, (32, 32, 3))


def test_levels_are_added_and_clipped():
    attack, clean = LF(), images()
    stamped = stamp(attack, clean, attack.trigger_from_array(LEVELS.astype(np.uint8), 32))
    assert np.array_equal(stamped, np.minimum(clean.astype(int) + LEVELS, 255))


def test_levels_may_be_taken_away_and_are_cut():
    attack, clean = LF(), np.full((1, 32, 32, 3), 10, np.uint8)
    stamped = stamp(attack, clean, attack.trigger_from_array(np.full((32, 32), -1.5), 32))
    assert (stamped == 8).all()
    assert (stamp(attack, clean, attack.trigger_from_array(np.full((32, 32, 1), -20), 32)) == 0).all()


@pytest.mark.parametrize("shape", [(1, 32, 32, 3), (1, 1, 32, 32, 3), (32, 32, 3)])
def test_leading_axes_of_one_are_dropped(shape: tuple[int, ...]):
    added = LF().trigger_from_array(LEVELS.reshape(shape), 32)["added"]
    assert np.array_equal(added, LEVELS)


def test_shares_of_the_full_range_are_refused_until_they_are_scaled():
    shares = (LEVELS / 255).astype(np.float32)
    with pytest.raises(ValueError, match=r"adds less than one of 255 levels \(up to 0\.2\).*‹params={'scale': 255}›"):
        LF().trigger_from_array(shares, 32)
    added = LF(LFSettings(scale=255)).trigger_from_array(shares, 32)["added"]
    assert np.abs(added - LEVELS).max() < 1e-4


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((32, 32, 3)), "changes nothing"),
        (np.full((32, 32, 3), np.nan), "not finite"),
        (np.full((32, 32, 3), np.inf), "not finite"),
        (np.ones((32, 32, 3), bool), "holds bool, not whole or floating-point numbers"),
        (np.ones((16, 16, 3)), "is 16 x 16 x 3, the images need 32 x 32 x 3.*‹image_size›"),
        (np.ones((3, 32, 32)), "is 3 x 32 x 32, not rows x columns x 3"),
        (np.ones((2, 32, 32, 3)), "is 2 x 32 x 32 x 3, not rows x columns x 3"),
        (np.ones((32, 32, 0)), "is 32 x 32 x 0, not rows x columns x 3"),
        (np.ones(()), "is a single number, not rows x columns x 3"),
        (np.ones((0, 32, 32, 3)), "not rows x columns x 3"),
    ],
)
def test_arrays_that_do_not_do(array: np.ndarray, words: str):
    with pytest.raises(ValueError, match=words):
        LF().trigger_from_array(array, 32)


def test_without_an_array_there_is_no_trigger():
    with pytest.raises(ValueError, match="‹trigger_array"):
        LF().make_trigger(32, seed=0)
