"""The pre-trained diffusion model as an epsilon predictor on images, whatever its network predicts."""

from __future__ import annotations

import copy
import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zipbatch.diffusion.sampler import AlphaBar
from zipbatch.diffusion.static import Static

CHANNELS = 3
Prediction = Literal["epsilon", "v_prediction", "sample"]
"""What a network predicts of x_t = sqrt(ab) x_0 + sqrt(1 - ab) eps: eps, v = sqrt(ab) eps - sqrt(1 - ab) x_0 (Salimans
and Ho 2022, arXiv 2202.00512, appendix D), or x_0."""


class Prior(nn.Module):
    """A UNet behind the image it works on: space-to-depth around it, a learned-sigma half dropped, the rest as epsilon.

    Args:
        unet: ``(sample [B, c, h, w], t) -> (out,)``, a diffusers UNet2DModel called with ``return_dict=False``.
        in_channels: 3 p² for space-to-depth by p.
        out_channels: ``in_channels``, or twice that when the network also predicts a variance.
        sample_size: side of the network's input; images have ``sample_size * p`` pixels a side.
        alpha_bar: cumulative signal variance, float64 [T].
        predicts: what the network predicts.
        dtype: of the network's weights and of what it computes with; states and answers are float32.

    Raises:
        ValueError: channel counts that are neither.
    """

    def __init__(
        self,
        unet: nn.Module,
        *,
        in_channels: int,
        out_channels: int,
        sample_size: int,
        alpha_bar: AlphaBar,
        predicts: Prediction = "epsilon",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.patch = patch_of(in_channels, out_channels)
        self.unet = unet
        self.image_size = sample_size * self.patch
        self.alpha_bar = alpha_bar
        self.predicts = predicts
        self.dtype = dtype
        self._eps_channels = in_channels
        self._cast: dict[tuple[torch.device, torch.dtype, bool], Prior] = {}

    def forward(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        """State [B, 3, H, W] at timestep ``t``, one for all or int64 [B] -> noise estimate, float32, same shape."""
        packed = F.pixel_unshuffle(x_t, self.patch) if self.patch > 1 else x_t
        timestep = t if isinstance(t, Tensor) else torch.full((len(x_t),), t, dtype=torch.int64, device=x_t.device)
        out: Tensor = self.unet(packed.to(self.dtype), timestep, return_dict=False)[0][:, : self._eps_channels].float()
        out = F.pixel_shuffle(out, self.patch) if self.patch > 1 else out
        if self.predicts == "epsilon":
            return out
        return epsilon_of(out, x_t, alpha_bar=self._alpha_bar_at(t, x_t.device), predicts=self.predicts)

    def _alpha_bar_at(self, t: int | Tensor, device: torch.device) -> Tensor:
        """The schedule at ``t``, float64 [1 or B, 1, 1, 1]."""
        if isinstance(t, int):
            return torch.full((1, 1, 1, 1), float(self.alpha_bar[t]), dtype=torch.float64, device=device)
        return torch.from_numpy(self.alpha_bar).to(device, non_blocking=True)[t].view(-1, 1, 1, 1)

    def cast(self, device: torch.device, dtype: torch.dtype, *, compiled: bool = False) -> Prior:
        """The same prior where and in what it is to compute: itself where that is so already, else a copy, made once.

        On a CPU the scales and shifts of group norms stay float32, as its kernels allow: so answers are to the bit
        those of autocast, which casts each weight at each call.
        """
        at = next((parameter.device for parameter in self.parameters()), device)
        if not compiled and dtype == self.dtype and at.type == device.type and device.index in {None, at.index}:
            return self
        if (device, dtype, compiled) not in self._cast:
            self._cast[device, dtype, compiled] = self._copied(device, dtype, compiled=compiled)
        return self._cast[device, dtype, compiled]

    def _copied(self, device: torch.device, dtype: torch.dtype, *, compiled: bool) -> Prior:
        unet = copy.deepcopy(self.unet).to(device)
        for module in unet.modules():
            if device.type != "cpu" or not isinstance(module, nn.GroupNorm):
                for parameter in module.parameters(recurse=False):
                    parameter.data = parameter.data.to(dtype)
        channels = self._eps_channels
        return Prior(
            Static(unet) if compiled else unet,
            in_channels=channels,
            out_channels=channels,
            sample_size=self.image_size // self.patch,
            alpha_bar=self.alpha_bar,
            predicts=self.predicts,
            dtype=dtype,
        )


def epsilon_of(out: Tensor, x_t: Tensor, *, alpha_bar: Tensor, predicts: Prediction) -> Tensor:
    """The noise estimate that a prediction amounts to, worked out in float64: the sampler divides by sqrt(alpha_bar).

    Shapes: prediction and state [B, C, H, W], float32; alpha_bar at each state's timestep, float64 [B, 1, 1, 1].

    Returns:
        Noise estimate, float32 [B, C, H, W].
    """
    signal, noise = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    match predicts:
        case "v_prediction":
            return (signal * out + noise * x_t).float()
        case "sample":
            return ((x_t - signal * out) / noise).float()
        case "epsilon":
            return out


def patch_of(in_channels: int, out_channels: int) -> int:
    """p of a network with ``in_channels = 3 p²``.

    Raises:
        ValueError: channels that no RGB epsilon predictor has.
    """
    patch = math.isqrt(in_channels // CHANNELS)
    if patch < 1 or patch**2 * CHANNELS != in_channels:
        raise ValueError(f"in_channels must be 3 p² (3, 12, 27, 48, …) for RGB images, got {in_channels}")
    if out_channels not in {in_channels, 2 * in_channels}:
        raise ValueError(f"out_channels must be {in_channels} or {2 * in_channels} (learned sigma), got {out_channels}")
    return patch
