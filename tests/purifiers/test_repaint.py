"""Repaint: with the shipped prior, what sticks out is found and painted anew, and nothing else; its settings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from tests.attacks.stamping import stamp
from tests.diffusion.test_sampler import ALPHA_BAR
from tests.purifiers.test_diffusion_sampler import made_up
from tests.purifiers.test_zip import SIZE, EpsUNet, apart, keys, pictures
from zipbatch.attacks import get_attack
from zipbatch.checkpoints import load_prior, open_prior, read_calibration
from zipbatch.config import Calibration
from zipbatch.diffusion import Prior
from zipbatch.purifiers import PURIFIERS, RepaintSettings, Resources
from zipbatch.purifiers.base import NonFiniteError
from zipbatch.purifiers.repaint import Repaint, calibration_of
from zipbatch.shards import read_shard
from zipbatch.stages.assets import embedded_prior

CPU = torch.device("cpu")
SAMPLE = embedded_prior().parent / "cifar10-sample" / "test-000000.tar"
COUNT = 32
GIVEN = {"levels": (1.0,), "seed_threshold": 1.0, "region_threshold": 0.5, "residual_steps": (100,)}


def settings(**values: object) -> RepaintSettings:
    return RepaintSettings.model_validate(values)


@pytest.fixture(scope="module")
def shipped() -> tuple[Prior, RepaintSettings]:
    folder = open_prior(embedded_prior())
    return load_prior(folder), settings().calibrated(read_calibration(folder))


@pytest.fixture(scope="module")
def photos() -> np.ndarray:
    samples = iter(read_shard(SAMPLE))
    return np.stack([next(samples).image() for _ in range(COUNT)])


def repaint(shipped: tuple[Prior, RepaintSettings], images: np.ndarray, names: list[str]) -> tuple[Tensor, Tensor]:
    """What became of uint8 [N, H, W, 3], [N, 3, H, W], and the masks."""
    found: list[Tensor] = []
    prior, own = shipped
    purifier = Repaint(own, Resources(device=CPU, prior=prior, keep_masks=lambda _, masks: found.append(masks)))
    suspects = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return purifier(suspects, names), torch.cat(found)


@pytest.mark.parametrize("profile", ["standard", "backdoorbench"])
def test_a_patch_is_found_and_is_gone(shipped: tuple[Prior, RepaintSettings], photos: np.ndarray, profile: str):
    """The issue that this purifier is for: BackdoorBench's white corner, and the patch of random colours."""
    attack = get_attack("badnets", profile=profile)
    stamped = stamp(attack, photos, attack.make_trigger(32, seed=0))
    patch = torch.from_numpy((stamped != photos).any(axis=(0, 3)))
    assert patch.sum() == 9
    clean, clean_masks = repaint(shipped, photos, keys(COUNT))
    made, masks = repaint(shipped, stamped, keys(COUNT))
    assert masks[:, patch].float().mean() > 0.75, "of the patch, what is repainted"
    assert masks[:, ~patch].float().mean() < 0.04
    assert clean_masks.float().mean() < 0.03
    assert clean_masks.flatten(1).any(1).float().mean() < 0.6, "nothing is masked where nothing sticks out"
    before = np.abs(stamped.astype(int) - photos)[:, patch.numpy()].mean()
    after = np.abs(made.permute(0, 2, 3, 1).numpy().astype(int) - photos)[:, patch.numpy()].mean()
    assert after < 0.4 * before, "it is nearer to what was there"
    assert torch.equal(clean.permute(0, 2, 3, 1)[~clean_masks], torch.from_numpy(photos)[~clean_masks])
    assert torch.equal(made.permute(0, 2, 3, 1)[~masks], torch.from_numpy(stamped)[~masks]), "all else stays"


def test_key_and_seed_decide_and_nothing_else(shipped: tuple[Prior, RepaintSettings], photos: np.ndarray):
    names = keys(8)
    together, masks = repaint(shipped, photos[:8], names)
    order = [5, 2, 7]
    some, their_masks = repaint(shipped, photos[order], [names[i] for i in order])
    assert torch.equal(their_masks, masks[order])
    assert apart(some, together[order]) <= 1


def test_images_on_a_canvas_are_scored_each_by_itself():
    """A canvas of four: the smoothing of one image's score knows nothing of its neighbours."""
    images, names = pictures(4), keys(4)
    masks: list[Tensor] = []
    own = settings(**GIVEN, steps=4)
    purifier = Repaint(
        own, Resources(device=CPU, prior=made_up(2 * SIZE), keep_masks=lambda _, found: masks.append(found))
    )
    flat = images.clone()
    flat[1:] = 128
    purifier(images, names)
    purifier(torch.cat([images[:1], flat[1:]]), names)
    assert masks[0].shape == (4, SIZE, SIZE)
    assert torch.equal(masks[0][0], masks[1][0])


def test_where_nothing_sticks_out_the_image_comes_back():
    own = settings(**{**GIVEN, "seed_threshold": 1e6, "region_threshold": 1e6}, steps=4)
    images = pictures(3)
    assert torch.equal(Repaint(own, Resources(device=CPU, prior=made_up()))(images, keys(3)), images)


