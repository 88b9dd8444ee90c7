"""How far an evaluation has got, in images."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from zipbatch.cluster import Outcome
from zipbatch.datasets import ShardRef
from zipbatch.report.counts import Counts
from zipbatch.report.progress import Part, Progress


class Measured:
    """Counts the images that every victim was asked about in every form.

    Args:
        names: of the shards to be measured.
        shards: those of the dataset, with their samples where a manifest says them.
        asked: how often each image is asked about.
    """

    def __init__(self, names: Sequence[str], shards: Sequence[ShardRef], *, asked: int) -> None:
        self._samples = {shard.name: shard.samples for shard in shards}
        counts = [self._samples.get(name) for name in names]
        self._all = None if None in counts else sum(count or 0 for count in counts)
        self._shards, self._asked, self._began = len(names), asked, time.monotonic()
        self._done, self._images, self._far = 0, 0, dict[str, int]()

    def take(self, outcome: Outcome) -> None:
        """Take in a shard that is done, or has failed: then with the images that it came to."""
        name = outcome.task.name
        far, self._done = self._far.pop(name, 0), self._done + 1
        self._images += self._samples.get(name) or (outcome.result.images if outcome.result else far // self._asked)

    def take_partial(self, far: Mapping[str, int]) -> None:
        """Take in how many questions were answered of each shard in hand."""
        self._far = dict(far)

    def progress(self) -> Progress:
        """The totals up to now; shards that failed count as done. Images have no total where no manifest says it."""
        images = self._images + sum(self._far.values()) // self._asked
        rate = images / max(1e-9, time.monotonic() - self._began)
        return Progress(
            parts=(Part("shards", self._done, self._shards), Part("images", images, self._all)),
            per_s=rate or None,
            counts=Counts(unit="shards", total=self._shards, computed=self._done),
        )
