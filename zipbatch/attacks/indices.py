"""Which training images are poisoned."""

from __future__ import annotations

import random
from collections.abc import Container, Sequence
from collections.abc import Set as AbstractSet

import numpy as np


def poison_indices(
    sizes: Sequence[int], rate: float, *, seed: int, among: Container[int] | None = None
) -> frozenset[int]:
    """Indices of the poisoned images, as the published code draws them: shuffle, take the first ``int(n * rate)``.

    One generator shuffles ``range(n)`` for each ``n`` of ``sizes`` in turn, and the indices are read off the last
    shuffle. Images of the target class are drawn like any others, unless ``among`` says which alone may be drawn: then
    the first ``int(n * rate)`` of those are taken, where ``n`` still counts all images (BackdoorBench's pratio).

    Args:
        sizes: image counts of the datasets built before and including the poisoned one.
        rate: share of the last dataset to poison, 0..1.
        seed: seed of the shuffles.
        among: indices that may be poisoned, those of the target class for a clean-label attack; None for all.

    Raises:
        ValueError: the rate is outside [0, 1], ``sizes`` is empty, or fewer images may be poisoned than are wanted.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"poison rate must be in [0, 1], got {rate}")
    if not sizes:
        raise ValueError("sizes must name at least the dataset to poison")
    order = _last_shuffle(sizes, seed)
    wanted = int(len(order) * rate)
    eligible = order if among is None else [index for index in order if index in among]
    if len(eligible) < wanted:
        raise ValueError(f"a poison rate of {rate} of {len(order)} images is {wanted}, but only {len(eligible)} may be")
    return frozenset(eligible[:wanted])


def cover_indices(
    sizes: Sequence[int],
    rate: float,
    *,
    seed: int,
    poisoned: AbstractSet[int],
    among: Container[int] | None = None,
) -> frozenset[int]:
    """Indices of the images that carry the trigger with their true label: the next ``int(n * rate)`` after the poisoned
    ones in the order that ``poison_indices`` shuffles, as Qi et al. 2023 and Tang et al. 2021 draw them from what is
    left.

    Args:
        sizes: as for ``poison_indices``.
        rate: share of all images of the last dataset, 0..1.
        seed: seed of the shuffles.
        poisoned: indices that are poisoned, however they were drawn.
        among: indices that may be cover; None for all.

    Raises:
        ValueError: the rate is outside [0, 1], or fewer images are left than are wanted.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"cover rate must be in [0, 1], got {rate}")
    order = _last_shuffle(sizes, seed)
    wanted = int(len(order) * rate)
    left = [index for index in order if index not in poisoned and (among is None or index in among)]
    if len(left) < wanted:
        raise ValueError(f"a cover rate of {rate} of {len(order)} images is {wanted}, but only {len(left)} are left")
    return frozenset(left[:wanted])


def _last_shuffle(sizes: Sequence[int], seed: int) -> list[int]:
    generator = random.Random(seed)
    order: list[int] = []
    for n in sizes:
        order = list(range(n))
        generator.shuffle(order)
    return order


def chosen_indices(n: int, rate: float, *, seed: int, among: Sequence[int] | None = None) -> frozenset[int]:
    """Indices of the poisoned images as BackdoorBench (f02e353) draws them: ``round(n * rate)`` of them by
    ``numpy.random.choice`` without replacement, the first draw of numpy's global generator after ``seed``.

    Args:
        n: images of the training set.
        rate: share of them to poison, 0..1.
        seed: of numpy's Mersenne Twister.
        among: indices that may be poisoned, ascending; None for all.

    Raises:
        ValueError: the rate is outside [0, 1], or fewer images may be poisoned than are wanted.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"poison rate must be in [0, 1], got {rate}")
    eligible = range(n) if among is None else among
    wanted = round(n * rate)
    if len(eligible) < wanted:
        raise ValueError(f"a poison rate of {rate} of {n} images is {wanted}, but only {len(eligible)} may be")
    drawn = np.random.RandomState(seed).choice(np.asarray(eligible, np.int64), wanted, replace=False)
    return frozenset(drawn.tolist())
