"""The suspect images that a victim is asked about on trial: some shards of what was named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from zipbatch.datasets import ShardDataset, ShardRef, open_dataset
from zipbatch.datasets.splits import check_splits
from zipbatch.datasets.staged import CLEAN_SPLIT, POISONED_SPLIT
from zipbatch.stages.evaluate.request import TrialRequest


def opened_suspects(request: TrialRequest, *, purpose: str) -> ShardDataset:
    """The shards that a request names, as a dataset whose name says the purpose.

    Raises:
        UsageError: there are none, or not of that split.
    """
    return some_shards(open_dataset(request.data), request.splits, request.shards, purpose=purpose)


def some_shards(dataset: ShardDataset, splits: Sequence[str], count: int | None, *, purpose: str) -> ShardDataset:
    """``count`` shards of each split, evenly spaced over it (all with None), as a dataset whose name says the purpose.

    Raises:
        UsageError: a split that is not there.
    """
    check_splits(dataset.name, dataset.splits, splits)
    usual = [split for split in (CLEAN_SPLIT, POISONED_SPLIT) if split in dataset.splits]
    chosen: list[ShardRef] = []
    for split in splits or usual or dataset.splits:
        all_ = dataset.split(split)
        number = len(all_) if count is None else min(count, len(all_))
        chosen += [all_[i * len(all_) // number] for i in range(number)]
    return replace(dataset, name=f"{dataset.name}-{purpose}", shards=tuple(chosen))
