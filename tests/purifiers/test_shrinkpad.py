"""ShrinkPad against numpy, its places against Philox on Python's whole numbers."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from tests.diffusion.test_noise import philox_by_hand
from tests.making import picture
from zipbatch.purifiers import Resources
from zipbatch.purifiers.settings import ShrinkPadSettings
from zipbatch.purifiers.shrinkpad import ShrinkPad


def shrunk(images: torch.Tensor, keys: list[str], *, seed: int = 0, **settings: int) -> torch.Tensor:
    return ShrinkPad(ShrinkPadSettings(**settings), Resources(device=torch.device("cpu"), seed=seed))(images, keys)


def pictures(count: int, size: int = 16) -> torch.Tensor:
    return torch.from_numpy(np.stack([picture(i, size) for i in range(count)])).permute(0, 3, 1, 2).contiguous()


def place_by_hand(seed: int, key: str, pad: int) -> tuple[int, int]:
    """(top, left): the first two words of the key's stream, scaled to [0, pad]."""
    digest = hashlib.sha256(f"zipbatch noise 1\n{seed}\n{key}".encode()).digest()
    stream = [int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")]
    top, left, *_ = philox_by_hand([0, 0, 0, 0], stream)
    return top * (pad + 1) // 2**32, left * (pad + 1) // 2**32


def resized_by_hand(channel: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear between the two nearest pixel centres, in float64; the places outside take the edge's."""
    tall, wide = channel.shape

    def weights(small: int, large: int) -> np.ndarray:
        matrix = np.zeros((small, large))
        for i in range(small):
            centre = min(max((i + 0.5) * large / small - 0.5, 0), large - 1)
            low = min(int(centre), large - 2)
            matrix[i, low], matrix[i, low + 1] = 1 - (centre - low), centre - low
        return matrix

    return weights(height, tall) @ channel.astype(np.float64) @ weights(width, wide).T


@pytest.mark.parametrize(("pad", "height", "width"), [(4, 16, 16), (1, 16, 16), (7, 12, 9)])
def test_the_image_smaller_at_its_keys_place(pad: int, height: int, width: int):
    images = torch.from_numpy(np.random.default_rng(1).integers(1, 256, (5, 3, height, width)).astype(np.uint8))
    before, keys = images.clone(), [f"k{i}" for i in range(5)]
    got = shrunk(images, keys, seed=3, pad=pad).numpy()
    for i, key in enumerate(keys):
        top, left = place_by_hand(3, key, pad)
        inside = np.zeros((height, width), bool)
        inside[top : top + height - pad, left : left + width - pad] = True
        assert (got[i][:, ~inside] == 0).all()
        for c in range(3):
            expected = resized_by_hand(images[i, c].numpy(), height - pad, width - pad)
            assert np.abs(got[i, c][inside].reshape(expected.shape) - expected).max() <= 0.51
    assert torch.equal(images, before)


def test_places_of_some_keys():
    """Golden: these places never change."""
    white = torch.full((4, 3, 32, 32), 255, dtype=torch.uint8)
    got = shrunk(white, ["a", "test_0000", "cam1/007", "é"])
    corners = [tuple(image[0].nonzero()[0].tolist()) for image in got]
    assert corners == [(1, 1), (2, 1), (2, 0), (2, 0)]
    assert all((image > 0).sum() == 3 * 28 * 28 for image in got)


def test_all_places_occur():
    keys = [str(i) for i in range(1000)]
    white = torch.full((1000, 3, 8, 8), 255, dtype=torch.uint8)
    corners = [tuple(image[0].nonzero()[0].tolist()) for image in shrunk(white, keys)]
    counts = {corner: corners.count(corner) for corner in corners}
    assert set(counts) == {(top, left) for top in range(5) for left in range(5)}
    assert max(counts.values()) < 80


def test_neither_batch_nor_order_decides():
    images, keys = pictures(6), [f"k{i}" for i in range(6)]
    together = shrunk(images, keys)
    order = [4, 1, 5, 0, 2, 3]
    assert torch.equal(shrunk(images[order], [keys[i] for i in order]), together[order])
    assert all(torch.equal(shrunk(images[i : i + 1], keys[i : i + 1]), together[i : i + 1]) for i in range(6))
    assert not torch.equal(shrunk(images, keys, seed=1), together)


def test_too_small_an_image():
    settings = ShrinkPadSettings(pad=8)
    assert ShrinkPad.images_per_row(settings, 9, 9, prior_size=None) == 1
    with pytest.raises(ValueError, match="pad 8 leaves nothing of an image of 32x8 pixels"):
        ShrinkPad.images_per_row(settings, 8, 32, prior_size=None)


@pytest.mark.parametrize("pad", [0, -1, 1.5])
def test_wrong_pads(pad: object):
    with pytest.raises(ValueError, match="validation error"):
        ShrinkPadSettings(pad=pad)  # type: ignore[arg-type]
