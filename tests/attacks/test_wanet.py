"""WaNet against restatements in numpy, and the two kinds of field it can make."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.attacks.stamping import stamp
from zipbatch.attacks.wanet import WaNet, WaNetSettings

SEED = 1234


def sample_bilinear(images: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Bilinear sampling of uint8 [B, S, S, 3] at ``grid``, zeros outside, corners aligned: levels, float64."""
    size = images.shape[1]
    x, y = ((grid[..., axis].astype(np.float64) + 1) / 2 * (size - 1) for axis in (0, 1))
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    total = np.zeros(images.shape, np.float64)
    for row, weight_y in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, weight_x in ((left, 1 - (x - left)), (left + 1, x - left)):
            inside = (row >= 0) & (row < size) & (column >= 0) & (column < size)
            corner = images[:, row.clip(0, size - 1), column.clip(0, size - 1)]
            total += (weight_x * weight_y * inside)[None, :, :, None] * corner
    return total


def cubic(distance: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -0.75 (Keys 1981)."""
    a, d = -0.75, np.abs(distance)
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * (d**3 - 5 * d**2 + 8 * d - 4)
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def resize_matrix(before: int, after: int) -> np.ndarray:
    """[after, before] weights of bicubic resizing, corners aligned, edges repeated."""
    matrix = np.zeros((after, before))
    for i, place in enumerate(np.arange(after) * (before - 1) / (after - 1)):
        for tap in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
            matrix[i, min(max(tap, 0), before - 1)] += cubic(np.array(place - tap))
    return matrix


def displacement(grid: np.ndarray) -> np.ndarray:
    """How far each pixel is moved, in pixels [S, S, 2]."""
    size = len(grid)
    axis = np.linspace(-1, 1, size)
    identity = np.stack(np.broadcast_arrays(axis[None, :], axis[:, None]), axis=2)
    return (grid - identity) * (size - 1) / 2


@pytest.mark.parametrize(("size", "k"), [(16, 4), (32, 4), (32, 8)])
def test_grid_is_a_resized_control_field(size: int, k: int):
    control = torch.rand(1, 2, k, k, generator=torch.Generator().manual_seed(SEED)).double().numpy()[0] * 2 - 1
    control /= np.abs(control).mean()
    matrix = resize_matrix(k, size)
    flow = np.stack([matrix @ plane @ matrix.T for plane in control], axis=2)
    axis = np.linspace(-1, 1, size)
    identity = np.stack(np.broadcast_arrays(axis[None, :], axis[:, None]), axis=2)
    expected = np.clip(identity + 0.5 * flow / size, -1, 1)
    grid = WaNet(WaNetSettings(grid_size=k)).make_trigger(size, seed=SEED)["grid"]
    assert grid.shape == (size, size, 2)
    assert np.abs(grid - expected).max() < 2e-6


@pytest.mark.parametrize("reach", [1.0, 1.4])
def test_sampling(reach: float):
    """Within the image and beyond its edge, where zeros are mixed in."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 24, 24, 3)).astype(np.uint8)
    grid = rng.uniform(-reach, reach, (24, 24, 2)).astype(np.float32)
    expected = sample_bilinear(images, grid)
    warped = stamp(WaNet(), images, {"grid": grid})
    assert warped.dtype == np.uint8
    assert np.abs(warped - expected).max() <= 0.5 + 1e-3
    clear = np.abs(expected % 1 - 0.5) > 1e-3
    assert clear.mean() > 0.99
    assert np.array_equal(warped[clear], np.rint(expected[clear]))
    assert (reach > 1) == bool((expected == 0).all(axis=(0, 3)).any())


def test_ties_round_to_even():
    """Midway between two neighbouring levels, where float32 holds the tie exactly, the even one is taken."""
    low = np.arange(255, dtype=np.uint8)
    unit = np.arange(256, dtype=np.float32) / np.float32(255)
    middle = (unit[:-1] * np.float32(0.5) + unit[1:] * np.float32(0.5)) * np.float32(255)
    exact = middle == low + 0.5
    assert exact.sum() > 50
    images = np.zeros((255, 3, 3, 3), np.uint8)
    images[:, :, 0], images[:, :, 1] = low[:, None, None], low[:, None, None] + 1
    grid = np.zeros((3, 3, 2), np.float32)
    grid[..., 0] = -0.5  # column 0.5
    warped = stamp(WaNet(), images, {"grid": grid})
    expected = low + (low % 2)
    assert (warped == warped[:, :1, :1, :1]).all()
    assert np.array_equal(warped[exact, 0, 0, 0], expected[exact])


def test_warp_of_a_ramp_reads_off_the_displacement():
    """An image whose level is its column comes out as the column each pixel was read from."""
    size = 32
    ramp = np.broadcast_to(np.arange(size, dtype=np.uint8)[None, :, None] * 8, (size, size, 3))[None].copy()
    attack = WaNet(WaNetSettings(strength=4.0))
    trigger = attack.make_trigger(size, seed=SEED)
    moved = stamp(attack, ramp, trigger)[0, :, :, 0].astype(float) / 8 - np.arange(size)
    assert np.abs(moved - displacement(trigger["grid"])[..., 0]).max() < 0.1
    assert np.abs(moved).max() > 1


@pytest.mark.parametrize(("k", "rms", "top", "correlation"), [(4, 0.21, 0.6, 1.0), (256, 0.288, 0.498, 0.002)])
def test_published_statistics_at_256(k: int, rms: float, top: float, correlation: float):
    """k = 4 is a smooth warp; k = 256 is independent jitter of each pixel."""
    grid = WaNet(WaNetSettings(grid_size=k)).make_trigger(256, seed=SEED)["grid"]
    moved = displacement(grid)[1:-1, 1:-1]  # edges are clamped
    assert np.sqrt((moved**2).mean()) == pytest.approx(rms, abs=0.01)
    assert np.abs(moved).max() <= top + 0.005
    for axis in (0, 1):
        neighbours = np.corrcoef(moved[:, :-1, axis].ravel(), moved[:, 1:, axis].ravel())[0, 1]
        assert neighbours == pytest.approx(correlation, abs=0.02)


def test_published_statistics_at_32():
    moved = displacement(WaNet(WaNetSettings(grid_size=256)).make_trigger(32, seed=SEED)["grid"])
    assert np.sqrt((moved**2).mean()) == pytest.approx(0.24, abs=0.03)


def test_grid_stays_on_the_image():
    grid = WaNet(WaNetSettings(strength=50.0)).make_trigger(16, seed=SEED)["grid"]
    assert (grid.min(), grid.max()) == (-1, 1)


@pytest.mark.parametrize("k", [1, 0, -4])
def test_grid_size_of_one_is_no_warp(k: int):
    with pytest.raises(ValueError, match="grid_size\n  Input should be greater than or equal to 2"):
        WaNet(WaNetSettings(grid_size=k))
