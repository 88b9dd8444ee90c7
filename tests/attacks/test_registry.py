"""What every attack has in common, and getting one by name."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from tests.attacks.stamping import stamp
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
def test_every_parameter_says_what_it_is(attack: Attack):
    fields = type(attack.settings).model_fields
    assert fields
    assert all(field.description for field in fields.values())
    with pytest.raises(ValueError, match="frozen"):
        attack.settings.__setattr__(next(iter(fields)), 1)


@EVERY
def test_arguments_are_not_modified(attack: Attack):
    images, trigger = pictures(3), dict(trigger_of(attack, 32, seed=1))
    before = images.copy(), {name: array.copy() for name, array in trigger.items()}
    stamped = stamp(attack, images, trigger)
    assert np.array_equal(images, before[0])
    assert all(np.array_equal(trigger[name], before[1][name]) for name in trigger)
    assert not np.shares_memory(stamped, images)
    assert (stamped.shape, stamped.dtype) == (images.shape, np.uint8)
    assert not np.array_equal(stamped, images)


@EVERY
@pytest.mark.parametrize("training", [True, False])
def test_what_an_image_gets_depends_on_itself_its_key_and_label_alone(attack: Attack, *, training: bool):
    images, trigger, keys, labels = pictures(4), trigger_of(attack, 32, seed=1), ["a", "b", "c/d", "e"], [0, 1, 2, 1]
    together = stamp(attack, images, trigger, keys=keys, labels=labels, training=training)
    for i in reversed(range(4)):
        one = slice(i, i + 1)
        alone = stamp(attack, images[one], trigger, keys=keys[one], labels=labels[one], training=training)
        assert np.array_equal(together[one], alone)


@EVERY
@pytest.mark.parametrize("training", [True, False])
def test_empty_batch(attack: Attack, *, training: bool):
    stamped = stamp(attack, pictures(0), trigger_of(attack, 32, seed=1), training=training)
    assert (stamped.shape, stamped.dtype) == ((0, 32, 32, 3), np.uint8)


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
        stamp(attack, np.zeros(shape, np.uint8), trigger_of(attack, 32, seed=1))


def test_parameters_come_from_text():
    assert attack_params(get_attack("wanet", {"grid_size": "256", "strength": "0.75"})) == {
        "grid_size": 256,
        "strength": 0.75,
    }
    assert attack_params(get_attack("blended", {"alpha": "0.1"})) == {"alpha": 0.1}
    assert attack_params(get_attack("physicalba", {"patch_size": "4"})) == {"patch_size": 4}
    assert attack_params(get_attack("wanet", {"grid_size": " +1_0", "strength": "-5e-1"})) == {
        "grid_size": 10,
        "strength": -0.5,
    }
    assert attack_params(get_attack("tact", {"source_classes": "2", "cover_classes": "3, 4"})) == {
        "patch_size": 0,
        "source_classes": [2],
        "cover_classes": [3, 4],
    }
    assert attack_params(get_attack("adaptive-patch", {"alphas": [1, 0.5], "test_alphas": "1"})) == {
        "alphas": [1.0, 0.5],
        "test_alphas": [1.0],
    }
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
        (
            "badnets",
            {"alpha": "1"},
            r"attack badnets: unfit .*: patch_size\)\n  alpha = '1': Extra inputs are not",
        ),
        (
            "wanet",
            {"grid_size": "4.5"},
            r"attack wanet: unfit .*\n  grid_size = '4.5': Input should be a valid int",
        ),
        ("wanet", {"strength": "much"}, "strength = 'much': Input should be a valid number"),
        ("wanet", {"grid_size": "1"}, "grid_size = '1': Input should be greater than or equal to 2"),
        ("blended", {"alpha": "1.5"}, "alpha = '1.5': Input should be less than or equal to 1"),
        ("bpp", {"levels": "1"}, "levels = '1': Input should be greater than or equal to 2"),
        (
            "batt",
            {"angle": "16"},
            r"attack batt: unfit .*: angle_degrees\)\n  angle = '16': Extra inputs",
        ),
        ("sig", {"delta": "inf"}, "delta = 'inf': Input should be a finite number"),
        ("ftrojan", {"magnitude": "nan"}, "magnitude = 'nan': Input should be a finite number"),
        ("ctrl", {"magnitude": "x"}, "magnitude = 'x': Input should be a valid number"),
        ("blended", {"alpha": "nan"}, "alpha = 'nan': Input should be a finite number"),
        (
            "tact",
            {"source_classes": "1,"},
            "source_classes.1 = '': Value error, a class is a number of 0 or more",
        ),
        ("tact", {"source_classes": ""}, "source_classes.0 = '': Value error, a class is a number of 0 or more"),
        (
            "tact",
            {"cover_classes": "5,5"},
            "cover_classes = .*: Value error, must be different classes",
        ),
        ("tact", {"source_classes": "-1"}, "source_classes.0 = '-1': Value error, a class is a number of 0 or more"),
        ("tact", {"source_classes": "5"}, "class 5 cannot be both a source class and a cover class"),
        ("adaptive-blend", {"pieces": "15"}, "pieces = '15': Value error, must be a square number, such as 16"),
        ("adaptive-blend", {"mask_rate": "1"}, "mask_rate = '1': Input should be less than 1"),
        ("adaptive-blend", {"mask_rate": "0.99"}, "mask_rate must leave one of 16 pieces to be seen, got 0.99"),
        ("adaptive-blend", {"test_alpha": "0"}, "test_alpha = '0': Input should be greater than 0"),
        ("adaptive-patch", {"alphas": "0.5"}, "test_alphas are of the first patches"),
        ("adaptive-patch", {"test_alphas": "2"}, "test_alphas.0 = '2': Input should be less than or equal to 1"),
        ("label-consistent", {"patch_size": "0"}, "patch_size = '0': Input should be greater than or equal to 1"),
        ("lf", {"scale": "0"}, "scale = '0': Value error, must not be 0"),
        ("refool", {"alpha": "1"}, "alpha = '1': Input should be less than 1"),
        ("refool", {"reference_size": "4"}, "reference_size = '4': Input should be greater than or equal to 8"),
        ("refool", {"ghost_rate": "-1"}, "ghost_rate = '-1': Input should be greater than or equal to 0"),
    ],
)
def test_wrong_requests(name: str, params: dict[str, str], message: str):
    with pytest.raises(UsageError, match=message):
        get_attack(name, params)


@pytest.mark.parametrize(("name", "param"), [("badnets", ("patch_size", "-2")), ("wanet", ("strength", "nan"))])
def test_parameters_out_of_range_are_usage_errors(name: str, param: tuple[str, str]):
    with pytest.raises(UsageError, match=param[0]):
        get_attack(name, dict([param]))
