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


# ---- off the block grid


def mirrored(x: np.ndarray, row: int, column: int) -> np.ndarray:
    """The pixel there, where places beyond an edge mean those before it."""
    height, width = x.shape[-2:]
    row, column = (2 * (n - 1) - i if i >= n else abs(i) for i, n in ((row, height), (column, width)))
    return x[..., row, column]


def shifted_blur(x: np.ndarray, side: int, top: int, left: int) -> np.ndarray:
    """Block means of a grid that begins ``top`` rows and ``left`` columns before the image, by the definition."""
    made = np.empty_like(x)
    for row in range(x.shape[-2]):
        for column in range(x.shape[-1]):
            first, start = (row + top) // side * side - top, (column + left) // side * side - left
            block = [mirrored(x, first + i, start + j) for i in range(side) for j in range(side)]
            made[..., row, column] = np.mean(block, axis=0)
    return made


@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_the_mean_of_all_shifts_is_the_mean_of_all_shifts(side: int):
    x = random_images(6)
    every = [shifted_blur(x.numpy(), side, top, left) for top in range(side) for left in range(side)]
    got = parse_projector(f"blur:{side}@mean").apply(x).numpy()
    assert np.allclose(got, np.mean(every, axis=0), atol=1e-12)


def test_a_place_is_drawn_for_each_key():
    keys = [f"k{i}" for i in range(40)]
    x = random_images(7)[:1].repeat(40, 1, 1, 1)
    project = parse_projector("blur:3@key").with_keys(5, keys).apply
    every = {(top, left): shifted_blur(x[:1].numpy(), 3, top, left)[0] for top in range(3) for left in range(3)}
    found = [next(place for place, made in every.items() if np.allclose(made, one)) for one in project(x).numpy()]
    assert set(found) == set(every), "all nine places come"
    some = [31, 4, 17]
    alone = parse_projector("blur:3@key").with_keys(5, [keys[i] for i in some]).apply(x[some])
    assert torch.allclose(alone, project(x)[some]), "whatever shares the batch"
    other = parse_projector("blur:3@key").with_keys(6, keys).apply(x)
    assert not torch.allclose(other, project(x)), "and another one with another seed"


def test_a_gaussian_by_its_definition():
    x, sigma = random_images(8), 0.8
    weights = np.exp(-0.5 * (np.arange(-3, 4) / sigma) ** 2)
    weights /= weights.sum()
    expected = np.zeros_like(x.numpy())
    for row in range(SHAPE[2]):
        for column in range(SHAPE[3]):
            for i in range(-3, 4):
                for j in range(-3, 4):
                    pixel = mirrored(x.numpy(), row + i, column + j)
                    expected[..., row, column] += weights[i + 3] * weights[j + 3] * pixel
    assert np.allclose(parse_projector("gauss:0.8").apply(x).numpy(), expected, atol=1e-12)


def test_low_frequencies_by_the_cosine_transform():
    x = random_images(9)

    def transform(side: int) -> np.ndarray:
        k, n = np.mgrid[:side, :side]
        c = np.cos(np.pi * k * (2 * n + 1) / (2 * side)) * np.sqrt(2 / side)
        c[0] /= np.sqrt(2)
        return c

    down, across = transform(SHAPE[2]), transform(SHAPE[3])
    spectrum = down @ x.numpy() @ across.T
    spectrum[..., 4:, :] = spectrum[..., :, 6:] = 0
    assert np.allclose(parse_projector("dct:2").apply(x).numpy(), down.T @ spectrum @ across, atol=1e-12)
    project, y = parse_projector("dct:3").apply, random_images(10)
    assert torch.allclose(project(project(x)), project(x), atol=1e-12)
    assert torch.allclose((project(x) * y).sum(), (x * project(y)).sum(), atol=1e-9)
    assert torch.equal(parse_projector("dct:1").apply(x).round(decimals=9), x.round(decimals=9))


@pytest.mark.parametrize("name", ["blur:3@mean", "blur:3@key", "gauss:1.5", "dct:3"])
def test_they_are_linear_and_keep_what_is_flat(name: str):
    project = parse_projector(name).with_keys(1, ["a", "b"]).apply
    x, y = random_images(11), random_images(12)
    assert torch.allclose(project(2 * x - 3 * y), 2 * project(x) - 3 * project(y), atol=1e-12)
    flat = torch.full(SHAPE, 0.3, dtype=torch.float64)
    assert torch.allclose(project(flat), flat, atol=1e-12)
    assert project(x.float()).dtype == torch.float32


@pytest.mark.parametrize(("name", "least"), [("blur:5@mean", 5), ("blur:5@key", 5), ("gauss:2", 7), ("dct:9", 9)])
def test_images_that_are_too_small_for_them(name: str, least: int):
    parse_projector(name).check(least, least + 1)
    with pytest.raises(ValueError, match="too small"):
        parse_projector(name).check(least + 1, least - 1)


@pytest.mark.parametrize(
    "text", ["blur:2@", "blur:0@key", "gauss:0", "gauss:", "gauss:-1", "dct:0", "dct:2.5", "gauss:101"]
)
def test_other_unknown_names(text: str):
    with pytest.raises(ValueError, match=r"unknown transform|needs a sigma"):
        parse_projector(text)
