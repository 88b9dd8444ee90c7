"""What the prior cannot explain: its score and regions, filled and repainted; by hand on small arrays."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.diffusion.test_sampler import ALPHA_BAR, T
from zipbatch.diffusion import filled, regions, repainted, residual_at, unexplained


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def mean_of_neighbours(plane: np.ndarray) -> np.ndarray:
    height, width = plane.shape
    return np.array(
        [[plane[max(0, i - 1) : i + 2, max(0, j - 1) : j + 2].mean() for j in range(width)] for i in range(height)]
    )


def test_the_residual_is_the_image_less_the_estimate():
    """A prior that says "all noise" estimates x_t / signal - noise: with the very noise, the residual is 0."""
    y, noise = drawn(2, 3, 8, 8).clamp(-0.9, 0.9), drawn(2, 3, 8, 8, seed=1)
    knows = residual_at(lambda _x, _t: noise, y, t=300, alpha_bar=ALPHA_BAR, noise=noise)
    assert knows.abs().max() < 1e-5
    blind = residual_at(lambda x, _t: torch.zeros_like(x), y, t=300, alpha_bar=ALPHA_BAR, noise=noise)
    ab = float(ALPHA_BAR[300])
    seen = (y + math.sqrt((1 - ab) / ab) * noise).clamp(-1, 1)
    assert (blind - (y - seen)).abs().max() < 1e-5


def test_the_score_is_a_mean_that_keeps_signs_smoothed_twice():
    one, two = drawn(1, 3, 6, 7).double(), drawn(1, 3, 6, 7, seed=1).double()
    got = unexplained([one, two], [0.5, 2.0])
    plane = ((one / 0.5 + two / 2.0) / 2).abs().mean(dim=1)[0].numpy()
    expected = mean_of_neighbours(mean_of_neighbours(plane))
    assert got.shape == (1, 1, 6, 7)
    assert np.abs(got[0, 0].numpy() - expected).max() < 1e-12
    against = unexplained([one, -one], [1.0, 1.0])
    assert against.abs().max() == 0, "estimates that contradict each other say nothing"


def test_regions_grow_from_seeds_and_not_from_elsewhere():
    score = torch.zeros(2, 1, 8, 8)
    score[0, 0, 1:3, 1:6] = 1.5
    score[0, 0, 2, 5] = 3.0  # its seed
    score[0, 0, 3, 6] = 1.5  # by a corner
    score[0, 0, 6, 0:3] = 1.9  # no seed
    mask = regions(score, seed_threshold=2.0, region_threshold=1.0)
    expected = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    expected[0, 0, 1:3, 1:6] = expected[0, 0, 3, 6] = True
    assert torch.equal(mask, expected)
    assert torch.equal(regions(score, seed_threshold=2.0, region_threshold=9.0), score > 2.0), "never less than seeds"
    assert not regions(score, seed_threshold=3.0, region_threshold=1.0).any(), "nothing sticks out"


def grown_step_by_step(score: Tensor, seed: float, region: float) -> Tensor:
    mask, within = score > seed, score > region
    for _ in range(score[0].numel()):
        mask = (torch.nn.functional.max_pool2d(mask.float(), 3, stride=1, padding=1) > 0) & within
    return mask


@pytest.mark.parametrize("level", [0.2, 0.5, 0.8])
def test_regions_are_those_of_growing_step_by_step(level: float):
    """Random fields, dense and sparse, and a region that winds through the whole image."""
    score = torch.rand(6, 1, 20, 24, generator=torch.Generator().manual_seed(int(10 * level)))
    assert torch.equal(
        regions(score, seed_threshold=0.97, region_threshold=level), grown_step_by_step(score, 0.97, level)
    )
    comb = torch.zeros(1, 1, 21, 21)
    comb[0, 0, ::2] = 1.0
    comb[0, 0, 1::4, -1] = comb[0, 0, 3::4, 0] = 1.0
    comb[0, 0, 0, 0] = 2.0
    assert torch.equal(regions(comb, seed_threshold=1.5, region_threshold=0.5), comb > 0.5)


def test_a_hole_is_filled_from_around_it():
    images = torch.full((1, 3, 8, 8), 0.25)
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    images[:, :, 5:, 5:], mask[:, :, 5:, 5:] = 1.0, True
    assert torch.allclose(filled(images, mask), torch.full((1, 3, 8, 8), 0.25))
    ramp = torch.linspace(-1, 1, 8).expand(1, 3, 8, 8).clone()
    middle = torch.zeros_like(mask)
    middle[:, :, :, 3:5] = True
    made = filled(ramp, middle)
    assert torch.equal(made[:, :, :, [0, 1, 2, 5, 6, 7]], ramp[:, :, :, [0, 1, 2, 5, 6, 7]])
    assert torch.allclose(made[0, 0, :, 3], ramp[0, 0, :, 2])
    assert torch.allclose(made[0, 0, :, 4], ramp[0, 0, :, 5])
    everywhere = filled(images, torch.ones_like(mask))
    assert torch.equal(everywhere, torch.zeros_like(images))


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_what_is_not_masked_stays_and_nothing_of_what_was_there_gets_through(eta: float):
    images, mask = drawn(2, 3, 8, 8).clamp(-1, 1), torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    mask[0, :, 2:5, 2:5] = mask[1, :, 6:, 6:] = True

    def paint(suspects: Tensor) -> Tensor:
        return repainted(
            lambda x, _t: 0.3 * x,
            suspects,
            mask,
            filled(suspects, mask),
            alpha_bar=ALPHA_BAR,
            steps=20,
            start_step=min(300, T),
            eta=eta,
            noise_at=lambda counter: drawn(2, 3, 8, 8, seed=counter),
        )

    made = paint(images)
    assert torch.equal(made.masked_select(~mask), images.masked_select(~mask))
    assert torch.equal(paint(images.where(~mask, 1.0)), made), "whatever the masked pixels were"
    assert not torch.equal(made, images)
