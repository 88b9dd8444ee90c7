"""The clean image that a restorer's output stands for."""

from __future__ import annotations

import torch

from tests.diffusion.test_sampler import ALPHA_BAR
from zipbatch.diffusion import diffuse, restored


def test_noise_told_in_full_gives_the_image_back():
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 8, 8, generator=generator) * 2 - 1
    noise = torch.randn(image.shape, generator=generator)
    x_t = diffuse(image, noise, t=500, alpha_bar=ALPHA_BAR)
    alpha_bar = image.new_tensor([ALPHA_BAR[500]])
    assert torch.allclose(restored(noise, x_t, alpha_bar=alpha_bar), image, atol=1e-5)


def test_where_there_is_hardly_noise_it_may_still_change_the_image():
    image = torch.zeros(1, 3, 4, 4)
    alpha_bar = torch.tensor([1 - 1e-6])
    assert torch.allclose(restored(torch.ones_like(image), image, alpha_bar=alpha_bar), image - 0.15, atol=1e-4)
