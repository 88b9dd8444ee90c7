"""What purifying clean images costs, told without labels."""

from __future__ import annotations

import numpy as np
import pytest

from zipbatch.metrics import Choice, Share, agreement, clean_accuracy, strongest_within
from zipbatch.metrics.agreement import loss_of


def test_answers_that_stay_are_counted():
    kept = agreement(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2]))
    assert kept == Share(3, 4)
    assert loss_of(kept) == 0.25


@pytest.mark.parametrize("seed", range(20))
def test_accuracy_changes_by_no_more_than_answers_do(seed: int):
    rng = np.random.default_rng(seed)
    before, after, label = rng.integers(0, 3, (3, 50))
    lost = clean_accuracy(before, label).hits - clean_accuracy(after, label).hits
    kept = agreement(before, after)
    assert abs(lost) <= kept.n - kept.hits


def test_it_costs_all_of_that_where_only_right_answers_change():
    before = label = np.array([0, 1, 2, 0])
    after = np.array([0, 1, 2, 1])
    assert clean_accuracy(before, label).hits - clean_accuracy(after, label).hits == 1
    assert agreement(before, after) == Share(3, 4)


@pytest.mark.parametrize(
    ("hits", "max_loss", "choice"),
    [
        ([98, 95, 80], 0.05, Choice(1, within=True)),
        ([98, 95, 80], 0.2, Choice(2, within=True)),
        ([98, 94, 95], 0.05, Choice(2, within=True)),
        ([90, 80, 70], 0.05, Choice(0, within=False)),
        ([80, 90, 70], 0.05, Choice(1, within=False)),
        ([90, 90, 70], 0.05, Choice(1, within=False)),
        ([100], 0.0, Choice(0, within=True)),
    ],
)
def test_the_strongest_within_the_loss_or_that_with_the_least(hits: list[int], max_loss: float, choice: Choice):
    assert strongest_within([Share(hit, 100) for hit in hits], max_loss=max_loss) == choice


def test_what_it_refuses():
    with pytest.raises(ValueError, match="differ in number: 2 and 3"):
        agreement(np.zeros(2, np.int64), np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="no images"):
        strongest_within([Share()], max_loss=0.1)
    with pytest.raises(ValueError, match="nothing to choose"):
        strongest_within([], max_loss=0.1)
