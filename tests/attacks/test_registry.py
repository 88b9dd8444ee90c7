"""What every attack has in common, and getting one by name."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from zipbatch.attacks import (
    ATTACKS,
    PROFILES,
    Attack,
    FromArray,
    FromPicture,
    FromPictures,
    Trigger,
    attack_params,
    get_attack,
)
from zipbatch.errors import UsageError

EVERY = pytest.mark.parametrize("attack", ATTACKS.values(), ids=list(ATTACKS))
DRAWN = {"badnets", "blended", "wanet", "physicalba", "adaptive-blend", "adaptive-patch", "tact", "refool"}
"""The others' triggers are formulas without chance."""


def pictures(count: int, size: int = 32) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (count, size, size, 3)).astype(np.uint8)


def trigger_of(attack: Attack, image_size: int, *, seed: int) -> Trigger:
    """Its own, or that of some picture, pictures or array."""
    rng = np.random.default_rng(3)
    if attack.needs is None:
        return attack.make_trigger(image_size, seed=seed)
    if isinstance(attack, FromArray):
        return attack.trigger_from_array(rng.integers(0, 52, (image_size, image_size, 3)), image_size)
    if isinstance(attack, FromPictures):
        return attack.trigger_from_pictures(list(pictures(3, image_size)), image_size, seed=seed)
    assert isinstance(attack, FromPicture)
    return attack.trigger_from(rng.integers(0, 256, (4, 5, 4)).astype(np.uint8), image_size)


def test_published_defaults():
    assert {
        name: (attack.name, attack.default_target, attack.default_poison_rate, attack.clean_label)
        for name, attack in ATTACKS.items()
    } == {
        "badnets": ("badnets", 1, 0.05, False),
        "blended": ("blended", 1, 0.05, False),
        "wanet": ("wanet", 0, 0.10, False),
        "physicalba": ("physicalba", 1, 0.05, False),
        "sig": ("sig", 0, 0.10, True),
        "ftrojan": ("ftrojan", 0, 0.10, False),
        "ctrl": ("ctrl", 0, 0.05, True),
        "bpp": ("bpp", 0, 0.10, False),
        "batt": ("batt", 1, 0.05, False),
        "patch": ("patch", 0, 0.05, False),
        "pattern": ("pattern", 0, 0.05, False),
        "adaptive-blend": ("adaptive-blend", 0, 0.003, False),
        "adaptive-patch": ("adaptive-patch", 0, 0.01, False),
        "tact": ("tact", 0, 0.003, False),
        "label-consistent": ("label-consistent", 2, 0.025, True),
        "lf": ("lf", 0, 0.10, False),
        "refool": ("refool", 0, 0.10, False),
    }
    assert {name: attack_params(attack) for name, attack in ATTACKS.items()} == {
        "badnets": {"patch_size": 0},
        "blended": {"alpha": 0.2},
        "wanet": {"grid_size": 4, "strength": 0.5},
        "physicalba": {"patch_size": 0},
        "sig": {"delta": 40.0, "frequency": 6.0},
        "ftrojan": {"magnitude": 30.0},
        "ctrl": {"magnitude": 100.0},
        "bpp": {"levels": 8},
        "batt": {"angle_degrees": 16.0},
        "patch": {"row": -1, "column": -1, "width": 0, "alpha": 1.0},
        "pattern": {"alpha": 0.2},
        "adaptive-blend": {"alpha": 0.2, "test_alpha": 0.2, "pieces": 16, "mask_rate": 0.5},
        "adaptive-patch": {"alphas": [0.5, 0.5, 0.2, 0.3], "test_alphas": [1.0, 1.0]},
        "tact": {"patch_size": 0, "source_classes": [1], "cover_classes": [5, 7]},
        "label-consistent": {"patch_size": 3, "alpha": 1.0},
        "lf": {"scale": 1.0},
        "refool": {"alpha": 0.0, "ghost_rate": 0.49, "reference_size": 560},
    }
    covers = {name: attack.default_cover_rate for name, attack in ATTACKS.items() if attack.default_cover_rate}
    assert covers == {"adaptive-blend": 0.003, "adaptive-patch": 0.02, "tact": 0.003}
    assert {name for name, attack in ATTACKS.items() if attack.source_classes or attack.cover_classes} == {"tact"}


