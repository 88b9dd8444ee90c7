"""What purifiers with a prior share, shown on DiffPure and DDNM with a made-up network; helpers for their own tests."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.diffusion.test_sampler import ALPHA_BAR
from tests.purifiers.test_zip import SIZE, BrokenUNet, EpsUNet, apart, keys, pictures
from zipbatch.diffusion import Prior, noise_streams, standard_normal
from zipbatch.purifiers import Purifier, Resources
from zipbatch.purifiers.base import NonFiniteError
from zipbatch.purifiers.ddnm import Ddnm
from zipbatch.purifiers.diffpure import DiffPure
from zipbatch.purifiers.settings import DdnmSettings, DiffPureSettings

CPU = torch.device("cpu")


def made_up(canvas: int = SIZE) -> Prior:
    return Prior(EpsUNet(), in_channels=3, out_channels=3, sample_size=canvas, alpha_bar=ALPHA_BAR)


def make_diffpure(prior: Prior, *, seed: int = 0, **settings: object) -> DiffPure:
    return DiffPure(DiffPureSettings(**settings), Resources(device=CPU, prior=prior, seed=seed))  # type: ignore[arg-type]


def make_ddnm(prior: Prior, *, seed: int = 0, **settings: object) -> Ddnm:
    return Ddnm(DdnmSettings(**settings), Resources(device=CPU, prior=prior, seed=seed))  # type: ignore[arg-type]


def canvases(images: np.ndarray) -> np.ndarray:
    """Four images [4 N, C, H, W] a canvas, row by row."""
    return np.stack(
        [
            np.concatenate([np.concatenate(list(four[:2]), axis=2), np.concatenate(list(four[2:]), axis=2)], axis=1)
            for four in images.reshape(-1, 4, *images.shape[1:])
        ]
    )


def noise_by_hand(seed: int, names: list[str], *, tiled: bool) -> Callable[[int], np.ndarray]:
    streams = noise_streams(seed, names)

    def noise(counter: int) -> np.ndarray:
        drawn = standard_normal(streams, step=counter, shape=(3, SIZE, SIZE)).double().numpy()
        return canvases(drawn) if tiled else drawn

    return noise


def model_units(images: Tensor) -> np.ndarray:
    return images.double().numpy() / 127.5 - 1


def levels(x: np.ndarray) -> np.ndarray:
    return ((x + 1) * 127.5).clip(0, 255)


@pytest.mark.parametrize("make", [make_diffpure, make_ddnm])
def test_key_and_seed_decide_and_nothing_else(make: Callable[..., Purifier]):
    images, names = pictures(4), keys(4)
    purifier = make(made_up(), steps=50, start_step=100)
    before, state = images.clone(), torch.get_rng_state()
    together = purifier(images, names)
    assert torch.equal(images, before)
    assert torch.equal(state, torch.get_rng_state())
    order = [2, 0, 3, 1]
    assert apart(purifier(images[order], [names[i] for i in order]), together[order]) <= 1
    assert all(apart(purifier(images[i : i + 1], names[i : i + 1]), together[i : i + 1]) <= 1 for i in range(4))
    assert apart(purifier(images, ["x", *names[1:]])[:1], together[:1]) > 1
    assert torch.equal(make(made_up(), steps=50, start_step=100)(images, names), together)
    assert not torch.equal(make(made_up(), seed=1, steps=50, start_step=100)(images, names), together)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("make", [make_diffpure, make_ddnm])
def test_what_is_not_finite_is_no_picture(make: Callable[..., Purifier], value: float):
    """Clipping must not turn an infinite estimate into a white pixel."""
    prior = Prior(BrokenUNet(2, value), in_channels=3, out_channels=3, sample_size=SIZE, alpha_bar=ALPHA_BAR)
    for steps in (1, 50):
        with pytest.raises(NonFiniteError) as caught:
            make(prior, steps=steps, start_step=100)(pictures(4), keys(4))
        assert caught.value.key == "test_0002"


@pytest.mark.parametrize("kind", [DiffPure, Ddnm])
def test_sizes(kind: type[Purifier]):
    settings = kind.settings_type()
    assert kind.images_per_row(settings, 16, 16, prior_size=32) == 4
    with pytest.raises(ValueError, match="12x16 pixels neither equals nor tiles the prior's 32x32"):
        kind.images_per_row(settings, 16, 12, prior_size=32)
    with pytest.raises(ValueError, match="needs a prior"):
        kind(settings, Resources(device=CPU))
