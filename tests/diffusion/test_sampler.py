"""The sampler against DESIGN's update written out in numpy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.diffusion.test_projectors import expected_projection
from zipbatch.diffusion import (
    clipped,
    ddim_step,
    denoise,
    diffuse,
    guided_sample,
    mean_projection,
    parse_projector,
    timesteps,
)

T = 1000
ALPHA_BAR = np.cumprod(1 - np.linspace(1e-4, 0.02, T))
SHAPE = (2, 3, 8, 8)


def eps_of(x: np.ndarray | Tensor, t: int) -> np.ndarray:
    """A made-up network: bounded, nonlinear, different for each t, row by row."""
    x = np.asarray(x, np.float64)
    return np.tanh(0.7 * x + 0.1 * np.roll(x, 1, axis=3)) + 0.2 * math.sin(t)


def noise_of(counter: int) -> np.ndarray:
    return np.random.default_rng(counter).standard_normal(SHAPE)


def suspect() -> np.ndarray:
    return np.random.default_rng(99).uniform(-1, 1, SHAPE)


def sample_by_hand(
    y: np.ndarray,
    *,
    transforms: Sequence[str],
    k: float,
    steps: int,
    start_step: int,
    eta: float,
    noise: Callable[[int], np.ndarray] = noise_of,
) -> np.ndarray:
    """DESIGN's "The method, in one update", line by line in float64."""

    def project(image: np.ndarray) -> np.ndarray:
        return np.mean([expected_projection(name, image) for name in transforms], axis=0)

    d = T // steps
    grid = [i * d for i in reversed(range(steps)) if i * d < start_step]
    z = noise(T)
    first = ALPHA_BAR[grid[0]]
    x = z if start_step >= T else first**0.5 * project(y) + (1 - first) ** 0.5 * z
    for t, n in zip(grid, [*grid[1:], -1], strict=True):
        ab_t, ab_n = ALPHA_BAR[t], 1.0 if n == -1 else ALPHA_BAR[n]
        e = eps_of(x, t)
        x0 = (x - (1 - ab_t) ** 0.5 * e) / ab_t**0.5
        x0 = x0 + (1 - ab_t**k) * project(y - x0)
        s = eta * ((1 - ab_n) / (1 - ab_t)) ** 0.5 * (1 - ab_t / ab_n) ** 0.5
        x = ab_n**0.5 * x0 + max(0, 1 - ab_n - s**2) ** 0.5 * e + s * noise(t)
    return x


def sample(
    y: np.ndarray,
    *,
    transforms: Sequence[str],
    k: float,
    steps: int,
    start_step: int,
    eta: float,
    dtype: torch.dtype = torch.float64,
) -> np.ndarray:
    """The same through the project's sampler."""
    x = guided_sample(
        lambda x_t, t: torch.from_numpy(eps_of(x_t, t)).to(dtype),
        torch.from_numpy(y).to(dtype),
        alpha_bar=ALPHA_BAR,
        project=mean_projection([parse_projector(name) for name in transforms]),
        guidance_exponent=k,
        steps=steps,
        start_step=start_step,
        eta=eta,
        noise_at=lambda counter: torch.from_numpy(noise_of(counter)).to(dtype),
    )
    assert x.dtype == dtype
    return x.numpy()


def test_published_schedule():
    calls = timesteps(1000, 20, 1000)
    assert len(calls) == 20
    assert calls[0] == (950, 900)
    assert calls[-2:] == [(50, 0), (0, -1)]
    assert [t for t, _ in calls] == list(range(950, -1, -50))
    assert all(following == after[0] for (_, following), after in pairwise(calls))


@pytest.mark.parametrize(
    ("training_steps", "steps", "start_step", "expected"),
    [
        (1000, 20, 300, [(250, 200), (200, 150), (150, 100), (100, 50), (50, 0), (0, -1)]),
        (1000, 20, 301, [(300, 250), (250, 200), (200, 150), (150, 100), (100, 50), (50, 0), (0, -1)]),
        (1000, 20, 1, [(0, -1)]),
        (1000, 1, 1000, [(0, -1)]),
        (1000, 3, 5000, [(666, 333), (333, 0), (0, -1)]),
        (4, 4, 4, [(3, 2), (2, 1), (1, 0), (0, -1)]),
    ],
)
def test_schedules(training_steps: int, steps: int, start_step: int, expected: list[tuple[int, int]]):
    assert timesteps(training_steps, steps, start_step) == expected


