"""A trial: the first whole shards of each split that hold so many images, and what a version says of it."""

from __future__ import annotations

from collections.abc import Sequence

from zipbatch.datasets import ShardRef
from zipbatch.errors import DataError
from zipbatch.shards import read_shard

TRIAL = "trial"
"""The tag of a trial that is given no other."""


def first_shards(shards: Sequence[ShardRef], limit: int) -> tuple[ShardRef, ...]:
    """Of each split the first shards that hold ``limit`` images together, all where they hold fewer; order is kept.

    Shards whose number of images no manifest says are read to be counted, up to the last that is taken.
    """
    held: dict[str, int] = {}
    taken = []
    for shard in shards:
        if held.get(shard.split, 0) < limit:
            taken.append(shard)
            held[shard.split] = held.get(shard.split, 0) + _samples(shard)
    return tuple(taken)


def _samples(shard: ShardRef) -> int:
    """How many samples it holds; none where it cannot be read, of which the worker that is to purify it tells."""
    if shard.samples is not None:
        return shard.samples
    try:
        return sum(1 for _ in read_shard(shard.path, imageless=True))
    except (DataError, OSError):
        return 0


def trial_of(taken: Sequence[ShardRef], shards: Sequence[ShardRef]) -> dict[str, int] | None:
    """Split -> how many shards it has, of which a trial took some; None where it took all: that is no part."""
    if len(taken) == len(shards):
        return None
    return shards_by_split(shards)


def shards_by_split(shards: Sequence[ShardRef]) -> dict[str, int]:
    """Split -> how many of the shards are of it, in order of appearance."""
    counts: dict[str, int] = {}
    for shard in shards:
        counts[shard.split] = counts.get(shard.split, 0) + 1
    return counts
