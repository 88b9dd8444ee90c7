"""Augmentation shows what it should: shifted, mirrored and transformed copies, drawn from the generator alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

from zipbatch.victims import TRAIN_TRANSFORMS, crop_and_flip, physical_transforms, random_rotation

EVERY = pytest.mark.parametrize(
    "augment", [crop_and_flip, physical_transforms, random_rotation], ids=lambda augment: augment.__name__
)
Augment = Callable[..., Tensor]


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def random_images(count: int, height: int = 12, width: int = 16) -> Tensor:
    return torch.rand(count, 3, height, width, generator=generator(99)) * 0.9 + 0.05  # no black of their own


@EVERY
def test_shape_range_and_argument(augment: Augment):
    unit = random_images(8)
    before = unit.clone()
    augmented = augment(unit, generator=generator())
    assert (augmented.shape, augmented.dtype) == (unit.shape, torch.float32)
    assert augmented.min() >= 0
    assert augmented.max() <= 1
    assert torch.equal(unit, before)
    assert not torch.equal(augmented, unit)


@EVERY
def test_generator_decides(augment: Augment):
    unit, state = random_images(8), torch.get_rng_state()
    first, again, other = (augment(unit, generator=generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())


@EVERY
def test_one_generator_goes_on(augment: Augment):
    """Images are transformed anew each time they are seen."""
    unit, one = random_images(4), generator()
    assert not torch.equal(augment(unit, generator=one), augment(unit, generator=one))


@EVERY
def test_each_image_draws_its_own(augment: Augment):
    augmented = augment(random_images(1).expand(16, -1, -1, -1), generator=generator())
    assert len({image.numpy().tobytes() for image in augmented}) > 8


def candidates(image: Tensor, padding: int) -> dict[bytes, tuple[int, int, bool]]:
    """Every shifted, cropped and perhaps mirrored copy of [C, H, W], made by slicing, with its (dy, dx, mirrored)."""
    channels, height, width = image.shape
    frame = torch.zeros(channels, height + 2 * padding, width + 2 * padding)
    frame[:, padding:-padding, padding:-padding] = image
    found = {}
    for dy in range(-padding, padding + 1):
        for dx in range(-padding, padding + 1):
            top, left = padding + dy, padding + dx
            copy = frame[:, top : top + height, left : left + width]
            found[copy.contiguous().numpy().tobytes()] = (dy, dx, False)
            found[copy.flip(2).contiguous().numpy().tobytes()] = (dy, dx, True)
    return found


@pytest.mark.parametrize("padding", [2, 4])
def test_crop_is_a_shifted_and_perhaps_mirrored_copy(padding: int):
    """Every offset comes up, mirrored and not, and about as often."""
    image, count = random_images(1)[0], 3000
    known = candidates(image, padding)
    assert len(known) == 2 * (2 * padding + 1) ** 2
    augmented = crop_and_flip(image.expand(count, -1, -1, -1), generator=generator(), padding=padding)
    seen = [known[copy.contiguous().numpy().tobytes()] for copy in augmented]
    assert set(seen) == set(known.values())
    assert sum(mirrored for _, _, mirrored in seen) / count == pytest.approx(0.5, abs=0.05)
    for axis in (0, 1):
        assert sum(shift[axis] for shift in seen) / count == pytest.approx(0, abs=0.3)


def test_physical_transform_shrinks_onto_black():
    """A white image keeps to one level and fills .8^2 to .9^2 of the frame, less what leaves it."""
    augmented = physical_transforms(torch.ones(300, 3, 32, 32), generator=generator())
    levels, shares = [], []
    for image in augmented:
        lit = image[image > 0]
        assert (lit == lit[0]).all()
        levels.append(float(lit[0]))
        shares.append(len(lit) / image.numel())
    assert 0.8 <= min(levels) < 0.85
    assert max(levels) == 1
    assert 0.5 < min(shares) < 0.65
    assert 0.75 < max(shares) <= 0.9**2 + 0.03
    assert (augmented == 0).flatten(1).any(dim=1).all()


def centroid(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (row, column) of the light in each image, in shares of the side from the middle."""
    light = images.double().sum(dim=1)
    total = light.sum(dim=(1, 2))
    rows, columns = ((torch.arange(n).double() + 0.5) / n - 0.5 for n in light.shape[1:])
    return (light.sum(2) * rows).sum(1) / total, (light.sum(1) * columns).sum(1) / total


