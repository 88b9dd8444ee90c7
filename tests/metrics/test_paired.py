"""McNemar's test against the binomial written out, and against its textbook example."""

from __future__ import annotations

import math

import numpy as np
import pytest

from zipbatch.metrics import Paired, paired


def by_hand(b: int, c: int) -> float:
    n = b + c
    return min(1.0, 2 * sum(math.comb(n, i) for i in range(min(b, c) + 1)) / 2**n) if n else 1.0


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (0, 5), (3, 3), (10, 2), (59, 121), (400, 430)])
def test_the_exact_test(b: int, c: int):
    assert Paired(b, c, 2000).p == pytest.approx(by_hand(b, c), rel=1e-9)


def test_many_images_go_over_into_the_chi_square():
    exact, corrected = Paired(5100, 4900, 50_000).p, Paired(5101, 4901, 50_000).p
    assert exact == pytest.approx(corrected, rel=0.02)


def test_counts():
    here, there = np.array([1, 1, 0, 0, 1], bool), np.array([1, 0, 1, 0, 0], bool)
    assert paired(here, there) == Paired(2, 1, 5)
    assert paired(here, there) + paired(there, here) == Paired(3, 3, 10)
    assert Paired().p is None
    with pytest.raises(ValueError, match="differ in number"):
        paired(here, there[:3])
