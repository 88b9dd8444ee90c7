"""Damage drawn for training: of the kind and the size that is said, by the generator alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from zipbatch.diffusion import damage, damaged

SIZE = 32


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photos(count: int = 64) -> Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=draws(9)) * 2 - 1


def test_as_many_stay_plain_as_is_asked_for():
    images = photos(400)
    changed = (damaged(images, plain=0.5, generator=draws()) != images).flatten(1).any(dim=1)
    assert 0.4 < float(changed.float().mean()) < 0.6
    assert torch.equal(damaged(images, plain=1.0, generator=draws()), images)
    assert (damaged(images, plain=0.0, generator=draws()) != images).flatten(1).any(dim=1).all()


def test_all_of_it_is_drawn_by_the_generator_and_nothing_leaves_the_scale():
    images = photos()
    first = damaged(images, plain=0.2, generator=draws(1))
    assert torch.equal(first, damaged(images, plain=0.2, generator=draws(1)))
    assert not torch.equal(first, damaged(images, plain=0.2, generator=draws(2)))
    assert torch.equal(images, photos())
    assert float(first.abs().max()) <= 1 + 1e-6


def test_a_patch_stays_within_a_rectangle_and_reaches_corners():
    images = photos(300)
    changed = (damage.patched(images, images, draws()) != images).any(dim=1)
    assert changed.flatten(1).any(dim=1).float().mean() > 0.99
    for one in changed:
        rows, columns = one.any(dim=1).nonzero()[:, 0], one.any(dim=0).nonzero()[:, 0]
        if len(rows):
            assert int(rows.max() - rows.min()) < SIZE // 4
            assert int(columns.max() - columns.min()) < SIZE // 4
    corners = changed[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners.any(dim=0).all()
    assert 0.1 < float(corners.any(dim=1).float().mean()) < 0.5


def test_a_picture_is_mixed_in_at_small_opacity():
    images = photos()
    change = (damage.mixed(images, images.flip(0), draws()) - images).abs()
    assert 0 < float(change.max()) <= 0.6
    assert (change.flatten(1).mean(dim=1) > 0).all()


def test_drawn_pictures_go_from_smooth_to_noise():
    pictures = damage.drawn_pictures(200, SIZE, draws())
    rough = (pictures[..., 1:] - pictures[..., :-1]).abs().mean(dim=(1, 2, 3))
    assert float(rough.min()) < 0.05
    assert float(rough.max()) > 0.4
    grey = (pictures[:, :1] == pictures).flatten(1).all(dim=1)
    assert 0.1 < float(grey.float().mean()) < 0.4


def test_a_warp_moves_pixels_and_makes_none():
    flat = torch.full((8, 3, SIZE, SIZE), 0.3)
    assert torch.allclose(damage.warped(flat, flat, draws()), flat, atol=1e-6)
    ramp = torch.linspace(-1, 1, SIZE).expand(64, 3, SIZE, SIZE).contiguous()
    moved = (damage.warped(ramp, ramp, draws()) - ramp).abs().mean() / (2 / (SIZE - 1))
    assert 0.1 < float(moved) < 0.5  # in pixels


@pytest.mark.parametrize("size", [8, 16, 48])
def test_other_sizes(size: int):
    images = torch.zeros(40, 3, size, size)
    assert damaged(images, plain=0.0, generator=draws()).shape == images.shape
