"""Samples that cannot be read, set aside untouched so that the rest of their shard goes on."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from zipbatch.errors import DataError
from zipbatch.shards import Sample, ShardWriter
from zipbatch.shards.digest import STORED, read_listed
from zipbatch.storage import StoragePath
from zipbatch.store import Store

_MAX_REASON = 500  # characters; some errors repeat what they found


class Quarantine:
    """Takes the samples of one shard that cannot be read, every member as it is; without a store it refuses them.

    Leaving the ``with`` block removes what was not published.

    Attributes:
        reasons: key -> why, in the order of the shard.
    """

    def __init__(self, store: Store | None) -> None:
        self._store, self._stack = store, ExitStack()
        self._writer: ShardWriter | None = None
        self.reasons: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def take(self, sample: Sample, error: DataError) -> None:
        """Set a sample aside for what ``error`` says of it; raises ``error`` where there is no quarantine."""
        if self._store is None:
            raise error
        if self._writer is None:
            self._writer = self._stack.enter_context(self._store.objects.new())
        self._writer.write(sample)
        self.reasons[sample.key] = error.reason[:_MAX_REASON]

    def publish(self) -> str | None:
        """Publish the quarantine shard, if anything is in it; its digest."""
        if self._store is None or self._writer is None:
            return None
        info = self._writer.finish()
        self._store.objects.publish_quarantine(self._writer, info)
        return info.sha256


def quarantined_keys(shards: Iterable[StoragePath]) -> frozenset[str]:
    """The keys in quarantine shards of a store.

    Raises:
        DataError: one is missing or its bytes are not those its name says.
    """
    keys: set[str] = set()
    for path in shards:
        if not path.is_file():
            raise DataError(path, "is missing; see 'zipbatch store verify'")
        digest = path.name.partition(".")[0]
        keys.update(sample.key for sample in read_listed(path, digest, imageless=True, otherwise=STORED))
    return frozenset(keys)
