"""DDIM sampling (Song et al. 2021, arXiv 2010.02502) and its guided form, ZIP's update (arXiv 2303.12175)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
from torch import Tensor

AlphaBar = npt.NDArray[np.float64]
Guide = Callable[[Tensor], Tensor]
PredictEps = Callable[[Tensor, int], Tensor]
NoiseAt = Callable[[int], Tensor]


def timesteps(training_steps: int, steps: int, start_step: int) -> list[tuple[int, int]]:
    """(t, next t) of each network call: t = (S-1)d, …, d, 0 below ``start_step``, with d = T // S; the last next is -1.

    Raises:
        ValueError: ``steps`` is not in [1, T] or ``start_step`` is below 1.
    """
    if not 1 <= steps <= training_steps:
        raise ValueError(f"steps must be in [1, {training_steps}], got {steps}")
    if start_step < 1:
        raise ValueError(f"start step must be 1 or more, got {start_step}")
    stride = training_steps // steps
    grid = [t for t in range((steps - 1) * stride, -1, -stride) if t < start_step]
    return list(zip(grid, [*grid[1:], -1], strict=True))


def _alpha_bar_at(alpha_bar: AlphaBar, t: int) -> float:
    return 1.0 if t == -1 else float(alpha_bar[t])


def ddim_step(
    x_t: Tensor, eps: Tensor, *, t: int, t_next: int, alpha_bar: AlphaBar, guide: Guide, noise: Tensor, eta: float
) -> Tensor:
    """Move a batch one guided DDIM step (Song et al. 2021, eq. 12) from ``t`` to ``t_next``.

    ``guide`` pulls the clean estimate back to what the suspect image still says once its trigger is blurred away
    (ZIP). Pure: no RNG, no I/O, no argument is modified, and row ``i`` of the result depends on row ``i`` of the
    inputs alone.

    Shapes: B batch, C channels, H x W pixels, T training timesteps.

    Args:
        x_t: state at ``t``, float32 [B, C, H, W], model units (clean pixels span [-1, 1]).
        eps: the prior's noise estimate at ``t``, [B, C, H, W].
        t: current timestep, 0 <= t < T.
        t_next: timestep to reach; -1 means the clean image.
        alpha_bar: cumulative signal variance, float64 [T], decreasing within (0, 1).
        guide: clean estimate [B, C, H, W] -> guided clean estimate, same shape.
        noise: standard normal [B, C, H, W].
        eta: 0 is deterministic, 1 has DDPM's variance.

    Returns:
        State at ``t_next``, shape and dtype of ``x_t``; at ``t_next == -1`` exactly the guided estimate.

    Raises:
        ValueError: ``t_next`` is not in [-1, t), or shapes differ.
    """
    if not -1 <= t_next < t < len(alpha_bar):
        raise ValueError(f"need -1 <= t_next < t < {len(alpha_bar)}, got t={t}, t_next={t_next}")
    if not x_t.shape == eps.shape == noise.shape:
        raise ValueError(f"shapes differ: x_t {x_t.shape}, eps {eps.shape}, noise {noise.shape}")
    ab_t, ab_next = _alpha_bar_at(alpha_bar, t), _alpha_bar_at(alpha_bar, t_next)
    x_0 = guide((x_t - math.sqrt(1 - ab_t) * eps) / math.sqrt(ab_t))
    if t_next == -1:
        return x_0
    sigma = eta * math.sqrt((1 - ab_next) / (1 - ab_t)) * math.sqrt(1 - ab_t / ab_next)
    direction = math.sqrt(max(0.0, 1 - ab_next - sigma**2))
    return math.sqrt(ab_next) * x_0 + direction * eps + sigma * noise


def diffuse(x_0: Tensor, noise: Tensor, *, t: int, alpha_bar: AlphaBar) -> Tensor:
    """Clean images at timestep ``t``, 0 <= t < T: a draw of q(x_t | x_0) (Ho et al. 2020, eq. 4). Shapes as in x_0."""
    ab = float(alpha_bar[t])
    return math.sqrt(ab) * x_0 + math.sqrt(1 - ab) * noise


def clipped(predict_eps: PredictEps, alpha_bar: AlphaBar) -> PredictEps:
    """An epsilon predictor whose clean estimate stays within [-1, 1].

    The estimate is clipped and the noise that goes with it is worked out again, so that a step with eta 1 has the
    mean of DDPM's posterior given the clipped estimate (Ho et al. 2020, eq. 7), as the published samplers do it.
    An estimate that is not finite stays so: it is an error to report, not a pixel to clip.
    """

    def predict(x_t: Tensor, t: int) -> Tensor:
        signal, noise = math.sqrt(float(alpha_bar[t])), math.sqrt(1 - float(alpha_bar[t]))
        x_0 = (x_t - noise * predict_eps(x_t, t)) / signal
        x_0 = x_0.clamp(-1, 1).where(x_0.isfinite(), x_0)
        return (x_t - signal * x_0) / noise

    return predict


def denoise(
    predict_eps: PredictEps,
    x: Tensor,
    *,
    schedule: Sequence[tuple[int, int]],
    alpha_bar: AlphaBar,
    guide_at: Callable[[int, Tensor], Tensor],
    eta: float,
    noise_at: NoiseAt,
) -> Tensor:
    """Take a batch through all steps of a schedule.

    Args:
        predict_eps: (state [B, C, H, W], t) -> noise estimate of that shape.
        x: state at the schedule's first timestep, float32 [B, C, H, W], model units.
        schedule: of ``timesteps``.
        alpha_bar: the prior's schedule, float64 [T].
        guide_at: (t, clean estimate) -> guided clean estimate, same shape.
        eta: as in ``ddim_step``.
        noise_at: t -> standard normal of x's shape; asked only where a step adds noise.

    Returns:
        Clean images, float32 [B, C, H, W], model units, not clipped.
    """
    for t, t_next in schedule:
        noise = noise_at(t) if eta and t_next >= 0 else x.new_zeros(()).expand_as(x)
        eps, guide = predict_eps(x, t), partial(guide_at, t)
        x = ddim_step(x, eps, t=t, t_next=t_next, alpha_bar=alpha_bar, guide=guide, noise=noise, eta=eta)
    return x


def guided_sample(
    predict_eps: PredictEps,
    y: Tensor,
    *,
    alpha_bar: AlphaBar,
    project: Callable[[Tensor], Tensor],
    guidance_exponent: float,
    steps: int,
    start_step: int,
    eta: float,
    noise_at: NoiseAt,
) -> Tensor:
    """Paint suspect images anew from noise, held to what ``project`` leaves of them (DESIGN, "The method").

    Args:
        predict_eps: (state [B, C, H, W], t) -> noise estimate of that shape.
        y: suspect images, float32 [B, C, H, W], model units.
        alpha_bar: the prior's schedule, float64 [T].
        project: mean of the projectors, [B, C, H, W] -> the same.
        guidance_exponent: k; the pull at t is ``1 - alpha_bar[t] ** k``, with ``math.inf`` 1 at every step.
        steps: S, sampling steps over the whole schedule.
        start_step: t0; below T the loop starts at the first t < t0 from the noised projection, else from pure noise.
        eta: as in ``ddim_step``.
        noise_at: counter -> standard normal of y's shape; called with T for the start and with t in the loop.

    Returns:
        Purified images, float32 [B, C, H, W], model units, not clipped.
    """
    training_steps = len(alpha_bar)
    schedule = timesteps(training_steps, steps, start_step)
    x = noise_at(training_steps)
    if start_step < training_steps:
        x = diffuse(project(y), x, t=schedule[0][0], alpha_bar=alpha_bar)

    def guide_at(t: int, x_0: Tensor) -> Tensor:
        pull: float = 1 - float(alpha_bar[t]) ** guidance_exponent
        return x_0 + pull * project(y - x_0)

    return denoise(
        predict_eps, x, schedule=schedule, alpha_bar=alpha_bar, guide_at=guide_at, eta=eta, noise_at=noise_at
    )
