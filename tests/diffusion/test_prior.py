"""Space-to-depth around the network, and the half of its output that is no noise estimate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from zipbatch.checkpoints import load_prior, open_prior
from zipbatch.diffusion import Prior
from zipbatch.diffusion.prior import Prediction, epsilon_of

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


# ---- what the network predicts


class Turned(nn.Module):
    """A network of epsilon as one of v or of the clean image: the same knowledge in other words (float64)."""

    def __init__(self, unet: nn.Module, predicts: Prediction, patch: int, alpha_bar: np.ndarray) -> None:
        super().__init__()
        self.unet, self.predicts, self.patch, self.alpha_bar = unet, predicts, patch, torch.from_numpy(alpha_bar)

    def forward(self, sample: Tensor, timestep: Tensor, return_dict: bool = True) -> tuple[Tensor]:
        out = self.unet(sample, timestep, return_dict=False)[0]
        eps, ab = out[:, : sample.shape[1]].double(), self.alpha_bar[timestep].view(-1, 1, 1, 1)
        x_0 = (sample.double() - (1 - ab).sqrt() * eps) / ab.sqrt()
        turned = x_0 if self.predicts == "sample" else ab.sqrt() * eps - (1 - ab).sqrt() * x_0
        return (torch.cat([turned.float(), out[:, sample.shape[1] :]], dim=1),)


def turned(prior: Prior, predicts: Prediction) -> Prior:
    """The same prior with a network that predicts something else."""
    channels = 3 * prior.patch**2
    return Prior(
        Turned(prior.unet, predicts, prior.patch, prior.alpha_bar),
        in_channels=channels,
        out_channels=channels,
        sample_size=prior.image_size // prior.patch,
        alpha_bar=prior.alpha_bar,
        predicts=predicts,
    ).eval()


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("predicts", ["v_prediction", "sample"])
def test_every_prediction_is_the_same_epsilon(predicts: Prediction, patch: int):
    prior, _ = make_prior(patch, learned_sigma=False)
    x = torch.randn(3, 3, 4 * patch, 4 * patch, generator=torch.Generator().manual_seed(0))
    for t in (0, 4, 9, torch.tensor([9, 0, 5])):
        eps = turned(prior, predicts)(x, t)
        assert eps.dtype == torch.float32
        assert torch.allclose(eps, prior(x, t), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction", "sample"])
def test_predictions_mean_what_diffusers_means(predicts: Prediction):
    """Against the epsilon that diffusers' DDIM works out of the same output of a network."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(prediction_type=predicts, clip_sample=False, set_alpha_to_one=False)
    scheduler.set_timesteps(1000)
    generator = torch.Generator().manual_seed(1)
    out, x_t = (torch.randn(1, 3, 8, 8, generator=generator) for _ in range(2))
    for t in (1, 250, 900):
        ab, ab_next = (float(scheduler.alphas_cumprod[step]) for step in (t, t - 1))
        step = scheduler.step(out, t, x_t, eta=0.0)
        theirs = (step.prev_sample - ab_next**0.5 * step.pred_original_sample) / (1 - ab_next) ** 0.5
        ours = epsilon_of(out, x_t, alpha_bar=torch.tensor(ab).double().view(1, 1, 1, 1), predicts=predicts)
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3)


def test_cast_weights_answer_as_autocast_does(prior: Path):
    """On a CPU, to the bit: versions that were made by autocast are made the same way still."""
    exact = load_prior(open_prior(prior))
    x = torch.randn(2, 3, exact.image_size, exact.image_size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        rough = exact.cast(torch.device("cpu"), torch.bfloat16)(x, 300)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(exact(x, 300), rough)
        assert not torch.equal(exact(x, 300), rough)
