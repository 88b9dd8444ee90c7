"""The purified form of data's shards: which objects of a version were made from them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from zipbatch.datasets import ShardDataset, ShardRef
from zipbatch.errors import UsageError
from zipbatch.storage import StoragePath
from zipbatch.store import Store, Version

log = logging.getLogger(__name__)


def purified_objects(
    version: Version, shards: Sequence[ShardRef], data: str, store: Store
) -> dict[str, tuple[StoragePath, str]]:
    """Shard name -> (purified object, digest of what it was made from).

    Splits that the version lacks are left out.

    Raises:
        UsageError: the version was made from other data, lacks a shard of a split, or has none of the splits.
    """
    rows = {row.shard: row for row in version.rows}
    splits = {row.split for row in version.rows}
    found: dict[str, tuple[StoragePath, str]] = {}
    for shard in shards:
        if shard.split not in splits:
            continue
        row = rows.get(shard.name)
        if row is None or (shard.sha256 is not None and row.input != shard.sha256):
            raise UsageError(
                f"{version.reference} was not made from {data}: {shard.name} "
                f"{'is missing in it' if row is None else 'has other content'}; purify this data first"
            )
        found[shard.name] = (store.objects.path(row.output), row.input)
    if not found:
        raise UsageError(f"{version.reference} holds none of the splits of {data}")
    return found


def covered(shards: Sequence[ShardRef], versions: Sequence[Version], data: str) -> tuple[ShardRef, ...]:
    """The shards that every trial among the versions has, of the splits that it has; all where none is a trial.

    Raises:
        UsageError: none is left.
    """
    left = tuple(shards)
    for version in (version for version in versions if version.header.trial is not None):
        splits, names = {row.split for row in version.rows}, {row.shard for row in version.rows}
        left = tuple(shard for shard in left if shard.name in names or shard.split not in splits)
        if not left:
            raise UsageError(f"{version.reference} is a trial and holds no shard of {data} that the others hold, too")
        log.warning(
            "%s is a trial: %s; only these are measured, undefended, too", version.reference, version.header.trial_text
        )
    return left


def with_purified(dataset: ShardDataset, version: Version, store: Store, *, split: str) -> ShardDataset:
    """A staged dataset with the shards of one split replaced by their purified forms, to train on them.

    What the version holds in quarantine is missing in it.

    Raises:
        UsageError: the version does not hold that split of this data.
    """
    if version.header.trial is not None:
        raise UsageError(
            f"{version.reference} is a trial ({version.header.trial_text}): nothing is trained on a part; purify the "
            f"whole split, without a limit: 'zipbatch purify --split {split}'"
        )
    found = purified_objects(version, dataset.split(split), dataset.name, store)
    rows = {row.shard: row for row in version.rows}
    shards = tuple(
        replace(shard, path=found[shard.name][0], sha256=rows[shard.name].output, samples=rows[shard.name].samples)
        if shard.split == split
        else shard
        for shard in dataset.shards
    )
    if short := sum(row.quarantined for row in version.rows if row.split == split):
        log.warning("%s: %d images of %s are in quarantine and not trained on", version.reference, short, split)
    return replace(dataset, shards=shards)
