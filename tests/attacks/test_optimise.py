"""Triggers that are optimised through a defence: what may change, that it stays within bounds, and that it works."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.attacks.stamping import stamp
from zipbatch.attacks.optimise import Everywhere, Form, Slope, Square, optimised
from zipbatch.attacks.patch import Patch, PatchSettings
from zipbatch.pixels import from_u8

SIZE = 8
FORMS = pytest.mark.parametrize(
    "form", [Square(side=3, top=1, left=4), Everywhere(SIZE, 16)], ids=["square", "everywhere"]
)


def pictures(count: int = 12, *, low: int = 0, high: int = 256) -> Tensor:
    drawn = np.random.default_rng(3).integers(low, high, (count, 3, SIZE, SIZE))
    return torch.from_numpy(drawn.astype(np.uint8))


def linear(seed: int = 0) -> Slope:
    """A classifier of two classes: which side of a random plane through the grey image an image is on."""
    weights = torch.randn(3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))

    def slope(shown: Tensor) -> tuple[Tensor, float]:
        score = ((from_u8(shown, "unit") - 0.5) * weights).flatten(1).sum(dim=1)
        return -weights.expand(len(shown), -1, -1, -1), float((score > 0).float().mean())

    return slope


def halved(shown: Tensor, _rows: Tensor, step: int) -> Tensor:
    """A defence by chance: six levels a channel, their grid another one at each step."""
    offset = step * 7 % 48
    return ((shown.to(torch.int16) + offset) // 48 * 48 - offset + 24).clamp(0, 255).to(torch.uint8)


def trigger(form: Form, slope: Slope, *, seed: int = 0, steps: int = 30) -> Tensor:
    return optimised(pictures(), form, purify=halved, slope=slope, steps=steps, batch_size=6, seed=seed)


@FORMS
def test_it_survives_the_defence(form: Form):
    slope, clean = linear(), pictures(200, low=96, high=160)
    before = slope(halved(clean, torch.arange(200), 999))[1]
    after = slope(halved(form.stamped(clean, trigger(form, slope).float()), torch.arange(200), 999))[1]
    assert before < 0.75
    assert after > 0.95


@FORMS
def test_levels_are_whole_numbers_within_bounds_that_are_reached(form: Form):
    levels = trigger(form, linear())
    assert (levels.dtype, tuple(levels.shape)) == (torch.int16, form.shape)
    assert (int(levels.min()), int(levels.max())) == (form.low, form.high)


@FORMS
def test_the_same_arguments_give_the_same_levels_and_no_argument_changes(form: Form):
    torch.manual_seed(5)
    state, images = torch.get_rng_state(), pictures()
    levels = trigger(form, linear())
    assert torch.equal(levels, trigger(form, linear()))
    assert not torch.equal(levels, trigger(form, linear(), seed=1, steps=1))
    assert torch.equal(state, torch.get_rng_state())
    form.stamped(images, levels.float())
    assert torch.equal(images, pictures())


def test_each_step_purifies_the_stamped_images_anew():
    form, seen = Square(side=2, top=0, left=0), []

    def purify(shown: Tensor, rows: Tensor, step: int) -> Tensor:
        inside, outside = shown[:, :, :2, :2], shown.clone()
        assert bool((inside == inside[:1]).all())
        outside[:, :, :2, :2] = pictures()[rows][:, :, :2, :2]
        assert torch.equal(outside, pictures()[rows])
        seen.append((step, tuple(rows.tolist())))
        return shown

    told: list[int] = []
    optimised(
        *(pictures(), form),
        purify=purify,
        slope=linear(),
        steps=4,
        batch_size=5,
        seed=2,
        on_step=lambda step, _share: told.append(step),
    )
    assert [step for step, _ in seen] == [0, 1, 2, 3]
    assert len({rows for _, rows in seen}) == 4
    assert told == [1, 2, 3, 4]


def test_a_square_is_what_the_attack_patch_stamps():
    levels = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (3, 3, 3)).astype(np.int16))
    picture = np.full((3, 3, 4), 255, np.uint8)
    picture[:, :, :3] = levels.permute(1, 2, 0).numpy()
    attack = Patch(PatchSettings(row=-1, column=2))
    staged = stamp(attack, pictures().permute(0, 2, 3, 1).numpy(), attack.trigger_from(picture, SIZE))
    ours = Square(side=3, top=SIZE - 3, left=2).stamped(pictures(), levels.float())
    assert np.array_equal(ours.permute(0, 2, 3, 1).numpy(), staged)


def test_a_pattern_is_added_and_cut_at_the_ends():
    levels = torch.from_numpy(np.random.default_rng(1).integers(-16, 17, (3, SIZE, SIZE)).astype(np.int16))
    stamped = Everywhere(SIZE, 16).stamped(pictures(), levels)
    expected = np.clip(pictures().numpy().astype(int) + levels.numpy(), 0, 255)
    assert np.array_equal(stamped.numpy(), expected)
    assert int((stamped.int() - pictures().int()).abs().max()) == 16


@pytest.mark.parametrize("form", [Square(side=3, top=1, left=4), Everywhere(SIZE, 16)])
def test_a_gradient_is_gathered_from_all_images(form: Form):
    slopes = torch.randn(5, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    whole = form.stamped(torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8), torch.full(form.shape, 1.0))[0] > 0
    assert torch.allclose(form.gathered(slopes).flatten(), slopes.sum(dim=0)[whole])


def test_an_alarm_weighs_as_much_as_the_classifier_where_it_is_set_off():
    """It pulls to black what the classifier leaves alone, and stays silent where it does not matter."""
    form, told = Square(side=2, top=0, left=0), []

    def flat(shown: Tensor) -> tuple[Tensor, float]:
        return torch.zeros(shown.shape), 0.0

    def alarm(stamped: Tensor, rows: Tensor, step: int) -> Tensor:
        told.append((step, len(rows), stamped.dtype))
        return (stamped > 0).float()

    settings = {"purify": halved, "steps": 20, "batch_size": 4, "seed": 0}
    levels = optimised(pictures(), form, slope=flat, alarm=alarm, **settings)
    assert told == [(step, 4, torch.uint8) for step in range(20)]
    assert int(levels.max()) == 0
    silent = optimised(pictures(), form, slope=linear(), alarm=lambda s, _r, _n: torch.zeros(s.shape), **settings)
    assert torch.equal(silent, optimised(pictures(), form, slope=linear(), **settings))
