"""DDNM with a made-up network, against ZIP's update with a full pull written out in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.diffusion.test_sampler import T, sample_by_hand
from tests.purifiers.test_diffusion_sampler import levels, made_up, make_ddnm, model_units, noise_by_hand
from tests.purifiers.test_zip import SIZE, apart, keys, pictures
from zipbatch.purifiers.ddnm import Ddnm, DdnmSettings


def test_published_defaults():
    expected = {"steps": 100, "eta": 0.85, "start_step": None, "transforms": ("blur:2",)}
    assert DdnmSettings().model_dump() == expected


@pytest.mark.parametrize("transform", ["blur:2", "gray", "blur:8"])
@pytest.mark.parametrize("start_step", [None, 300])
def test_ddnm_is_the_update_with_a_full_pull(transform: str, start_step: int | None):
    images, names = pictures(2), keys(2)
    expected = sample_by_hand(
        model_units(images),
        transforms=[transform],
        k=math.inf,
        steps=20,
        start_step=start_step or T,
        eta=0.85,
        noise=noise_by_hand(2, names, tiled=False),
    )
    got = make_ddnm(made_up(), seed=2, steps=20, transforms=[transform], start_step=start_step)(images, names)
    assert np.abs(got.numpy() - levels(expected)).max() <= 0.51


def test_ddnm_keeps_what_the_transform_keeps():
    """Hard consistency, to rounding: the means of the blocks are the suspect's own, what is within them is not."""
    images = pictures(4) // 8 + 112
    got = make_ddnm(made_up(), steps=50, start_step=20, transforms=["blur:4"])(images, keys(4))
    before, after = (x.double().view(4, 3, 4, 4, 4, 4).mean(dim=(3, 5)) for x in (images, got))
    assert got.min() > 0
    assert got.max() < 255
    assert (before - after).abs().max() <= 0.5
    assert apart(got, images) > 4


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_ddnm_gives_tiled_images_back_in_order(steps: int, count: int):
    images = pictures(count)
    got = make_ddnm(made_up(2 * SIZE), steps=steps, transforms=["blur:1"])(images, keys(count))
    assert apart(got, images) <= 1


def test_ddnm_checks_its_block():
    with pytest.raises(ValueError, match="blur:3: 3 does not divide"):
        Ddnm.images_per_row(DdnmSettings(transforms="blur:3"), 16, 16, prior_size=32)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "settings", [{"transforms": ["blur:2", "gray"]}, {"transforms": []}, {"guidance_exponent": 1.0}]
)
def test_settings_that_cannot_be(settings: dict[str, object]):
    with pytest.raises(ValueError, match="validation error"):
        DdnmSettings(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("transform", ["gauss:1", "blur:2@mean"])
def test_what_is_no_projection_is_refused(transform: str):
    with pytest.raises(ValueError, match="is no projection"):
        DdnmSettings(transforms=(transform,))
