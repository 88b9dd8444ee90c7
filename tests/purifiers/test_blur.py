"""The blur baseline against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.diffusion.test_projectors import expected_projection
from zipbatch.purifiers import PURIFIERS, Blur, Resources
from zipbatch.purifiers.settings import BlurSettings

RESOURCES = Resources(device=torch.device("cpu"))


def make_blur(*transforms: str) -> Blur:
    return Blur(BlurSettings(transforms=transforms), RESOURCES)


def random_images() -> torch.Tensor:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 3, 12, 12)).astype(np.uint8)
    images[0], images[1] = 0, 255
    return torch.from_numpy(images)


def test_it_is_registered():
    assert PURIFIERS["blur"] is Blur
    assert not Blur.needs_prior
    assert BlurSettings().transforms == ("blur:2",)


@pytest.mark.parametrize("transforms", [("blur:2",), ("gray",), ("blur:4", "gray"), ("blur:1", "blur:3", "blur:2")])
def test_mean_of_the_projections(transforms: tuple[str, ...]):
    images = random_images()
    before = images.clone()
    purified = make_blur(*transforms)(images, list("abcd"))
    x = images.numpy().astype(np.float64)
    expected = np.mean([expected_projection(name, x) for name in transforms], axis=0)
    assert purified.dtype == torch.uint8
    assert np.abs(purified.numpy() - expected).max() <= 0.5 + 1e-3
    assert torch.equal(images, before)


def test_blur_one_returns_the_image():
    images = random_images()
    assert torch.equal(make_blur("blur:1")(images, list("abcd")), images)


def test_sizes_a_block_does_not_divide():
    settings = BlurSettings(transforms=("gray", "blur:5"))
    assert Blur.images_per_row(settings, 10, 15, prior_size=None) == 1
    with pytest.raises(ValueError, match="blur:5: 5 does not divide the image's 12 x 15 pixels"):
        Blur.images_per_row(settings, 12, 15, prior_size=None)


@pytest.mark.parametrize("transforms", [(), ("blur:0",), ("identity",)])
def test_wrong_transforms(transforms: tuple[str, ...]):
    with pytest.raises(ValueError, match="validation error"):
        BlurSettings(transforms=transforms)
