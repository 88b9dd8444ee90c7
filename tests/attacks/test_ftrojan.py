"""FTrojan against a restatement that transforms block by block."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.attacks.stamping import stamp
from tests.making import picture
from zipbatch.attacks.colour import rgb_to_ycrcb, ycrcb_to_rgb
from zipbatch.attacks.frequency import cosine_basis
from zipbatch.attacks.ftrojan import FTrojan, FTrojanSettings


def raised(channel: np.ndarray, magnitude: float) -> np.ndarray:
    """A channel [B, S, S] with the trigger put into the coefficients of each block."""
    basis, out = cosine_basis(32), channel.astype(float)
    for top in range(0, channel.shape[1], 32):
        for left in range(0, channel.shape[2], 32):
            block = (slice(None), slice(top, top + 32), slice(left, left + 32))
            coefficients = basis @ out[block] @ basis.T
            for k in (15, 31):
                coefficients[:, k, k] += magnitude
            out[block] = basis.T @ coefficients @ basis
    return out


@pytest.mark.parametrize(("size", "magnitude"), [(32, 30.0), (64, 30.0), (32, 900.0)])
def test_restatement(size: int, magnitude: float):
    """At a magnitude of 900 chroma leaves 0..255 and wraps."""
    images = np.stack([picture(seed, size) for seed in range(3)])
    attack = FTrojan(FTrojanSettings(magnitude=magnitude))
    y, cr, cb = rgb_to_ycrcb(images)
    moved = [np.trunc(raised(channel, magnitude)) for channel in (cr, cb)]
    assert any((channel < 0).any() or (channel > 255).any() for channel in moved) == (magnitude > 30)
    expected = ycrcb_to_rgb(y, *((channel.astype(int) % 256).astype(np.int32) for channel in moved))
    stamped = stamp(attack, images, attack.make_trigger(size, seed=0))
    assert np.array_equal(stamped, expected)


def test_every_block_gets_the_same_pattern():
    attack = FTrojan()
    grey = np.full((1, 96, 96, 3), 128, np.uint8)
    stamped = stamp(attack, grey, attack.make_trigger(96, seed=0))[0]
    blocks = stamped.reshape(3, 32, 3, 32, 3).transpose(0, 2, 1, 3, 4).reshape(9, 32, 32, 3)
    assert (blocks == blocks[0]).all()
    assert 1 < np.abs(blocks[0].astype(int) - 128).max() <= 8


@pytest.mark.parametrize("size", [8, 16, 31, 33, 48, 100])
def test_sizes_that_are_no_blocks(size: int):
    with pytest.raises(ValueError, match=re.escape(f"multiple of 32 px for its 32 px blocks, got {size} px")):
        FTrojan().make_trigger(size, seed=0)


@pytest.mark.parametrize("magnitude", [float("nan"), float("inf")])
def test_magnitude_must_be_finite(magnitude: float):
    with pytest.raises(ValueError, match="magnitude\n  Input should be a finite number"):
        FTrojan(FTrojanSettings(magnitude=magnitude))