@pytest.mark.parametrize(
    ("steps", "start_step", "message"),
    [(0, 1000, r"steps must be in \[1, 1000\], got 0"), (1001, 1000, "got 1001"), (20, 0, "start step .* got 0")],
)
def test_impossible_schedules(steps: int, start_step: int, message: str):
    with pytest.raises(ValueError, match=message):
        timesteps(1000, steps, start_step)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("k", [0.98, 1.0, 3.0, 10.0])
@pytest.mark.parametrize("start_step", [1000, 300, 1])
def test_update_of_the_design(eta: float, k: float, start_step: int):
    settings = {"transforms": ["blur:2", "gray"], "k": k, "steps": 20, "start_step": start_step, "eta": eta}
    assert np.abs(sample(suspect(), **settings) - sample_by_hand(suspect(), **settings)).max() < 1e-9


@pytest.mark.parametrize(
    "transforms", [["blur:1"], ["blur:4"], ["gray"], ["blur:2", "blur:1"], ["blur:2", "gray", "blur:4"]]
)
@pytest.mark.parametrize("steps", [1, 7, 50])
def test_projectors_and_steps(transforms: list[str], steps: int):
    settings = {"transforms": transforms, "k": 2.5, "steps": steps, "start_step": 1000, "eta": 0.5}
    assert np.abs(sample(suspect(), **settings) - sample_by_hand(suspect(), **settings)).max() < 1e-9


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("start_step", [1000, 300])
def test_float32_stays_close(eta: float, start_step: int):
    settings = {"transforms": ["blur:2", "gray"], "k": 1.0, "steps": 20, "start_step": start_step, "eta": eta}
    got, expected = sample(suspect(), dtype=torch.float32, **settings), sample_by_hand(suspect(), **settings)
    assert np.abs(got - expected).max() < 1e-5 * max(1, np.abs(expected).max())  # the made-up network reaches 40


def test_noise_is_asked_for_by_step():
    """T for the start, t in the loop, none for the last step, and none but the start's without eta."""
    asked: list[int] = []

    def noise_at(counter: int) -> Tensor:
        asked.append(counter)
        return torch.zeros(SHAPE)

    for eta, expected in ((1.0, [1000, 250, 200, 150, 100, 50]), (0.0, [1000])):
        asked.clear()
        guided_sample(
            lambda x, t: torch.zeros_like(x),
            torch.zeros(SHAPE),
            alpha_bar=ALPHA_BAR,
            project=lambda x: x,
            guidance_exponent=1.0,
            steps=20,
            start_step=300,
            eta=eta,
            noise_at=noise_at,
        )
        assert asked == expected


@pytest.mark.parametrize("t", [0, 400, 999])
def test_diffused_images_have_the_schedules_share_of_noise(t: int):
    got = diffuse(torch.from_numpy(suspect()), torch.from_numpy(noise_of(1)), t=t, alpha_bar=ALPHA_BAR)
    expected = ALPHA_BAR[t] ** 0.5 * suspect() + (1 - ALPHA_BAR[t]) ** 0.5 * noise_of(1)
    assert np.abs(got.numpy() - expected).max() < 1e-12


def test_a_clipped_predictor_agrees_with_its_clipped_estimate():
    """Where the estimate is within [-1, 1] the noise is the network's own; elsewhere it leads to -1 or 1 exactly."""
    t, x = 300, torch.from_numpy(2 * noise_of(1))
    signal, spread = ALPHA_BAR[t] ** 0.5, (1 - ALPHA_BAR[t]) ** 0.5

    def predict(x_t: Tensor, t: int) -> Tensor:
        return torch.from_numpy(eps_of(x_t, t))

    plain, held = predict(x, t), clipped(predict, ALPHA_BAR)(x, t)
    before, after = ((x - spread * eps) / signal for eps in (plain, held))
    inside = before.abs() <= 1
    assert 0.1 < inside.double().mean() < 0.9
    assert (held - plain)[inside].abs().max() < 1e-9
    assert (after - before.clamp(-1, 1)).abs().max() < 1e-9


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_clipping_hides_nothing_that_is_not_finite(value: float):
    eps = torch.zeros(SHAPE)
    eps[1, 2, 3, 4] = value
    held = clipped(lambda _x, _t: eps, ALPHA_BAR)(torch.zeros(SHAPE), 300)
    assert (~held.isfinite()).nonzero().tolist() == [[1, 2, 3, 4]]


