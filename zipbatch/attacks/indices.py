"""Which training images are poisoned."""

from __future__ import annotations

import random
from collections.abc import Sequence


def poison_indices(sizes: Sequence[int], rate: float, *, seed: int) -> frozenset[int]:
    """Indices of the poisoned images, as the published code draws them: shuffle, take the first ``int(n * rate)``.

    One generator shuffles ``range(n)`` for each ``n`` of ``sizes`` in turn, and the indices are read off the last
    shuffle. Images of the target class are drawn like any others.

    Args:
        sizes: image counts of the datasets built before and including the poisoned one.
        rate: share of the last dataset to poison, 0..1.
        seed: seed of the shuffles.

    Raises:
        ValueError: the rate is outside [0, 1] or ``sizes`` is empty.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"poison rate must be in [0, 1], got {rate}")
    if not sizes:
        raise ValueError("sizes must name at least the dataset to poison")
    generator = random.Random(seed)
    order: list[int] = []
    for n in sizes:
        order = list(range(n))
        generator.shuffle(order)
    return frozenset(order[: int(len(order) * rate)])
