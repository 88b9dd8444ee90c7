"""Fewer bits a channel against whole numbers."""

from __future__ import annotations

import pytest
import torch

from zipbatch.purifiers import Resources
from zipbatch.purifiers.bitdepth import BitDepth
from zipbatch.purifiers.settings import BitDepthSettings

EVERY_VALUE = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 3, -1, -1).contiguous()


def rounded(images: torch.Tensor, **settings: int) -> torch.Tensor:
    return BitDepth(BitDepthSettings(**settings), Resources(device=torch.device("cpu")))(images, ["a"] * len(images))


@pytest.mark.parametrize("bits", range(1, 9))
def test_every_value_goes_to_the_nearest_level(bits: int):
    """round(round(v L / 255) 255 / L) with L = 2^bits - 1, on whole numbers; there are no ties, L being odd."""
    top = 2**bits - 1
    levels = [(2 * value * top + 255) // 510 for value in range(256)]
    expected = [(510 * level + top) // (2 * top) for level in levels]
    before = EVERY_VALUE.clone()
    got = rounded(EVERY_VALUE, bits=bits)
    assert got[0, 1].flatten().tolist() == expected
    assert len(set(expected)) == 2**bits
    assert torch.equal(EVERY_VALUE, before)


def test_the_default_leaves_eight_levels():
    assert rounded(EVERY_VALUE).unique().tolist() == [0, 36, 73, 109, 146, 182, 219, 255]


@pytest.mark.parametrize("bits", [0, 9, 2.5, "x"])
def test_wrong_bits(bits: object):
    with pytest.raises(ValueError, match="validation error"):
        BitDepthSettings(bits=bits)  # type: ignore[arg-type]