def test_full_pull_keeps_the_projection_exactly():
    """k = inf pulls by 1 at every step, the last too: P of the result is P(y)."""
    got = sample(suspect(), transforms=["blur:2"], k=math.inf, steps=20, start_step=1000, eta=0.85)
    assert np.abs(expected_projection("blur:2", got) - expected_projection("blur:2", suspect())).max() < 1e-9
    assert np.abs(got - suspect()).max() > 0.1


def test_the_guide_is_told_the_step():
    told: list[int] = []

    def guide_at(t: int, x_0: Tensor) -> Tensor:
        told.append(t)
        return x_0

    schedule = timesteps(1000, 20, 200)
    denoise(
        lambda x, t: torch.zeros_like(x),
        torch.zeros(SHAPE),
        schedule=schedule,
        alpha_bar=ALPHA_BAR,
        guide_at=guide_at,
        eta=0.0,
        noise_at=lambda t: pytest.fail("no noise without eta"),
    )
    assert told == [150, 100, 50, 0]


def step_inputs() -> dict[str, Tensor]:
    return {name: torch.from_numpy(noise_of(i)).float() for i, name in enumerate(("x_t", "eps", "noise"))}


def test_last_step_is_exactly_the_guided_estimate():
    tensors, answer = step_inputs(), torch.full(SHAPE, 0.25)
    got = ddim_step(**tensors, t=0, t_next=-1, alpha_bar=ALPHA_BAR, guide=lambda x_0: answer, eta=1.0)
    assert torch.equal(got, answer)


def test_full_eta_draws_from_the_posterior():
    """With eta 1 and a stride of 1 the step is DDPM's ancestral one (Ho et al. 2020, eq. 7)."""
    t, tensors = 400, step_inputs()
    got = ddim_step(**tensors, t=t, t_next=t - 1, alpha_bar=ALPHA_BAR, guide=lambda x_0: x_0, eta=1.0)
    x, e, z = (tensors[name].double().numpy() for name in ("x_t", "eps", "noise"))
    alpha = ALPHA_BAR[t] / ALPHA_BAR[t - 1]
    mean = (x - (1 - alpha) / np.sqrt(1 - ALPHA_BAR[t]) * e) / np.sqrt(alpha)
    variance = (1 - ALPHA_BAR[t - 1]) / (1 - ALPHA_BAR[t]) * (1 - alpha)
    assert np.abs(got.numpy() - (mean + np.sqrt(variance) * z)).max() < 1e-5


def test_step_modifies_no_argument():
    tensors = step_inputs()
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    ddim_step(**tensors, t=500, t_next=450, alpha_bar=ALPHA_BAR, guide=lambda x_0: x_0.clamp(-1, 1), eta=1.0)
    assert all(torch.equal(tensors[name], before[name]) for name in tensors)


@pytest.mark.parametrize(("t", "t_next"), [(5, 5), (5, 6), (5, -2), (1000, 950), (-1, -1)])
def test_steps_go_down(t: int, t_next: int):
    with pytest.raises(ValueError, match=f"got t={t}, t_next={t_next}"):
        ddim_step(**step_inputs(), t=t, t_next=t_next, alpha_bar=ALPHA_BAR, guide=lambda x_0: x_0, eta=1.0)


@pytest.mark.parametrize("name", ["x_t", "eps", "noise"])
def test_shapes_must_match(name: str):
    tensors = step_inputs()
    tensors[name] = tensors[name][:1]
    with pytest.raises(ValueError, match="shapes differ"):
        ddim_step(**tensors, t=500, t_next=450, alpha_bar=ALPHA_BAR, guide=lambda x_0: x_0, eta=1.0)
