"""One call from a damaged image to a clean one, by a prior's network that was taught to."""

from __future__ import annotations

from torch import Tensor

_LEAST_SPREAD = 0.15
"""Of the noise, relative to the signal: below it a network could hardly change anything."""


def restored(out: Tensor, x_t: Tensor, *, alpha_bar: Tensor) -> Tensor:
    """The clean image that a restorer's output stands for: the state less its noise, and less its damage.

    It is the clean estimate (Ho et al. 2020, arXiv 2006.11239, eq. 15) of a network that takes damage for noise, so
    that a prior's weights are where to begin. At small timesteps the output is weighed as at a spread of 0.15.

    Shapes: B images, C channels, H x W pixels.

    Args:
        out: of the network, float32 [B, C, H, W].
        x_t: the damaged image at timestep t, float32 [B, C, H, W], model units.
        alpha_bar: the schedule at t, float32 [B, 1, 1, 1] or [1].

    Returns:
        float32 [B, C, H, W], model units, not clipped.
    """
    spread = ((1 - alpha_bar) / alpha_bar).sqrt().clamp_min(_LEAST_SPREAD)
    return x_t / alpha_bar.sqrt() - spread * out
