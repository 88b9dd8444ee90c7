"""Projectors are what they claim: linear, symmetric, idempotent, and equal to a plain numpy mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zipbatch.diffusion import Projector, mean_projection, parse_projector
from zipbatch.diffusion.projectors import blur

SHAPE = (2, 3, 8, 12)
EVERY = pytest.mark.parametrize("name", ["gray", "blur:1", "blur:2", "blur:4"])


def random_images(seed: int) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def expected_projection(name: str, x: np.ndarray) -> np.ndarray:
    if name == "gray":
        return np.repeat(x.sum(axis=1, keepdims=True) / 3, 3, axis=1)
    side = int(name.removeprefix("blur:"))
    result = np.empty_like(x)
    for row in range(0, x.shape[2], side):
        for column in range(0, x.shape[3], side):
            block = x[:, :, row : row + side, column : column + side]
            result[:, :, row : row + side, column : column + side] = block.mean(axis=(2, 3), keepdims=True)
    return result


@EVERY
def test_projector_is_the_mean_it_names(name: str):
    x = random_images(0)
    assert np.allclose(parse_projector(name).apply(x).numpy(), expected_projection(name, x.numpy()), atol=1e-12)


@EVERY
def test_projector_is_an_orthogonal_projection(name: str):
    project, x, y = parse_projector(name).apply, random_images(1), random_images(2)
    assert torch.allclose(project(project(x)), project(x), atol=1e-12)
    assert torch.allclose((project(x) * y).sum(), (x * project(y)).sum(), atol=1e-9)
    assert torch.allclose(project(2 * x - 3 * y), 2 * project(x) - 3 * project(y), atol=1e-12)
    assert project(x).shape == x.shape


@EVERY
def test_projector_leaves_its_argument(name: str):
    x = random_images(3)
    before = x.clone()
    parse_projector(name).apply(x)
    assert torch.equal(x, before)


def test_blur_one_is_the_identity():
    x = random_images(4)
    assert torch.equal(parse_projector("blur:1").apply(x), x)


def test_mean_of_projectors():
    x = random_images(5)
    names = ["blur:2", "gray", "blur:4"]
    got = mean_projection([parse_projector(name) for name in names])(x).numpy()
    assert np.allclose(got, sum(expected_projection(name, x.numpy()) for name in names) / 3, atol=1e-12)


def test_mean_of_nothing():
    with pytest.raises(ValueError, match="at least one projector"):
        mean_projection([])


@pytest.mark.parametrize(
    ("name", "height", "width", "fits"),
    [
        ("blur:3", 32, 32, False),
        ("blur:4", 32, 30, False),
        ("blur:4", 30, 32, False),
        ("blur:64", 32, 32, False),
        ("blur:3", 33, 30, True),
        ("blur:32", 32, 32, True),
        ("gray", 31, 7, True),
        ("blur:1", 31, 7, True),
    ],
)
def test_blocks_must_divide_the_image(name: str, height: int, width: int, fits: bool):
    projector = parse_projector(name)
    if fits:
        projector.check(height, width)
        return
    with pytest.raises(ValueError, match=rf"{name}: {projector.block} does not divide .* {height} x {width} pixels"):
        projector.check(height, width)


def test_names_are_kept():
    assert [parse_projector(name).name for name in ("gray", "blur:2", "blur:10")] == ["gray", "blur:2", "blur:10"]
    assert isinstance(parse_projector("gray"), Projector)


@pytest.mark.parametrize("text", ["", "grey", "blur", "blur:", "blur:0", "blur:-2", "blur:02", "blur:2.5", "gray:2"])
def test_unknown_names(text: str):
    with pytest.raises(ValueError, match="unknown transform"):
        parse_projector(text)


@pytest.mark.parametrize("factor", [0, -1])
def test_blur_below_one(factor: int):
    with pytest.raises(ValueError, match="1 or more"):
        blur(factor)
