"""Poisoned indices are those of the published code."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zipbatch.attacks import PROFILES, chosen_indices, poison_indices

SEED = 1234
IMAGENETTE_TRAIN, IMAGENETTE_TEST, CIFAR_TRAIN = 9469, 3925, 50_000


def first_in_order(sizes: list[int], count: int) -> list[int]:
    """The first drawn indices in their order: what each step up in rate adds."""
    sets = [poison_indices(sizes, (i + 0.5) / sizes[-1], seed=SEED) for i in range(count + 1)]
    assert [len(drawn) for drawn in sets] == list(range(count + 1))
    return [next(iter(more - less)) for less, more in pairwise(sets)]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([IMAGENETTE_TRAIN], [5455, 5274, 5947, 8371, 5115, 2938]),
        ([CIFAR_TRAIN], [4564, 15975, 32972, 20607, 32086, 26368]),
        ([IMAGENETTE_TRAIN, IMAGENETTE_TEST, IMAGENETTE_TRAIN], [2012, 2342, 6675, 6513, 7643, 9016]),
    ],
    ids=["imagenette", "cifar10", "physicalba-imagenette"],
)
def test_published_indices(sizes: list[int], expected: list[int]):
    assert first_in_order(sizes, 6) == expected


def test_attacks_shuffle_as_published():
    counts = {"train": IMAGENETTE_TRAIN, "test": IMAGENETTE_TEST}
    drawn = {
        name: poison_indices([counts[split] for split in attack.shuffles], attack.default_poison_rate, seed=SEED)
        for name, attack in PROFILES["zip-code"].items()
    }
    assert {name: len(indices) for name, indices in drawn.items()} == {
        "badnets": 473,
        "blended": 473,
        "wanet": 946,
        "physicalba": 473,
    }
    assert drawn["badnets"] == drawn["blended"]
    assert drawn["badnets"] < drawn["wanet"]
    assert {5455, 5274, 5947, 8371, 5115, 2938} <= drawn["badnets"]
    assert {2012, 2342, 6675, 6513, 7643, 9016} <= drawn["physicalba"]


def test_seed_decides():
    assert poison_indices([1000], 0.1, seed=1) == poison_indices([1000], 0.1, seed=1)
    assert poison_indices([1000], 0.1, seed=1) != poison_indices([1000], 0.1, seed=2)


@given(st.integers(0, 300), st.floats(0, 1), st.integers(0, 99))
def test_count_and_range(n: int, rate: float, seed: int):
    drawn = poison_indices([n], rate, seed=seed)
    assert len(drawn) == int(n * rate)
    assert all(0 <= index < n for index in drawn)


def test_every_image_at_rate_one():
    assert poison_indices([17], 1.0, seed=SEED) == set(range(17))
    assert poison_indices([17], 0.0, seed=SEED) == set()


@pytest.mark.parametrize("rate", [-0.01, 1.01, float("nan")])
def test_rate_outside_its_range(rate: float):
    with pytest.raises(ValueError, match=r"poison rate must be in \[0, 1\]"):
        poison_indices([10], rate, seed=SEED)


def test_no_sizes():
    with pytest.raises(ValueError, match="sizes"):
        poison_indices([], 0.1, seed=SEED)


def test_drawn_among_some():
    """The same shuffle, less the others; the rate is of all images."""
    among = frozenset(range(3, 100, 10))
    order = first_in_order([100], 99)
    drawn = [poison_indices([100], rate / 100 + 1e-9, seed=SEED, among=among) for rate in range(11)]
    eligible = [index for index in order if index in among]
    assert len(eligible) == len(among) == 10
    assert drawn == [frozenset(eligible[:count]) for count in range(11)]
    assert poison_indices([100], 0.3, seed=SEED, among=range(100)) == poison_indices([100], 0.3, seed=SEED)


def test_too_few_to_draw_among():
    assert poison_indices([100], 0.1, seed=SEED, among=range(10)) == set(range(10))
    with pytest.raises(ValueError, match=r"0\.11 of 100 images is 11, but only 10 may be"):
        poison_indices([100], 0.11, seed=SEED, among=range(10))


@given(st.integers(0, 300), st.floats(0, 1), st.integers(0, 99))
def test_chosen_count_and_range(n: int, rate: float, seed: int):
    drawn = chosen_indices(n, rate, seed=seed)
    assert len(drawn) == round(n * rate)
    assert drawn <= set(range(n))
    assert drawn == chosen_indices(n, rate, seed=seed, among=range(n))


def test_chosen_among_some():
    among = list(range(3, 100, 10))
    assert chosen_indices(100, 0.05, seed=SEED, among=among) < set(among)
    assert chosen_indices(100, 0.1, seed=SEED, among=among) == set(among)
    with pytest.raises(ValueError, match=r"0\.11 of 100 images is 11, but only 10 may be"):
        chosen_indices(100, 0.11, seed=SEED, among=among)
    with pytest.raises(ValueError, match=r"poison rate must be in \[0, 1\]"):
        chosen_indices(100, 1.5, seed=SEED)
