"""SIG's sine wave, column by column."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.attacks.stamping import stamp
from tests.making import picture
from zipbatch.attacks.sig import SIG, SIGSettings


@pytest.mark.parametrize(("size", "delta", "frequency"), [(32, 40.0, 6.0), (50, 40.0, 6.0), (32, 20.0, 2.0)])
def test_restatement(size: int, delta: float, frequency: float):
    images = np.stack([picture(seed, size) for seed in range(3)])
    attack = SIG(SIGSettings(delta=delta, frequency=frequency))
    stamped = stamp(attack, images, attack.make_trigger(size, seed=0))
    for column in range(size):
        gain = delta * math.sin(2 * math.pi * column * frequency / size)
        if abs(gain - round(gain)) < 1e-3:  # a whole level less its last bit is cut to the level below
            got = stamped[:, :, column].astype(int) - images[:, :, column]
            assert np.isin(
                got[(stamped[:, :, column] > 0) & (stamped[:, :, column] < 255)], [round(gain) - 1, round(gain)]
            ).all()
            continue
        expected = np.trunc(np.clip(images[:, :, column] + gain, 0, 255))
        assert np.array_equal(stamped[:, :, column], expected)


def test_published_wave():
    wave = SIG().make_trigger(32, seed=0)["wave"]
    assert (wave.dtype, wave.shape) == (np.float32, (32,))
    assert wave[:4] == pytest.approx([0, 36.955, 28.284, -15.307], abs=1e-3)
    assert np.abs(wave).max() == pytest.approx(40 * math.sin(math.pi / 2), abs=1e-4)


def test_clipped_and_cut():
    attack = SIG()
    trigger = attack.make_trigger(32, seed=0)
    dark, bright = (stamp(attack, np.full((1, 32, 32, 3), level, np.uint8), trigger)[0, 0, :, 0] for level in (0, 255))
    assert dark[[1, 3]].tolist() == [36, 0]  # 36.955 is cut, -15.3 clipped
    assert bright[[1, 3]].tolist() == [255, 239]  # 239.69 is cut


@pytest.mark.parametrize("params", [{"delta": float("nan")}, {"frequency": float("inf")}])
def test_parameters_must_be_finite(params: dict[str, float]):
    with pytest.raises(ValueError, match="Input should be a finite number"):
        SIG(SIGSettings(**params))
