"""Pixel domains: what goes in comes back, and nothing else becomes a picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zipbatch.pixels import Domain, from_u8, to_u8

LEVELS = torch.arange(256, dtype=torch.uint8)
EVERY = pytest.mark.parametrize("domain", ["unit", "model"])


@EVERY
def test_every_level_comes_back(domain: Domain):
    assert torch.equal(to_u8(from_u8(LEVELS, domain), domain), LEVELS)


@EVERY
def test_every_level_survives_a_little_noise(domain: Domain):
    step = 1 / 255 if domain == "unit" else 2 / 255
    for sign in (-1, 1):
        assert torch.equal(to_u8(from_u8(LEVELS, domain) + sign * 0.49 * step, domain), LEVELS)
        neighbours = (LEVELS.int() + sign).clamp(0, 255).to(torch.uint8)
        assert torch.equal(to_u8(from_u8(LEVELS, domain) + sign * 0.51 * step, domain), neighbours)


def test_domains_are_what_they_are_called():
    levels = np.arange(256) / 255
    assert np.allclose(from_u8(LEVELS, "unit").numpy(), levels, atol=1e-7)
    assert np.allclose(from_u8(LEVELS, "model").numpy(), 2 * levels - 1, atol=2e-7)
    ends = torch.tensor([0, 255], dtype=torch.uint8)
    assert from_u8(ends, "unit").tolist() == [0, 1]
    assert from_u8(ends, "model").tolist() == [-1, 1]


@EVERY
@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 3, 4, 4), (5,), ()])
def test_shape_and_dtype(domain: Domain, shape: tuple[int, ...]):
    floats = from_u8(torch.zeros(shape, dtype=torch.uint8), domain)
    assert (floats.shape, floats.dtype) == (shape, torch.float32)
    pixels = to_u8(floats, domain)
    assert (pixels.shape, pixels.dtype) == (shape, torch.uint8)


@EVERY
@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_any_finite_value_is_clipped(domain: Domain, value: float):
    unit = value if domain == "unit" else (value + 1) / 2
    assert abs(int(to_u8(torch.tensor([value]), domain)[0]) - min(1, max(0, unit)) * 255) <= 0.5 + 1e-4


def test_ties_round_to_even():
    # these halves are exact in float64
    halves = torch.tensor([0.5, 1.5, 2.5, 3.5, 126.5, 127.5, 253.5, 254.5], dtype=torch.float64)
    unit = halves / 255
    exact = unit * 255 == halves
    assert exact.sum() >= 6
    assert to_u8(unit[exact], "unit").tolist() == np.rint(halves[exact].numpy()).astype(int).tolist()


@EVERY
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_no_picture(domain: Domain, value: float):
    pixels = torch.zeros(2, 3, 4, 4)
    pixels[1, 2, 3, 0] = value
    with pytest.raises(ValueError, match="not finite"):
        to_u8(pixels, domain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.int8, torch.bool])
def test_only_u8_goes_in(dtype: torch.dtype):
    with pytest.raises(ValueError, match="expected uint8"):
        from_u8(torch.zeros(3, dtype=dtype), "unit")
