"""A purified version, read sample by sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from zipbatch.api.spelling import keyword
from zipbatch.datasets.splits import check_splits
from zipbatch.images import U8
from zipbatch.shards.digest import STORED, read_listed
from zipbatch.spelling import readers_spell
from zipbatch.storage import storage_path
from zipbatch.store import Store, VersionHeader


@dataclass(frozen=True, kw_only=True)
class PurifiedSample:
    """One purified image.

    Attributes:
        key: its name, that of the image it was made from.
        split: its split.
        shard: the shard that it came in.
        image: uint8 RGB [H, W, 3].
        label: its class as the shard says it; None where it has none.
        metadata: its ``.json``; empty where it has none.
    """

    key: str
    split: str
    shard: str
    image: U8
    label: int | None
    metadata: dict[str, Any]


class PurifiedVersion(IterableDataset[PurifiedSample]):
    """An iterable of samples, in order; also a torch ``IterableDataset``, whose workers share its shards.

    Every shard's bytes are held against the digest that the version lists before they are read.

    Attributes:
        header: what it is: dataset, version, purifier with every parameter, counts.
    """

    def __init__(self, store: Store, reference: str, splits: Sequence[str] = ()) -> None:
        version = store.versions.read(reference)
        there = dict.fromkeys(row.split for row in version.rows)
        check_splits(reference, there, splits)
        self.header: VersionHeader = version.header
        self._store = store
        self._rows = [row for row in version.rows if not splits or row.split in splits]

    def __len__(self) -> int:
        return sum(row.samples for row in self._rows)

    def __iter__(self) -> Iterator[PurifiedSample]:
        """Raises ``DataError`` for a shard that is missing or damaged."""
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for row in self._rows[first::step]:
            for one in read_listed(self._store.objects.path(row.output), row.output, otherwise=STORED):
                yield PurifiedSample(
                    key=one.key,
                    split=row.split,
                    shard=row.shard,
                    image=one.image(),
                    label=one.label(),
                    metadata=one.metadata(),
                )


@readers_spell(keyword)
def open_version(store: str | Path, reference: str, splits: Sequence[str] = ()) -> PurifiedVersion:
    """Open a purified version.

    Args:
        store: a folder or URL.
        reference: ``NAME@TAG``, ``NAME@VERSION``, or ``NAME`` for the latest.
        splits: only these; empty for all.

    Raises:
        UsageError: no such dataset, tag, version or split; says what there is.
        DataError: the version's files are damaged.
    """
    opened = Store(storage_path(store))
    opened.require()
    return PurifiedVersion(opened, reference, splits)
