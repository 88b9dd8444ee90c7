"""Adaptive-Blend and Adaptive-Patch: what a training image gets of the trigger, and what a test image."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from tests.attacks.stamping import stamp
from tests.attacks.test_golden import SEED, ramp
from tests.attacks.test_patch import images, rgba
from zipbatch.attacks.adaptive import AdaptiveBlend, AdaptiveBlendSettings, AdaptivePatch, AdaptivePatchSettings

KEYS = ["train_0001", "b/2"]


def sha(stamped: np.ndarray) -> str:
    return hashlib.sha256(stamped.tobytes()).hexdigest()[:16]


def framed(seed: int, place: tuple[slice, slice], size: int = 32) -> np.ndarray:
    """An RGBA picture of the images' size, opaque on a place of it alone."""
    picture = rgba(size, size, seed=seed, opacity=0)
    picture[place[0], place[1], 3] = 255
    return picture


def test_half_of_the_sixteen_pieces_in_training_and_all_at_the_test():
    attack, clean = AdaptiveBlend(), np.zeros((40, 32, 32, 3), np.uint8)
    trigger = dict(attack.make_trigger(32, seed=1), pattern=np.full((32, 32, 1), 200, np.uint8))
    stamped = stamp(attack, clean, trigger, keys=[f"k{i}" for i in range(40)], training=True)
    pieces = stamped.reshape(40, 4, 8, 4, 8, 3)
    changed = pieces.any(axis=(2, 4, 5))
    assert (changed.sum(axis=(1, 2)) == 8).all()
    assert (pieces.transpose(0, 1, 3, 2, 4, 5)[changed] == 40).all()  # .2 of 200
    assert len({tuple(row) for row in changed.reshape(40, 16).tolist()}) > 35
    assert (changed.mean(axis=0) > 0.25).all()
    assert (changed.mean(axis=0) < 0.75).all()
    assert (stamp(attack, clean, trigger, keys=KEYS * 20, training=False) == 40).all()


def test_opacities_and_pieces_of_ones_own():
    attack = AdaptiveBlend(AdaptiveBlendSettings(alpha=0.5, test_alpha=1.0, pieces=4, mask_rate=0.25))
    trigger = dict(attack.make_trigger(33, seed=1), pattern=np.full((33, 33, 1), 200, np.uint8))
    clean = np.zeros((2, 33, 33, 3), np.uint8)
    stamped = stamp(attack, clean, trigger, keys=KEYS, training=True)
    assert set(np.unique(stamped)) == {0, 100}
    assert [int((row == 0).all(axis=2).sum()) in {16 * 16, 16 * 17, 17 * 17} for row in stamped] == [True, True]
    assert (stamp(attack, clean, trigger) == 200).all()
    with pytest.raises(ValueError, match="16 pieces need images of 4 px, got 3"):
        AdaptiveBlend().make_trigger(3, seed=1)


def test_a_picture_is_blended_where_it_is_opaque():
    attack, clean = AdaptiveBlend(), images()
    picture = framed(1, (slice(0, 16), slice(0, 32)))
    trigger = attack.trigger_from_pictures([picture], 32, seed=3)
    stamped = stamp(attack, clean, trigger)
    expected = 0.8 * clean[:, :16] + 0.2 * picture[None, :16, :, :3]
    assert np.abs(stamped[:, :16] - expected).max() <= 0.5 + 1e-3
    assert np.array_equal(stamped[:, 16:], clean[:, 16:])
    for wrong in ([], [picture] * 2):
        with pytest.raises(ValueError, match="takes one picture, got"):
            attack.trigger_from_pictures(wrong, 32, seed=3)


def test_one_patch_in_training_and_the_first_two_at_the_test():
    attack, clean = AdaptivePatch(), np.full((200, 32, 32, 3), 100, np.uint8)
    trigger = attack.make_trigger(32, seed=SEED)
    places = [(slice(26, 32), slice(26, 32)), (slice(0, 6), slice(0, 6)), (slice(26, 32), slice(0, 6))]
    places.append((slice(0, 6), slice(26, 32)))
    stamped = stamp(attack, clean, trigger, keys=[str(i) for i in range(200)], training=True)
    changed = np.stack([(stamped[:, rows, columns] != 100).any(axis=(1, 2, 3)) for rows, columns in places], axis=1)
    assert (changed.sum(axis=1) == 1).all()
    assert (changed.sum(axis=0) > 30).all()
    for i, ((rows, columns), alpha) in enumerate(zip(places, (0.5, 0.5, 0.2, 0.3), strict=True)):
        drawn = trigger["patterns"][i, rows, columns]
        got = stamped[changed[:, i]][:, rows, columns]
        assert np.abs(got - ((1 - alpha) * 100 + alpha * drawn)).max() <= 0.5 + 1e-3
    tested = stamp(attack, clean[:2], trigger, keys=KEYS, training=False)
    for i, (rows, columns) in enumerate(places):
        shown = trigger["patterns"][i, rows, columns] if i < 2 else np.full((6, 6, 3), 100)
        assert np.array_equal(tested[0, rows, columns], shown)


def test_pictures_that_lie_on_each_other_are_stamped_in_turn():
    attack = AdaptivePatch(AdaptivePatchSettings(alphas=(0.5, 0.5), test_alphas=(1.0, 0.5)))
    pictures = [framed(1, (slice(0, 8), slice(0, 8))), framed(2, (slice(4, 12), slice(4, 12)))]
    clean, trigger = images(), attack.trigger_from_pictures(pictures, 32, seed=1)
    stamped = stamp(attack, clean, trigger).astype(np.float64)
    assert np.array_equal(stamped[0, :4, :4], pictures[0][:4, :4, :3])
    both = 0.5 * pictures[0][4:8, 4:8, :3] + 0.5 * pictures[1][4:8, 4:8, :3]
    assert np.abs(stamped[:, 4:8, 4:8] - both).max() <= 0.5


@pytest.mark.parametrize(
    ("pictures", "words"),
    [
        ([rgba(4, 4, opacity=9)] * 3, "takes 4 pictures, one for each of alphas, got 3.*‹params={'alphas': "),
        ([rgba(4, 4, opacity=9)] * 3 + [rgba(4, 4)], "picture 4 covers the whole image; make it transparent"),
        ([rgba(4, 4, opacity=0)] * 4, "transparent all over"),
    ],
)
def test_pictures_that_do_not_do(pictures: list[np.ndarray], words: str):
    with pytest.raises(ValueError, match=words):
        AdaptivePatch().trigger_from_pictures(pictures, 32, seed=1)


def test_patches_that_cannot_be_drawn():
    with pytest.raises(ValueError, match="draws 4 patches at most"):
        AdaptivePatch(AdaptivePatchSettings(alphas=(0.5,) * 5)).make_trigger(32, seed=1)
    with pytest.raises(ValueError, match="patches of 3 px in the corners need images of 6 px, got 5"):
        AdaptivePatch().make_trigger(5, seed=1)


GOLDEN = {"adaptive-blend": "14bf1421cfda6437", "adaptive-patch": "4045319f8fddf16d"}


@pytest.mark.parametrize("attack", [AdaptiveBlend(), AdaptivePatch()], ids=lambda attack: attack.name)
def test_training_bytes(attack: AdaptiveBlend | AdaptivePatch):
    """What two keys get in training; the bytes of the test are among those of every attack."""
    trigger = attack.make_trigger(32, seed=SEED)
    stamped = stamp(attack, np.repeat(ramp(), 2, axis=0), trigger, keys=KEYS, training=True)
    assert sha(stamped) == GOLDEN[attack.name]
