"""How much of a version its run computed, and how much it found done."""

from __future__ import annotations

from dataclasses import dataclass

from zipbatch.errors import DataError, UsageError
from zipbatch.store.store import Store
from zipbatch.store.versions import Version


@dataclass(frozen=True)
class Reused:
    """Shards of a version, by where they came from.

    Attributes:
        computed: by the run that published it first; None where its header does not say.
        found: in the store by that run, done by a run before that published no version, or for another dataset.
        parent: that the parent version lists too; None where there is no parent (any more).
    """

    computed: int | None
    found: int | None
    parent: int | None


def reused(store: Store, version: Version) -> Reused:
    """What the header says, else what the parent's list tells."""
    origin = version.header.origin
    if origin is not None:
        return Reused(origin.computed, origin.store, origin.parent)
    if version.header.parent is None:
        return Reused(None, None, None)
    try:
        parent = store.versions.read(f"{version.header.dataset}@{version.header.parent}")
    except (DataError, UsageError):
        return Reused(None, None, None)
    known = {(row.input, row.output) for row in parent.rows}
    return Reused(None, None, sum((row.input, row.output) in known for row in version.rows))