def test_defaults_and_calls():
    own = settings()
    assert (own.steps, own.start_step, own.residual_steps) == (20, 100, (100, 300, 500))
    assert own.calls(1000) == 3 + 2
    with pytest.raises(ValueError, match="needs levels and thresholds"):
        Repaint(own, Resources(device=CPU, prior=made_up()))
    assert PURIFIERS["repaint"] is Repaint


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"residual_steps": (100, 100)}, "must differ"),
        ({"residual_steps": ()}, "at least 1 item"),
        ({"levels": (1.0,)}, "given together"),
        ({**GIVEN, "levels": (1.0, 2.0)}, "one for each"),
        ({**GIVEN, "levels": (0.0,)}, "above 0"),
        ({"seed_share": 0.1}, "no less than"),
        ({"seed_share": 0}, "greater than 0"),
    ],
)
def test_settings_that_cannot_be(values: dict[str, object], words: str):
    with pytest.raises(ValidationError, match=words):
        settings(**values)


def test_a_list_as_it_is_typed():
    assert settings(residual_steps="100,400").residual_steps == (100, 400)
    assert settings(residual_steps=200).residual_steps == (200,)


def calibration(**changes: object) -> Calibration:
    values = {
        "image_size": 16,
        "residual_steps": (100, 300, 500),
        "levels": (0.1, 0.2, 0.3),
        "shares": (0.1, 0.01, 0.001),
        "scores": (1.0, 2.0, 3.0),
    }
    return Calibration.model_validate(values | changes)


def test_thresholds_come_from_a_calibration():
    got = settings(seed_share=0.001, region_share=0.0316).calibrated(calibration())
    assert (got.levels, got.seed_threshold, got.image_size) == ((0.1, 0.2, 0.3), 3.0, 16)
    assert got.region_threshold == pytest.approx(1.5, abs=0.01), "between shares, by their logarithms"
    assert settings(**GIVEN).calibrated(calibration()) == settings(**GIVEN), "one's own are left"
    with pytest.raises(ValueError, match="was calibrated at"):
        settings(residual_steps=(100, 300)).calibrated(calibration())
    with pytest.raises(ValueError, match=r"were measured, not 0\.0005"):
        settings(seed_share=0.0005).calibrated(calibration())
    with pytest.raises(ValueError, match="calibrated on 16 px images"):
        Repaint.images_per_row(got, 32, 32, prior_size=32)
    assert Repaint.images_per_row(got, 16, 16, prior_size=32) == 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"levels": (0.1, 0.2)}, "one for one"),
        ({"levels": (0.1, 0.2, 0.0)}, "above 0"),
        ({"scores": (1.0, 3.0, 2.0)}, "scores up"),
        ({"shares": (0.001, 0.01, 0.1)}, "go down"),
        ({"shares": (1.5, 0.01, 0.001)}, "between 0 and 1"),
        ({"scores": (1.0, 2.0, float("nan"))}, "finite"),
        ({"more": 1}, "Extra inputs"),
    ],
)
def test_calibrations_that_cannot_be(changes: dict[str, object], words: str):
    with pytest.raises(ValidationError, match=words):
        calibration(**changes)


def test_a_calibration_says_what_is_usual():
    """Of residuals that are the same everywhere the score is 1; of 0 throughout there is none."""
    got = calibration_of([torch.full((40, 3, 16, 16), 0.5)], [100], image_size=16)
    assert (got.levels, set(got.scores)) == ((0.5,), {1.0})
    spread = calibration_of(
        [torch.randn(200, 3, 16, 16, generator=torch.Generator().manual_seed(0))], [7], image_size=16
    )
    assert spread.levels[0] == pytest.approx((2 / np.pi) ** 0.5, rel=0.01)
    assert list(spread.shares) == [share for share in Calibration.SHARES if share * 200 * 256 >= 10]
    for broken in (torch.zeros(40, 3, 16, 16), torch.full((40, 3, 16, 16), float("nan"))):
        with pytest.raises(ValueError, match="not finite, or 0"):
            calibration_of([broken], [100], image_size=16)
    with pytest.raises(ValueError, match="too few"):
        calibration_of([torch.ones(1, 3, 4, 4)], [100], image_size=4)


def test_the_shipped_calibration_is_of_the_shipped_prior():
    folder = open_prior(Path(embedded_prior()))
    assert read_calibration(folder).residual_steps == settings().residual_steps


class SomeNan(EpsUNet):
    """NaN for the second image of a batch."""

    def forward(self, x: Tensor, *rest: object, **more: object) -> tuple[Tensor]:
        out = super().forward(x, *rest, **more)[0].clone()
        out[1:2] = float("nan")
        return (out,)


def test_what_is_not_finite_does_not_pass_for_clean():
    prior = Prior(SomeNan(), in_channels=3, out_channels=3, sample_size=SIZE, alpha_bar=ALPHA_BAR)
    with pytest.raises(NonFiniteError) as caught:
        Repaint(settings(**GIVEN, steps=4), Resources(device=CPU, prior=prior))(pictures(3), keys(3))
    assert caught.value.key == keys(3)[1]


def test_a_hole_is_filled_from_its_own_image_on_a_canvas():
    """Of four images on a canvas, one is black and masked in a corner that touches white neighbours."""
    images = torch.full((4, 3, SIZE, SIZE), 255, dtype=torch.uint8)
    images[0] = 0
    images[0, :, -3:, -3:] = 255
    made, alone = [], []
    for prior, batch, out in ((made_up(2 * SIZE), images, made), (made_up(), images[:1], alone)):
        own = settings(**{**GIVEN, "seed_threshold": 0.6, "region_threshold": 0.6}, steps=1000, start_step=1)
        out.append(Repaint(own, Resources(device=CPU, prior=prior))(batch, keys(len(batch))))
    assert apart(made[0][:1], alone[0]) <= 1
