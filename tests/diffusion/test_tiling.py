"""Images come back from the canvas, each from its own slot."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zipbatch.diffusion import Tiling


def numbered(count: int, height: int = 2, width: int = 3) -> torch.Tensor:
    """Images whose every value is unlike any other."""
    return torch.arange(count * 3 * height * width, dtype=torch.float32).view(count, 3, height, width)


@given(st.integers(0, 20), st.integers(1, 3), st.integers(1, 3))
def test_round_trip(count: int, rows: int, columns: int):
    if count == 0 and rows * columns > 1:
        return  # a shard has an image at least
    tiling = Tiling(rows, columns)
    images = numbered(count)
    canvases = tiling.pack(images)
    assert canvases.shape == (-(-count // (rows * columns)), 3, rows * 2, columns * 3)
    assert torch.equal(tiling.unpack(canvases, count), images)


def test_slots_in_reading_order():
    tiling, images = Tiling(2, 3), numbered(8)
    canvases = tiling.pack(images).numpy()
    for i in range(8):
        canvas, slot = divmod(i, 6)
        row, column = divmod(slot, 3)
        place = canvases[canvas, :, row * 2 : row * 2 + 2, column * 3 : column * 3 + 3]
        assert np.array_equal(place, images[i].numpy())


@pytest.mark.parametrize(
    ("count", "last"), [(5, [4, 4, 4, 4]), (6, [4, 5, 4, 5]), (7, [4, 5, 6, 4]), (8, [4, 5, 6, 7]), (1, [0, 0, 0, 0])]
)
def test_left_over_slots_repeat_the_last_canvas(count: int, last: list[int]):
    """No black and no images of another canvas, whose neighbours they would then change."""
    tiling, images = Tiling(2, 2), numbered(count, 2, 2)
    canvas = tiling.pack(images)[-1:]
    assert torch.equal(tiling.unpack(canvas, 4), images[last])


def test_dark_images_survive():
    tiling = Tiling(2, 2)
    images = torch.cat([torch.full((1, 3, 2, 2), -1.0), numbered(2, 2, 2), torch.full((2, 3, 2, 2), -1.0)])
    back = tiling.unpack(tiling.pack(images), 5)
    assert torch.equal(back, images)


def test_argument_is_not_modified():
    images = numbered(3)
    before = images.clone()
    Tiling(2, 2).pack(images).zero_()
    assert torch.equal(images, before)


def test_images_in_another_memory_layout():
    images = numbered(8, 4, 4).contiguous(memory_format=torch.channels_last)
    assert torch.equal(Tiling(2, 2).unpack(Tiling(2, 2).pack(images), 8), images)


@pytest.mark.parametrize(
    ("height", "width", "canvas", "rows", "columns"),
    [(32, 32, 256, 8, 8), (256, 256, 256, 1, 1), (32, 64, 256, 8, 4), (1, 1, 4, 4, 4)],
)
def test_fit(height: int, width: int, canvas: int, rows: int, columns: int):
    tiling = Tiling.fit(height, width, canvas)
    assert tiling == Tiling(rows, columns)
    assert tiling.slots == rows * columns


@pytest.mark.parametrize(("height", "width"), [(48, 48), (32, 48), (48, 32), (512, 512), (257, 256), (256, 257)])
def test_sizes_that_do_not_tile(height: int, width: int):
    with pytest.raises(ValueError, match=f"{width}x{height} pixels neither equals nor tiles the prior's 256x256"):
        Tiling.fit(height, width, 256)
