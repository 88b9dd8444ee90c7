"""Publish a whole version and move its tags: the last step of every run that makes one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from zipbatch import __version__
from zipbatch.store import Origin, Store, VersionHeader, VersionRow, Versions
from zipbatch.store.rows import count_rows
from zipbatch.store.versions import LATEST, version_id

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Published:
    """A version: its id, whether it is ``new``, the ``tags`` that point to it now, and the size of each split."""

    version: str
    new: bool
    tags: tuple[str, ...]
    counts: dict[str, dict[str, int]]


def publish_version(
    store: Store,
    dataset: str,
    identity: dict[str, Any],
    *,
    rows: Sequence[VersionRow],
    tag: str | None,
    parent: str | None,
    started_ns: int,
    origin: Origin | None = None,
) -> Published:
    """Write the version of these rows, whose objects are in the store, and point ``tag`` and ``latest`` at it.

    Args:
        store: where.
        dataset: its name.
        identity: what made the pixels.
        rows: one for each shard, in the order of the input.
        tag: beside ``latest``; None for ``latest`` alone.
        parent: id of the version that was the latest before.
        started_ns: when the run started; a tag that a later run has moved stays.
        origin: how many of the shards were made by this run, and where the others were found.

    Raises:
        DataError: an object is not in the store (any more); nothing is published then.
    """
    versions = Versions(store)
    version, counts = version_id(dataset, identity, rows), count_rows(rows)
    header = VersionHeader(
        dataset=dataset,
        version=version,
        purifier=identity,
        prior_sha256=identity.get("prior_sha256"),
        seed=identity.get("seed"),
        counts=counts,
        quarantined=sum(row.quarantined for row in rows),
        parent=parent if parent != version else None,
        origin=origin,
        started=datetime.fromtimestamp(started_ns / 1e9, UTC).isoformat(timespec="seconds"),
        zipbatch=__version__,
    )
    tags = [LATEST] if tag in {None, LATEST} else [str(tag), LATEST]
    with versions.claim(dataset, version):
        new = versions.publish(header, rows)
        moved = tuple(name for name in tags if versions.move_tag(dataset, name, version, started_ns=started_ns))
    for name in set(tags) - set(moved):
        there = versions.tag(dataset, name)
        log.warning("%s@%s stays at %s: a run that started later (by the clock) moved it there", dataset, name, there)
    return Published(version, new, moved, counts)
