"""Blended mixes the published noise in, truncating as the published code does."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from tests.attacks.stamping import stamp
from zipbatch.attacks.blended import Blended, BlendedSettings

SEED = 1234


@pytest.mark.parametrize(("size", "digest"), [(32, "ee9296313cc1061f"), (256, "df60ce1913cbacc3")])
def test_published_pattern(size: int, digest: str):
    pattern = Blended().make_trigger(size, seed=SEED)["pattern"]
    assert pattern.dtype == np.uint8
    assert pattern.shape == (size, size, 1)
    assert pattern[0, :6, 0].tolist() == [210, 156, 141, 65, 56, 34]
    assert hashlib.sha256(pattern.tobytes()).hexdigest()[:16] == digest
    assert pattern.max() <= 254


def test_every_pair_of_levels_is_mixed_and_truncated():
    """``.8 x + .2 p`` in whole fifths: exact away from whole results, where float32 may fall one short."""
    levels = np.arange(256, dtype=np.uint8)
    images = np.broadcast_to(levels[:, None, None], (256, 256, 3))[None].copy()
    mixed = stamp(Blended(), images, {"pattern": np.broadcast_to(levels[None, :, None], (256, 256, 1)).copy()})
    x, p = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    fifths = 4 * x + p
    for channel in range(3):
        got = mixed[0, :, :, channel].astype(int)
        assert np.array_equal(got[fifths % 5 != 0], (fifths // 5)[fifths % 5 != 0])
        short = (fifths // 5 - got)[fifths % 5 == 0]
        assert set(short.tolist()) <= {0, 1}
    assert np.array_equal(mixed[0, :, :, 0], (np.float32(0.8) * x.astype("f4") + np.float32(0.2) * p.astype("f4")) // 1)


def test_opaque_pattern_replaces_the_image():
    attack = Blended(BlendedSettings(alpha=1.0))
    trigger = attack.make_trigger(16, seed=SEED)
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)
    assert np.array_equal(stamp(attack, images, trigger), np.broadcast_to(trigger["pattern"], images.shape))


@pytest.mark.parametrize("alpha", [0.0, -0.1, 1.01, float("nan")])
def test_alpha_outside_its_range(alpha: float):
    with pytest.raises(ValueError, match="alpha\n  Input should be"):
        Blended(BlendedSettings(alpha=alpha))
