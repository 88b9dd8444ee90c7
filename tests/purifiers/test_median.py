"""The median window against numpy's sorting."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zipbatch.purifiers import Resources
from zipbatch.purifiers.median import Median
from zipbatch.purifiers.settings import MedianSettings


def smoothed(images: torch.Tensor, **settings: int) -> torch.Tensor:
    return Median(MedianSettings(**settings), Resources(device=torch.device("cpu")))(images, ["a"] * len(images))


def smoothed_by_hand(images: np.ndarray, window: int) -> np.ndarray:
    """The middle of the sorted window; numpy calls an edge mirrored with its own pixel "symmetric"."""
    border = window // 2
    padded = np.pad(images, ((0, 0), (0, 0), (border, border), (border, border)), mode="symmetric")
    views = np.lib.stride_tricks.sliding_window_view(padded, (window, window), axis=(2, 3))
    return np.sort(views.reshape(*images.shape, -1), axis=-1)[..., window * window // 2]


@pytest.mark.parametrize("window", [3, 5, 9, 31])
@pytest.mark.parametrize(("height", "width"), [(12, 12), (7, 16)])
def test_the_middle_of_each_window(window: int, height: int, width: int):
    """A window of 31 reaches over images of 7 pixels more than once."""
    images = np.random.default_rng(window).integers(0, 256, (2, 3, height, width)).astype(np.uint8)
    given = torch.from_numpy(images.copy())
    got = smoothed(given, window=window)
    assert got.dtype == torch.uint8
    assert (got.numpy() == smoothed_by_hand(images, window)).all()
    assert (given.numpy() == images).all()


def test_edges_repeat_their_own_pixel():
    """At a corner the pixel itself counts four of nine times, so one more of its kind decides."""
    image = torch.zeros(1, 3, 6, 6, dtype=torch.uint8)
    image[0, 0, 0, 0] = image[0, 0, 0, 1] = 200
    got = smoothed(image)
    assert got[0, 0, 0, 0] == 200
    assert got.sum() == 200


def test_a_small_trigger_goes_and_an_edge_stays():
    image = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    image[..., 4:] = 100
    clean = image.clone()
    image[0, :, 2, 1] = 255
    assert torch.equal(smoothed(image), clean)


@pytest.mark.parametrize("window", [0, 1, 2, 4, 33, -3])
def test_wrong_windows(window: int):
    with pytest.raises(ValueError, match="validation error"):
        MedianSettings(window=window)