def test_published_code_as_a_profile():
    """What the ZIP reference code attacks with; what it lacks is an error that says what it has."""
    assert {
        name: (attack_params(attack), attack.default_target, attack.default_poison_rate, attack.shuffles)
        for name, attack in PROFILES["zip-code"].items()
    } == {
        "badnets": ({"patch_size": 0}, 1, 0.05, ("train",)),
        "blended": ({"alpha": 0.2}, 1, 0.05, ("train",)),
        "wanet": ({"grid_size": 256, "strength": 0.5}, 0, 0.10, ("train",)),
        "physicalba": ({"patch_size": 0}, 1, 0.05, ("train", "test", "train")),
    }
    assert get_attack("wanet", profile="zip-code") == PROFILES["zip-code"]["wanet"]
    assert attack_params(get_attack("wanet", {"strength": "1"}, profile="zip-code")) == {
        "grid_size": 256,
        "strength": 1.0,
    }
    with pytest.raises(UsageError, match="profile zip-code has no attack sig; it has: badnets, blended, wanet, phys"):
        get_attack("sig", profile="zip-code")
    with pytest.raises(UsageError, match="unknown profile 'zip'; known: standard, zip-code, backdoorbench"):
        get_attack("wanet", profile="zip")


def test_training_transforms_exist():
    from zipbatch.victims import TRAIN_TRANSFORMS

    named = {attack.train_transform for attack in ATTACKS.values()} - {None}
    assert named == set(TRAIN_TRANSFORMS) == {"physicalba", "batt"}


@EVERY
def test_arguments_are_not_modified(attack: Attack):
    images, trigger = pictures(3), dict(trigger_of(attack, 32, seed=1))
    before = images.copy(), {name: array.copy() for name, array in trigger.items()}
    stamped = attack.apply(images, trigger)
    assert np.array_equal(images, before[0])
    assert all(np.array_equal(trigger[name], before[1][name]) for name in trigger)
    assert not np.shares_memory(stamped, images)
    assert (stamped.shape, stamped.dtype) == (images.shape, np.uint8)
    assert not np.array_equal(stamped, images)


@EVERY
def test_images_do_not_affect_each_other(attack: Attack):
    images, trigger = pictures(4), trigger_of(attack, 32, seed=1)
    together = attack.apply(images, trigger)
    alone = np.concatenate([attack.apply(images[i : i + 1], trigger) for i in reversed(range(4))])[::-1]
    assert np.array_equal(together, alone)


@EVERY
@pytest.mark.parametrize("training", [True, False])
def test_what_an_image_gets_depends_on_its_key_alone(attack: Attack, *, training: bool):
    images, trigger, keys = pictures(4), trigger_of(attack, 32, seed=1), ["a", "b", "c/d", "e"]
    together = attack.stamp(images, trigger, keys=keys, training=training)
    for i, key in enumerate(keys):
        alone = attack.stamp(images[i : i + 1], trigger, keys=[key], training=training)
        assert np.array_equal(together[i : i + 1], alone)
    if not training and attack.name != "refool":
        assert np.array_equal(together, attack.apply(images, trigger))


@EVERY
def test_empty_batch(attack: Attack):
    assert attack.apply(pictures(0), trigger_of(attack, 32, seed=1)).shape == (0, 32, 32, 3)


@EVERY
def test_seed_decides_and_global_generators_stay(attack: Attack):
    torch.manual_seed(5)
    random.seed(5)
    states = torch.get_rng_state(), random.getstate()
    first, again, other = (trigger_of(attack, 32, seed=seed) for seed in (3, 3, 4))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert any(not np.array_equal(first[name], other[name]) for name in first) == (attack.name in DRAWN)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()


@EVERY
@pytest.mark.parametrize("shape", [(2, 31, 31, 3), (2, 32, 31, 3), (2, 32, 32, 1), (2, 3, 32, 32), (32, 32, 3)])
def test_wrong_image_size(attack: Attack, shape: tuple[int, ...]):
    with pytest.raises(ValueError, match="the trigger is for 32x32 RGB images"):
        attack.apply(np.zeros(shape, np.uint8), trigger_of(attack, 32, seed=1))