@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 96)])
def test_physical_transform_moves_by_a_tenth(height: int, width: int):
    """A small square in the middle goes where the shift takes it: up to a tenth of the side either way."""
    unit = torch.zeros(600, 3, height, width)
    unit[:, :, height // 2 - 4 : height // 2 + 4, width // 2 - 4 : width // 2 + 4] = 1
    for shift in centroid(physical_transforms(unit, generator=generator())):
        assert 0.09 < shift.max() < 0.115
        assert -0.115 < shift.min() < -0.09
        assert abs(shift.mean()) < 0.01


@pytest.mark.parametrize(("height", "width"), [(96, 96), (64, 128)])
def test_physical_transform_mirrors_rotates_and_scales(height: int, width: int):
    """Three dots unlike in colour: distances are the scale, slopes the angle, and right angles stay right."""
    unit, row, column = torch.zeros(600, 3, height, width), height // 2, width // 2
    for channel, dy, dx in ((0, 0, -20), (1, 0, 20), (2, -20, 0)):
        unit[:, channel, row + dy - 2 : row + dy + 2, column + dx - 2 : column + dx + 2] = 1
    augmented = physical_transforms(unit, generator=generator())
    dots = torch.where(augmented > 0.3, augmented, 0.0)  # less contrast lifts black by a share of the mean grey
    (red_y, red_x), (green_y, green_x), (blue_y, blue_x) = (
        (y * height, x * width) for y, x in (centroid(dots[:, [channel]]) for channel in range(3))
    )
    dy, dx = green_y - red_y, green_x - red_x
    up_y, up_x = blue_y - (red_y + green_y) / 2, blue_x - (red_x + green_x) / 2
    assert (dx < 0).double().mean().item() == pytest.approx(0.5, abs=0.08)
    for scale in (torch.hypot(dy, dx) / 40, torch.hypot(up_y, up_x) / 20):
        assert 0.76 < scale.min() < 0.83
        assert 0.87 < scale.max() < 0.94
    for angle in (torch.rad2deg(torch.atan2(dy, dx.abs())), torch.rad2deg(torch.atan2(up_x, -up_y))):
        assert 8.5 < angle.max() < 12
        assert -12 < angle.min() < -8.5
    cosine = (dy * up_y + dx * up_x) / (torch.hypot(dy, dx) * torch.hypot(up_y, up_x))
    assert cosine.abs().max() < 0.07


def test_physical_jitter_of_a_flat_image_is_its_brightness():
    """Contrast pulls towards the mean, which a flat image is; brightness scales by .8 to 1.2."""
    augmented = physical_transforms(torch.full((400, 3, 16, 16), 0.5), generator=generator())
    levels = torch.stack([image[image > 0].mean() for image in augmented])
    assert levels.min() > 0.4 - 1e-6
    assert levels.min() < 0.42
    assert 0.58 < levels.max() <= 0.6 + 1e-6


def test_physical_jitter_spreads_about_the_mean():
    """Stripes of .4 and .6: their mean is the brightness, their spread beyond it the contrast, .8 to 1.2."""
    unit = torch.full((400, 3, 32, 32), 0.4)
    unit[:, :, ::2] = 0.6
    augmented = physical_transforms(unit, generator=generator())
    low = torch.stack([image[image > 0].min() for image in augmented])
    high = torch.stack([image.max() for image in augmented])
    contrast = (high - low) / 0.2 / (high + low)
    assert 0.8 - 1e-5 < contrast.min() < 0.82
    assert 1.18 < contrast.max() < 1.2 + 1e-5


@pytest.mark.parametrize(("height", "width"), [(96, 96), (64, 128)])
def test_rotation_turns_by_up_to_ten_degrees(height: int, width: int):
    """Two dots keep their distance from the middle; their angles fill -10 to 10 evenly."""
    unit, row, column = torch.zeros(600, 3, height, width), height // 2, width // 2
    unit[:, 0, row - 2 : row + 2, column + 18 : column + 22] = 1
    unit[:, 1, row - 22 : row - 18, column - 2 : column + 2] = 1
    turned = random_rotation(unit, generator=generator())
    angles = []
    for channel, zero in ((0, 0.0), (1, 90.0)):
        y, x = centroid(turned[:, [channel]])
        y, x = y * height, x * width
        assert (torch.hypot(y, x) - 20).abs().max() < 1
        angles.append(torch.rad2deg(torch.atan2(-y, x)) - zero)
    assert (angles[0] - angles[1]).abs().max() < 2  # both turn alike: no shear, no mirror
    assert 9 < angles[0].max() < 11
    assert -11 < angles[0].min() < -9
    assert angles[0].abs().mean() == pytest.approx(5, abs=0.5)


def test_rotation_leaves_the_pixels_and_black_corners():
    unit = random_images(1, 32, 32).expand(64, -1, -1, -1)
    turned = random_rotation(unit, generator=generator())
    assert (turned[:, :, 16, 16] > 0).all()
    assert set(turned.unique().tolist()) <= {0.0, *unit.unique().tolist()}
    assert (turned[:, :, 0, 0] == 0).any()
    assert torch.equal(random_rotation(unit, generator=generator(), degrees=0), unit)


@pytest.mark.parametrize(("name", "spared"), [("batt", True), ("physicalba", False)])
def test_whether_an_attack_spares_its_poisoned_images(name: str, spared: bool):
    unit, poisoned = random_images(6), torch.tensor([True, False, True, True, False, False])
    transformed = TRAIN_TRANSFORMS[name](unit, poisoned, generator=generator(3))
    drawn = TRAIN_TRANSFORMS[name].draw(unit, generator=generator(3))
    assert torch.equal(transformed[~poisoned], drawn[~poisoned])
    assert torch.equal(transformed[poisoned], unit[poisoned] if spared else drawn[poisoned])
