"""The cosine transform against a direct sum, and the triggers that are its coefficients."""

from __future__ import annotations

import math

import numpy as np
import pytest

from zipbatch.attacks.frequency import POSITIONS, coefficient_pattern, cosine_basis


def direct(pixels: np.ndarray, k: int, m: int) -> float:
    """One coefficient of the orthonormal two-dimensional DCT-II, summed term by term."""
    size = len(pixels)
    total = 0.0
    for i in range(size):
        for j in range(size):
            wave = math.cos(math.pi * (2 * i + 1) * k / (2 * size)) * math.cos(math.pi * (2 * j + 1) * m / (2 * size))
            total += float(pixels[i, j]) * wave
    return total * math.sqrt((2 - (k == 0)) / size) * math.sqrt((2 - (m == 0)) / size)


@pytest.mark.parametrize("size", [1, 2, 7, 32])
def test_the_basis_is_orthonormal(size: int):
    basis = cosine_basis(size)
    assert np.abs(basis @ basis.T - np.eye(size)).max() < 1e-12
    assert basis[0] == pytest.approx(np.full(size, size**-0.5))


@pytest.mark.parametrize("size", [3, 8])
def test_transform_is_the_direct_sum(size: int):
    pixels = np.random.default_rng(size).uniform(0, 255, (size, size))
    coefficients = cosine_basis(size) @ pixels @ cosine_basis(size).T
    expected = [[direct(pixels, k, m) for m in range(size)] for k in range(size)]
    assert np.abs(coefficients - expected).max() < 1e-9


@pytest.mark.parametrize("size", [32, 33, 64])
def test_a_pattern_is_two_coefficients(size: int):
    pattern = coefficient_pattern(size, 30.0)
    assert pattern.dtype == np.float32
    coefficients = cosine_basis(size) @ pattern @ cosine_basis(size).T
    expected = np.zeros((size, size))
    expected[POSITIONS, POSITIONS] = 30
    assert np.abs(coefficients - expected).max() < 1e-4
    assert [direct(pattern, k, k) for k in (15, 31)] == pytest.approx([30, 30], abs=1e-4)


def test_magnitude_scales_the_pattern():
    assert coefficient_pattern(32, 60.0) == pytest.approx(2 * coefficient_pattern(32, 30.0))
    assert (coefficient_pattern(32, 0.0) == 0).all()


@pytest.mark.parametrize("size", [1, 16, 31])
def test_too_small_for_the_frequencies(size: int):
    with pytest.raises(ValueError, match=f"frequencies 15 and 31, which need images of 32 px or more, got {size} px"):
        coefficient_pattern(size, 30.0)
