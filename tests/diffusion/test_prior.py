"""Space-to-depth around the network, and the half of its output that is no noise estimate."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from zipbatch.diffusion import Prior

ALPHA_BAR = np.linspace(0.99, 0.01, 10)


class FakeUNet(nn.Module):
    """Answers ``2 sample + 1``, channels weighted by their number, and 99 where a variance would be."""

    def __init__(self, learned_sigma: bool) -> None:
        super().__init__()
        self.learned_sigma = learned_sigma
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, sample: Tensor, timestep: Tensor, return_dict: bool = True) -> tuple[Tensor]:
        assert not return_dict
        self.seen.append((sample, timestep))
        weight = torch.arange(sample.shape[1], dtype=sample.dtype).view(1, -1, 1, 1)
        eps = weight * (2 * sample + 1)
        return (torch.cat([eps, torch.full_like(eps, 99.0)], dim=1) if self.learned_sigma else eps,)


def make_prior(patch: int, *, learned_sigma: bool) -> tuple[Prior, FakeUNet]:
    unet, channels = FakeUNet(learned_sigma), 3 * patch**2
    prior = Prior(
        unet,
        in_channels=channels,
        out_channels=channels * (2 if learned_sigma else 1),
        sample_size=4,
        alpha_bar=ALPHA_BAR,
    )
    return prior, unet


@pytest.mark.parametrize("learned_sigma", [False, True])
@pytest.mark.parametrize("patch", [1, 2, 3])
def test_noise_estimate(patch: int, learned_sigma: bool):
    prior, unet = make_prior(patch, learned_sigma=learned_sigma)
    side = 4 * patch
    assert prior.image_size == side
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    eps = prior(x, 7)

    expected = np.empty(x.shape, np.float32)
    packed = np.empty((2, 3 * patch**2, 4, 4), np.float32)
    for channel in range(3):
        for dy in range(patch):
            for dx in range(patch):
                depth = channel * patch**2 + dy * patch + dx
                pixels = x.numpy()[:, channel, dy::patch, dx::patch]
                packed[:, depth] = pixels
                expected[:, channel, dy::patch, dx::patch] = depth * (2 * pixels + 1)
    sample, timestep = unet.seen[0]
    assert np.array_equal(sample.numpy(), packed)
    assert timestep.tolist() == [7, 7]
    assert eps.dtype == torch.float32
    assert np.allclose(eps.numpy(), expected, atol=1e-5)
    assert not (eps == 99).any()


def test_low_precision_answers_become_float32():
    prior, _ = make_prior(1, learned_sigma=True)
    assert prior(torch.zeros(1, 3, 4, 4, dtype=torch.bfloat16), 0).dtype == torch.float32


@pytest.mark.parametrize("in_channels", [1, 2, 4, 6, 9, 24, 0])
def test_channels_of_no_rgb_network(in_channels: int):
    with pytest.raises(ValueError, match=f"in_channels must be 3 p².* got {in_channels}"):
        Prior(nn.Identity(), in_channels=in_channels, out_channels=in_channels, sample_size=4, alpha_bar=ALPHA_BAR)


@pytest.mark.parametrize("out_channels", [3, 12 + 1, 36])
def test_outputs_that_are_neither(out_channels: int):
    with pytest.raises(ValueError, match=r"out_channels must be 12 or 24 \(learned sigma\)"):
        Prior(nn.Identity(), in_channels=12, out_channels=out_channels, sample_size=4, alpha_bar=ALPHA_BAR)
