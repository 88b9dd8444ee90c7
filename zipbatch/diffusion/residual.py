"""Where an image holds what the prior cannot explain: the residual of the prior's clean estimates, and its regions.

Shapes: B images, C channels, H x W pixels. A mask is bool [B, 1, H, W], True where the image is not to be trusted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from zipbatch.diffusion.sampler import AlphaBar, NoiseAt, PredictEps, clipped, denoise, diffuse, timesteps

_WINDOW = 3
"""Side in pixels of the means over neighbours, and of what counts as connected."""


def residual_at(predict_eps: PredictEps, y: Tensor, *, t: int, alpha_bar: AlphaBar, noise: Tensor) -> Tensor:
    """An image less the prior's clean estimate of it, seen through the noise of timestep ``t``.

    Args:
        predict_eps: (state [B, C, H, W], t) -> noise estimate of that shape.
        y: images, float32 [B, C, H, W], model units.
        t: 0 <= t < T; the larger, the less the estimate knows of what it is compared with.
        alpha_bar: the prior's schedule, float64 [T].
        noise: standard normal of y's shape.

    Returns:
        float32 [B, C, H, W], model units; the estimate is clipped to [-1, 1].
    """
    x_t = diffuse(y, noise, t=t, alpha_bar=alpha_bar)
    eps = clipped(predict_eps, alpha_bar)(x_t, t)
    signal, spread = math.sqrt(float(alpha_bar[t])), math.sqrt(1 - float(alpha_bar[t]))
    return y - (x_t - spread * eps) / signal


def unexplained(residuals: Sequence[Tensor], levels: Sequence[float]) -> Tensor:
    """How much of each pixel the prior does not explain, in units of what is usual on clean images.

    The mean over timesteps of residuals, each by its level, keeps its sign, so that what several estimates agree on
    counts; its size, mean over channels, is smoothed twice over 3 x 3 pixels.

    Args:
        residuals: of ``residual_at``, one a timestep, float32 [B, C, H, W].
        levels: mean absolute residual of clean images at each timestep, above 0.

    Returns:
        float32 [B, 1, H, W].
    """
    total = torch.zeros_like(residuals[0])
    for residual, level in zip(residuals, levels, strict=True):
        total += residual / level
    mean = total / len(residuals)
    return _smoothed(_smoothed(mean.abs().mean(dim=1, keepdim=True)))


def regions(score: Tensor, *, seed_threshold: float, region_threshold: float) -> Tensor:
    """Connected regions above the lower threshold that reach above the higher one: hysteresis (Canny 1986).

    Args:
        score: float32 [B, 1, H, W].
        seed_threshold: a region has a pixel above it.
        region_threshold: all its pixels are above it; they touch by a side or a corner.

    Returns:
        bool [B, 1, H, W].
    """
    seeds, within = score > seed_threshold, score > min(region_threshold, seed_threshold)
    label = _connected(within)
    seeded = torch.zeros(len(score), score[0].numel() + 1, device=score.device)
    seeded.scatter_reduce_(1, label.flatten(1), seeds.flatten(1).float(), "amax")
    return (seeded.gather(1, label.flatten(1)) > 0).view(score.shape) & within


def _connected(within: Tensor) -> Tensor:
    """One number for each connected region, int64 [B, 1, H, W]: a pixel's own, counted from 1; 0 outside of all.

    Each pixel points to one of its region with a number no less; regions that touch hook their roots together, and
    pointers are halved: a winding region takes little longer than a round one.
    """
    batch, size = len(within), within[0].numel()
    own = torch.arange(1, size + 1, device=within.device, dtype=torch.float64).view(1, *within.shape[1:])
    label = torch.where(within, own, 0.0)

    def hooked(label: Tensor) -> Tensor:
        near = F.max_pool2d(label, _WINDOW, stride=1, padding=_WINDOW // 2).where(within, 0.0)
        pointers = torch.cat([label.new_zeros(batch, 1), label.flatten(1)], dim=1)
        pointers.scatter_reduce_(1, label.flatten(1).long(), near.flatten(1), "amax")
        pointers[:, 0] = 0
        pointers = torch.maximum(pointers, torch.cat([label.new_zeros(batch, 1), near.flatten(1)], dim=1))
        for _ in range(2):
            pointers = pointers.gather(1, pointers.long())
        return pointers[:, 1:].reshape(label.shape)

    while True:
        before = label
        for _ in range(_steps_a_look(label)):
            before, label = label, hooked(label)
        if torch.equal(before, label):
            return label.long()


def _steps_a_look(state: Tensor) -> int:
    """How many steps are made before it is looked whether the last one has changed anything. A look makes the host wait
    for a GPU; what has settled stays as it is, so that a late one costs some steps and changes nothing.
    """
    return 8 if state.is_cuda else 1


def filled(images: Tensor, mask: Tensor) -> Tensor:
    """Images with their masked pixels taken from their surroundings, ring by ring: each the mean of its neighbours that
    are known by then. An image that is masked all over becomes 0, the middle grey of model units.
    """
    known = before = (~mask).float()
    images = images * known
    while True:
        for _ in range(_steps_a_look(known)):
            near = _smoothed(known)
            reached = (known == 0) & (near > 0)
            images = torch.where(reached, _smoothed(images * known) / near.clamp_min(1e-6), images)
            before, known = known, torch.where(reached, 1.0, known)
        if bool(known.all()) or torch.equal(before, known):
            return images


def repainted(
    predict_eps: PredictEps,
    images: Tensor,
    mask: Tensor,
    guess: Tensor,
    *,
    alpha_bar: AlphaBar,
    steps: int,
    start_step: int,
    eta: float,
    noise_at: NoiseAt,
) -> Tensor:
    """Paint the masked pixels anew, from their surroundings and the prior; the others stay what they are.

    The loop starts from a guess under the noise of the first t below ``start_step``, and the clean estimate
    gets the known pixels back at every step, as in DDNM's inpainting (Wang et al. 2022, arXiv 2212.00490).

    Args:
        predict_eps: (state [B, C, H, W], t) -> noise estimate of that shape.
        images: float32 [B, C, H, W], model units.
        mask: what is painted, bool [B, 1, H, W].
        guess: the images with their masked pixels ``filled``.
        alpha_bar: the prior's schedule, float64 [T].
        steps: S, sampling steps over the whole schedule.
        start_step: where the loop starts.
        eta: as in ``ddim_step``.
        noise_at: counter -> standard normal of the images' shape; called with T for the start and with t in the loop.

    Returns:
        float32 [B, C, H, W], model units, not clipped.
    """
    schedule = timesteps(len(alpha_bar), steps, start_step)

    def hold(_: int, x_0: Tensor) -> Tensor:
        return torch.where(mask, x_0, images)

    return denoise(
        clipped(predict_eps, alpha_bar),
        diffuse(guess, noise_at(len(alpha_bar)), t=schedule[0][0], alpha_bar=alpha_bar),
        schedule=schedule,
        alpha_bar=alpha_bar,
        guide_at=hold,
        eta=eta,
        noise_at=noise_at,
    )


def _smoothed(values: Tensor) -> Tensor:
    """Each pixel the mean of its 3 x 3 neighbours within the image."""
    return F.avg_pool2d(values, _WINDOW, stride=1, padding=_WINDOW // 2, count_include_pad=False)
