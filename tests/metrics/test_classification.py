"""CA, ASR, PA, RA counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from zipbatch.metrics import (
    Share,
    attack_success,
    clean_accuracy,
    collapsed,
    defence_effectiveness,
    disrupted,
    false_positives,
    flips,
    poisoned_accuracy,
    robust_accuracy,
)

# Ten stamped images, target class 1. Three are of class 1 already: two of them taken for 1, one for 2.
# Of the other seven: four taken for the target, two for what they are, one for a third class.
ORIGINAL = np.array([1, 1, 1, 0, 0, 2, 2, 0, 2, 0])
PREDICTED = np.array([1, 1, 2, 1, 1, 1, 1, 0, 2, 2])
TARGET = np.ones(10, np.int64)


def test_hand_count():
    assert attack_success(PREDICTED, TARGET, ORIGINAL) == Share(4, 7)
    assert poisoned_accuracy(PREDICTED, ORIGINAL) == Share(4, 10)  # two of the target class, two others
    assert robust_accuracy(PREDICTED, TARGET, ORIGINAL) == Share(2, 7)
    assert clean_accuracy(PREDICTED, np.array([1, 1, 1, 1, 1, 1, 1, 1, 1, 1])) == Share(6, 10)


def test_target_class_images_raise_pa_alone():
    """Where the attack always wins, PA is the share of the target class and RA is nothing (REFERENCE, metrics)."""
    original = np.arange(100) % 10
    target, predicted = np.ones(100, np.int64), np.ones(100, np.int64)
    assert attack_success(predicted, target, original).value == 1.0
    assert poisoned_accuracy(predicted, original).value == 0.1
    assert robust_accuracy(predicted, target, original) == Share(0, 90)


def test_each_image_has_its_own_target():
    """All-to-all attacks: the target is looked up row by row."""
    original, target, predicted = np.array([0, 1, 2, 2]), np.array([1, 2, 0, 2]), np.array([1, 2, 2, 2])
    assert attack_success(predicted, target, original) == Share(2, 3)
    assert robust_accuracy(predicted, target, original) == Share(1, 3)


def test_plain_errors_are_no_attack():
    """Of seven clean images of other classes a victim takes one for the target, 1."""
    label = np.array([1, 1, 1, 0, 0, 2, 2, 0, 2, 0])
    predicted = np.array([1, 1, 2, 0, 1, 2, 2, 0, 0, 0])
    assert false_positives(predicted, TARGET, label) == Share(1, 7)


def test_only_target_class_images():
    ones = np.ones(4, np.int64)
    assert attack_success(ones, ones, ones) == Share(0, 0)
    assert robust_accuracy(ones, ones, ones).value is None


def test_shards_add_up():
    parts = [slice(0, 1), slice(1, 6), slice(6, 10)]
    total = sum((attack_success(PREDICTED[part], TARGET[part], ORIGINAL[part]) for part in parts), Share())
    assert total == attack_success(PREDICTED, TARGET, ORIGINAL)


def test_nothing_measured():
    assert Share().value is None
    assert Share().interval() is None


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        (8, 10, 0.49016, 0.94332),  # (0.8 + 0.19207) / 1.38415 -+ 0.31363 / 1.38415
        (0, 10, 0.0, 0.27753),  # z^2 / (n + z^2) = 3.84146 / 13.84146
        (10, 10, 0.72247, 1.0),
        (1, 1, 0.20655, 1.0),
        (50, 100, 0.40383, 0.59617),
    ],
)
def test_wilson_interval(hits: int, n: int, low: float, high: float):
    assert Share(hits, n).interval() == pytest.approx((low, high), abs=1e-5)


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 3), (9_999, 10_000), (10_000, 10_000)])
def test_interval_solves_wilsons_equation(hits: int, n: int):
    """Its ends are the p at which the observed share is 1.96 standard errors away."""
    interval, share = Share(hits, n).interval(), hits / n
    assert interval is not None
    assert 0 <= interval[0] <= share <= interval[1] <= 1
    for end in interval:
        assert (share - end) ** 2 == pytest.approx(1.959964**2 * end * (1 - end) / n, abs=1e-12)


def test_flips():
    before, after = np.array([0, 0, 1, 1, 1, 2]), np.array([0, 2, 1, 0, 0, 2])
    assert flips(before, after) == {(0, 0): 1, (0, 2): 1, (1, 0): 2, (1, 1): 1, (2, 2): 1}
    assert flips(before[:0], after[:0]) == {}


def test_flips_of_different_numbers():
    with pytest.raises(ValueError, match="5 and 6"):
        flips(np.zeros(5, np.int64), np.zeros(6, np.int64))


@pytest.mark.parametrize(
    ("ca", "asr", "expected"),
    [
        (0.9, 1.0, 0.5),  # nothing done, nothing lost
        (0.9, 0.0, 1.0),  # all of the attack gone for nothing
        (0.8, 0.0, 0.95),
        (0.95, 0.4, 0.8),  # a gain in accuracy counts for nothing
        (0.5, 1.0, 0.3),
        (None, 0.0, None),
        (0.9, None, None),
    ],
)
def test_defence_effectiveness(ca: float | None, asr: float | None, expected: float | None):
    found = defence_effectiveness(ca, asr, ca_before=0.9, asr_before=1.0)
    assert found == (None if expected is None else pytest.approx(expected))


def test_what_becomes_of_images():
    """Recovered (RA), kept (ASR) and disrupted are all there is of stamped images; collapsed is of clean ones."""
    original, target = np.array([0, 1, 2, 3, 1]), np.full(5, 1)
    predicted = np.array([0, 1, 1, 0, 2])  # recovered, of the target itself, kept, disrupted, of the target itself
    assert disrupted(predicted, target, original) == Share(1, 3)
    assert robust_accuracy(predicted, target, original) + attack_success(predicted, target, original) == Share(2, 6)
    before, after = np.array([0, 1, 2, 0]), np.array([0, 2, 1, 3])
    assert collapsed(before, after, np.array([0, 1, 2, 3])) == Share(2, 3)
    with pytest.raises(ValueError, match="differ in number"):
        collapsed(before, after[:2], before)
