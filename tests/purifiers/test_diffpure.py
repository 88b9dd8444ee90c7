"""DiffPure with a made-up network, against the paper's equations written out in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests.diffusion.test_sampler import ALPHA_BAR, T, eps_of
from tests.purifiers.test_diffusion_sampler import canvases, levels, made_up, make_diffpure, model_units, noise_by_hand
from tests.purifiers.test_zip import SIZE, apart, keys, pictures
from zipbatch.purifiers.settings import DiffPureSettings


def diffpure_by_hand(
    y: np.ndarray, noise: Callable[[int], np.ndarray], *, start: int, stride: int, largest: float = 1.0
) -> np.ndarray:
    """DDPM's sampler (Ho et al. 2020, eq. 4 and 7) from the noised image, the clean estimate clipped."""
    grid = [t for t in range(0, T, stride) if t < start][::-1]
    x = ALPHA_BAR[grid[0]] ** 0.5 * y + (1 - ALPHA_BAR[grid[0]]) ** 0.5 * noise(T)
    for t, n in zip(grid, [*grid[1:], None], strict=True):
        x_0 = (x - (1 - ALPHA_BAR[t]) ** 0.5 * eps_of(x, t)) / ALPHA_BAR[t] ** 0.5
        x_0 = np.clip(x_0, -largest, largest)
        if n is None:
            return x_0
        alpha = ALPHA_BAR[t] / ALPHA_BAR[n]
        mean = (
            ALPHA_BAR[n] ** 0.5 * (1 - alpha) / (1 - ALPHA_BAR[t]) * x_0
            + alpha**0.5 * (1 - ALPHA_BAR[n]) / (1 - ALPHA_BAR[t]) * x
        )
        x = mean + ((1 - ALPHA_BAR[n]) / (1 - ALPHA_BAR[t]) * (1 - alpha)) ** 0.5 * noise(t)
    raise AssertionError


def test_published_defaults():
    assert DiffPureSettings().model_dump() == {"steps": None, "eta": 1.0, "start_step": 100}
    prior = made_up()
    assert len(make_diffpure(prior)._schedule) == 100
    assert make_diffpure(prior, steps=100)._schedule == [(t, t - 10) for t in range(90, 0, -10)] + [(0, -1)]


@pytest.mark.parametrize(("settings", "start", "stride"), [({}, 100, 1), ({"steps": 50, "start_step": 300}, 300, 20)])
def test_diffpure_is_ddpm_with_clipping(settings: dict[str, object], start: int, stride: int):
    images, names = pictures(3), keys(3)
    noise = noise_by_hand(5, names, tiled=False)
    expected = levels(diffpure_by_hand(model_units(images), noise, start=start, stride=stride))
    unclipped = levels(diffpure_by_hand(model_units(images), noise, start=start, stride=stride, largest=np.inf))
    assert np.abs(expected - unclipped).max() > 2, "nothing was clipped, so clipping was not tested"
    got = make_diffpure(made_up(), seed=5, **settings)(images, names)
    assert got.dtype == torch.uint8
    assert ((expected > 0) & (expected < 255)).mean() > 0.3
    assert np.abs(got.numpy() - expected).max() <= 0.51


def test_diffpure_without_eta_draws_noise_once():
    """With eta 0 only the start is random, and the steps are DDIM's with the clipped estimate's noise."""
    images, names = pictures(2), keys(2)
    x = model_units(images)
    noise = noise_by_hand(0, names, tiled=False)(T)
    grid = list(range(80, -1, -20))
    x = ALPHA_BAR[80] ** 0.5 * x + (1 - ALPHA_BAR[80]) ** 0.5 * noise
    for t, n in zip(grid, [*grid[1:], None], strict=True):
        signal, spread = ALPHA_BAR[t] ** 0.5, (1 - ALPHA_BAR[t]) ** 0.5
        x_0 = np.clip((x - spread * eps_of(x, t)) / signal, -1, 1)
        ab_n = 1.0 if n is None else ALPHA_BAR[n]
        x = ab_n**0.5 * x_0 + (1 - ab_n) ** 0.5 * (x - signal * x_0) / spread
    got = make_diffpure(made_up(), steps=50, eta=0.0)(images, names)
    assert np.abs(got.numpy() - levels(x)).max() <= 0.51


def test_one_step_of_noise_hardly_changes_the_image():
    images = pictures(2)
    assert apart(make_diffpure(made_up(), start_step=1)(images, keys(2)), images) <= 8


def test_diffpure_works_on_canvases():
    """Four images of 16 px on a prior of 32 px: the loop runs on the canvas, each image's noise is its key's own."""
    images, names = pictures(8), keys(8)
    noise = noise_by_hand(1, names, tiled=True)
    expected = levels(diffpure_by_hand(canvases(model_units(images)), noise, start=100, stride=10))
    got = make_diffpure(made_up(2 * SIZE), seed=1, steps=100)(images, names)
    assert np.abs(canvases(got.numpy()) - expected).max() <= 0.51


@pytest.mark.parametrize("settings", [{"start_step": None}, {"start_step": 0}, {"transforms": ["blur:2"]}])
def test_settings_that_cannot_be(settings: dict[str, object]):
    with pytest.raises(ValueError, match="validation error"):
        DiffPureSettings(**settings)  # type: ignore[arg-type]


def test_more_steps_than_the_prior_has():
    with pytest.raises(ValueError, match=r"steps must be in \[1, 1000\], got 1001"):
        make_diffpure(made_up(), steps=1001)