def test_parameters_come_from_text():
    assert attack_params(get_attack("wanet", {"grid_size": "256", "strength": "0.75"})) == {
        "grid_size": 256,
        "strength": 0.75,
    }
    assert attack_params(get_attack("blended", {"alpha": "0.1"})) == {"alpha": 0.1}
    assert attack_params(get_attack("physicalba", {"patch_size": "4"})) == {"patch_size": 4}
    assert get_attack("badnets") == ATTACKS["badnets"]
    assert attack_params(ATTACKS["wanet"]) == {"grid_size": 4, "strength": 0.5}


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        (
            "badnet",
            {},
            "unknown attack 'badnet'; known: adaptive-blend, adaptive-patch, badnets, batt, blended, ",
        ),
        ("badnets", {"alpha": "1"}, "attack badnets has no parameter 'alpha'; it has: patch_size"),
        ("wanet", {"grid_size": "4.5"}, "attack wanet: grid_size must be a int, got '4.5'"),
        ("wanet", {"strength": "much"}, "attack wanet: strength must be a float, got 'much'"),
        ("wanet", {"grid_size": "1"}, "attack wanet: grid_size must be in 2 to 4096, got 1"),
        ("blended", {"alpha": "1.5"}, r"attack blended: alpha must be in \(0, 1\], got 1.5"),
        ("bpp", {"levels": "1"}, "attack bpp: levels must be in 2 to 255, got 1"),
        ("batt", {"angle": "16"}, "attack batt has no parameter 'angle'; it has: angle_degrees"),
        ("sig", {"delta": "inf"}, "attack sig: delta and frequency must be finite, got inf and 6.0"),
        ("ftrojan", {"magnitude": "nan"}, "attack ftrojan: magnitude must be finite, got nan"),
        ("ctrl", {"magnitude": "x"}, "attack ctrl: magnitude must be a float, got 'x'"),
        ("blended", {"alpha": "nan"}, r"attack blended: alpha must be in \(0, 1\], got nan"),
        ("tact", {"source_classes": "1,x"}, "attack tact: source_classes must be ints such as 1,2, got '1,x'"),
        ("tact", {"source_classes": ""}, "attack tact: source_classes must be ints such as 1,2, got ''"),
        ("tact", {"cover_classes": "5,5"}, "attack tact: cover_classes must be different class numbers"),
        ("tact", {"source_classes": "-1"}, "attack tact: source_classes must be different class numbers"),
        ("tact", {"source_classes": "5"}, "class 5 cannot be both a source class and a cover class"),
        ("adaptive-blend", {"pieces": "15"}, "pieces must be a square number of 1 to 1024, such as 16, got 15"),
        ("adaptive-blend", {"mask_rate": "1"}, "mask_rate must leave a piece to be seen"),
        ("adaptive-blend", {"mask_rate": "0.99"}, "mask_rate must leave a piece to be seen"),
        ("adaptive-blend", {"test_alpha": "0"}, r"test_alpha must be in \(0, 1\], got 0"),
        ("adaptive-patch", {"alphas": "0.5"}, "test_alphas are of the first patches"),
        ("adaptive-patch", {"test_alphas": "2"}, r"test_alphas must be in \(0, 1\], got 2"),
        ("label-consistent", {"patch_size": "0"}, "patch_size must be 1 or more, got 0"),
        ("lf", {"scale": "0"}, "scale must be finite and not 0, got 0"),
        ("refool", {"alpha": "1"}, r"alpha must be in \[0, 1\), 0 to draw it for each image, got 1"),
        ("refool", {"reference_size": "4"}, "reference_size must be in 8 to 65536, got 4"),
        ("refool", {"ghost_rate": "-1"}, r"ghost_rate must be in \[0, 1\], got -1"),
    ],
)
def test_wrong_requests(name: str, params: dict[str, str], message: str):
    with pytest.raises(UsageError, match=message):
        get_attack(name, params)


@pytest.mark.parametrize(("name", "param"), [("badnets", ("patch_size", "-2")), ("wanet", ("strength", "nan"))])
def test_parameters_out_of_range_are_usage_errors(name: str, param: tuple[str, str]):
    with pytest.raises(UsageError, match=param[0]):
        get_attack(name, dict([param]))
