"""BadNets and PhysicalBA put the published patch at the published place."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from tests.attacks.stamping import stamp
from zipbatch.attacks import ATTACKS, get_attack
from zipbatch.attacks.badnets import BadNets, BadNetsSettings
from zipbatch.attacks.physicalba import PhysicalBA

SEED = 1234
RED = [[228, 130, 41], [32, 13, 170], [241, 137, 202]]
GREEN = [[225, 63, 115], [247, 125, 107], [203, 131, 224]]
BLUE = [[212, 4, 141], [65, 154, 106], [239, 1, 176]]


def patch_of(attack: BadNets, size: int) -> np.ndarray:
    return attack.make_trigger(size, seed=SEED)["patch"]


@pytest.mark.parametrize("attack", [BadNets(), PhysicalBA()], ids=lambda attack: attack.name)
def test_published_pattern(attack: BadNets):
    patch = patch_of(attack, 32)
    assert patch.dtype == np.uint8
    assert patch.shape == (3, 3, 3)
    assert patch.transpose(2, 0, 1).tolist() == [RED, GREEN, BLUE]


@pytest.mark.parametrize(("size", "side", "digest"), [(32, 3, "e75a546e3c236934"), (256, 9, "c58fa07fe4e5dfb7")])
def test_published_bytes(size: int, side: int, digest: str):
    patch = patch_of(BadNets(), size)
    assert patch.shape == (side, side, 3)
    planes = np.ascontiguousarray(patch.transpose(2, 0, 1)).tobytes()
    assert hashlib.sha256(planes).hexdigest()[:16] == digest


@pytest.mark.parametrize(("size", "first", "last"), [(32, 26, 28), (128, 122, 124), (129, 117, 125), (256, 244, 252)])
@pytest.mark.parametrize("attack", [BadNets(), PhysicalBA()], ids=lambda attack: attack.name)
def test_place_of_the_patch(attack: BadNets, size: int, first: int, last: int):
    trigger = attack.make_trigger(size, seed=SEED)
    black = stamp(attack, np.zeros((2, size, size, 3), np.uint8), trigger)
    white = stamp(attack, np.full((2, size, size, 3), 255, np.uint8), trigger)
    rows, columns = (sorted(set(axis.tolist())) for axis in np.nonzero((black[0] != 0).any(axis=2)))
    assert rows == columns == list(range(first, last + 1))
    inside = np.zeros((size, size), bool)
    inside[first : last + 1, first : last + 1] = True
    for image in black:
        assert np.array_equal(image[inside].reshape(trigger["patch"].shape), trigger["patch"])
    assert np.array_equal(black[:, inside], white[:, inside])
    assert (black[:, ~inside] == 0).all()
    assert (white[:, ~inside] == 255).all()


def test_patch_size_is_a_parameter():
    attack = get_attack("badnets", {"patch_size": "2"})
    stamped = stamp(attack, np.zeros((1, 32, 32, 3), np.uint8), attack.make_trigger(32, seed=SEED))
    rows, columns, _ = np.nonzero(stamped[0])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (27, 28, 27, 28)


@pytest.mark.parametrize(("patch_size", "image_size", "fits"), [(5, 8, True), (6, 8, False), (0, 5, False)])
def test_patch_that_does_not_fit(patch_size: int, image_size: int, fits: bool):
    attack = BadNets(BadNetsSettings(patch_size=patch_size))
    if fits:
        assert attack.make_trigger(image_size, seed=0)["patch"].shape == (patch_size, patch_size, 3)
    else:
        with pytest.raises(ValueError, match=f"does not fit into {image_size} px"):
            attack.make_trigger(image_size, seed=0)


def test_seed_makes_the_pattern():
    again = BadNets().make_trigger(32, seed=SEED)["patch"]
    other = BadNets().make_trigger(32, seed=SEED + 1)["patch"]
    assert np.array_equal(patch_of(BadNets(), 32), again)
    assert not np.array_equal(again, other)


def test_physicalba_differs_in_training_only():
    physical, plain = ATTACKS["physicalba"], ATTACKS["badnets"]
    assert (plain.train_transform, physical.train_transform) == (None, "physicalba")
    assert (plain.shuffles, physical.shuffles) == (("train",), ("train", "test", "train"))
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    stamped = [stamp(attack, images, attack.make_trigger(32, seed=SEED)) for attack in (plain, physical)]
    assert np.array_equal(stamped[0], stamped[1])
