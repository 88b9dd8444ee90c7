"""Refool: which picture is reflected in which image, and how much of it is seen."""

from __future__ import annotations

import numpy as np
import pytest

from tests.attacks.stamping import stamp
from tests.attacks.test_golden import ramp
from tests.attacks.test_patch import images
from zipbatch.attacks.base import drawn_words
from zipbatch.attacks.refool import Refool, RefoolSettings

POOL = [np.full((32, 32, 3), level, np.uint8) for level in (0, 120, 255)]


def test_flat_pictures_are_mixed_in_light():
    """However it is ghosted or blurred, a flat picture stays one."""
    attack, clean = Refool(RefoolSettings(alpha=0.4)), images(30)
    keys = [f"k{i}" for i in range(30)]
    stamped = stamp(attack, clean, attack.trigger_from_pictures(POOL, 32, seed=5), keys=keys, training=True)
    seen = set()
    for image, got, key in zip(clean, stamped, keys, strict=True):
        which = int(drawn_words(5, key, 1)[0]) % 3
        light = 0.4 * (image / 255) ** 2.2 + 0.6 * (POOL[which] / 255) ** 2.2
        assert np.abs(got - 255 * light ** (1 / 2.2)).max() <= 0.5 + 1e-6
        seen.add(which)
    assert seen == {0, 1, 2}


def test_the_share_is_drawn_between_55_and_95_in_a_hundred():
    black, keys = np.zeros((200, 8, 8, 3), np.uint8), [str(i) for i in range(200)]
    attack = Refool()
    trigger = attack.trigger_from_pictures([np.full((8, 8, 3), 255, np.uint8)], 8, seed=1)
    shares = 1 - (stamp(attack, black, trigger, keys=keys, training=False)[:, 0, 0, 0] / 255) ** 2.2
    assert 0.54 < shares.min() < 0.6
    assert 0.9 < shares.max() < 0.96
    assert abs(shares.mean() - 0.75) < 0.03


def dot(size: int, row: int = 4, column: int = 5) -> np.ndarray:
    picture = np.zeros((size, size, 3), np.uint8)
    picture[row, column] = 255
    return picture


def test_a_ghost_is_the_picture_twice():
    attack = Refool(RefoolSettings(alpha=0.1, ghost_rate=1, reference_size=32))
    trigger = attack.trigger_from_pictures([dot(32)], 32, seed=1)
    for key in "abcde":
        lit = stamp(attack, np.zeros((1, 32, 32, 3), np.uint8), trigger, keys=[key], training=True)[0, :, :, 0]
        (row, column), (again_row, again_column) = np.argwhere(lit)
        assert (row, column) == (4, 5)
        assert 3 <= again_row - row <= 8
        assert 3 <= again_column - column <= 8
        light = (lit[[row, again_row], [column, again_column]] / 255) ** 2.2
        assert abs(light.sum() - 0.9) < 0.02
        assert 0.15 - 0.02 <= light[0] / 0.9 <= 0.85 + 0.02


def test_out_of_focus_is_a_blur_that_keeps_the_light():
    attack = Refool(RefoolSettings(alpha=0.1, ghost_rate=0, reference_size=64))
    trigger = attack.trigger_from_pictures([dot(64, 31, 40)], 64, seed=1)
    lit = stamp(attack, np.zeros((1, 64, 64, 3), np.uint8), trigger, keys=["a"], training=True)[0, :, :, 0]
    assert lit[31, 40] == lit.max()
    assert (lit > 0).sum() > 9
    around = lit[21:42, 30:51]
    assert np.array_equal(around, around[::-1])
    assert np.array_equal(around, around.T)


def test_small_images_shrink_the_pixels_of_the_reference():
    """At 560 px a ghost is 3 to 8 pixels off; at 32 less than half a pixel: hardly another picture."""
    attack = Refool(RefoolSettings(alpha=0.1, ghost_rate=1))
    trigger = attack.trigger_from_pictures([dot(32)], 32, seed=1)
    lit = stamp(attack, np.zeros((1, 32, 32, 3), np.uint8), trigger, keys=["a"], training=True)[0, :, :, 0]
    assert {tuple(place) for place in np.argwhere(lit).tolist()} <= {(4, 5), (4, 6), (5, 5), (5, 6)}
    assert lit.argmax() == 4 * 32 + 5


def test_bytes_of_the_ramp():
    """Within a level of what they were when they were first staged: powers may differ in their last bits."""
    attack = Refool()
    trigger = attack.trigger_from_pictures([ramp()[0, :, ::-1].copy(), ramp()[0].swapaxes(0, 1).copy()], 32, seed=1234)
    stamped = stamp(attack, np.repeat(ramp(), 2, axis=0), trigger, keys=["a", "b"], training=True).astype(int)
    assert np.abs(stamped[:, ::11, ::11, 1] - GOLDEN).max() <= 1


GOLDEN = np.array([[[47, 61, 87], [64, 82, 109], [84, 104, 131]], [[74, 68, 79], [92, 89, 101], [111, 111, 122]]])


def test_pools_that_do_not_do():
    with pytest.raises(ValueError, match="holds no picture"):
        Refool().trigger_from_pictures([], 32, seed=1)
    with pytest.raises(ValueError, match="‹trigger_image FOLDER›"):
        Refool().make_trigger(32, seed=0)
