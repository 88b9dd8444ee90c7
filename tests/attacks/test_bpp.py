"""BppAttack's levels in exact fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from tests.attacks.stamping import stamp
from tests.making import picture
from zipbatch.attacks.bpp import BPP, BPPSettings


def quantised(level: int, levels: int) -> int:
    """The formula without floating point; no step of it ever falls on a tie with 8 levels."""
    step = round(Fraction(level * (levels - 1), 255))
    return round(Fraction(step * 255, levels - 1))


@pytest.mark.parametrize("levels", [2, 8, 32])
def test_every_level(levels: int):
    table = BPP(BPPSettings(levels=levels)).make_trigger(16, seed=0)["table"]
    assert table.tolist() == [quantised(level, levels) for level in range(256)]
    assert len(set(table.tolist())) == levels


def test_published_levels():
    assert sorted(set(BPP().make_trigger(16, seed=0)["table"].tolist())) == [0, 36, 73, 109, 146, 182, 219, 255]


def test_each_pixel_is_looked_up():
    images, attack = np.stack([picture(seed) for seed in range(2)]), BPP()
    stamped = stamp(attack, images, attack.make_trigger(16, seed=0))
    expected = [quantised(int(level), 8) for level in images.ravel()]
    assert stamped.ravel().tolist() == expected
    assert np.array_equal(stamp(attack, stamped, attack.make_trigger(16, seed=0)), stamped)


@pytest.mark.parametrize("levels", [0, 1, 256, -8])
def test_levels_outside_their_range(levels: int):
    with pytest.raises(ValueError, match=r"levels\n  Input should be .* or equal to 2"):
        BPP(BPPSettings(levels=levels))
