"""How many bytes versions have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from zipbatch import storage
from zipbatch.store.headers import VersionHeader
from zipbatch.store.objects import ASKED_AT_MOST
from zipbatch.store.rows import VersionRow
from zipbatch.store.store import Store

COUNTED_AT_MOST = 200_000
"""Shards that a listing of versions looks at on a disk."""


def object_sizes(store: Store, rows: Iterable[VersionRow]) -> dict[str, int]:
    """Bytes of the objects of rows by name; those that are not there are left out, all where they are too many."""
    names = list(dict.fromkeys(name for row in rows for name in row.objects))
    if len(names) > _limit(store):
        return {}

    def size(name: str) -> int | None:
        try:
            return storage.stamp(store.objects.path(name)).size
        except OSError:
            return None

    sizes = zip(names, storage.each(size, names, at=store.root), strict=True)
    return {name: found for name, found in sizes if found is not None}


def version_sizes(store: Store, headers: Sequence[VersionHeader]) -> dict[str, int]:
    """Bytes of versions by ``dataset@version``, each with all its objects; none where they have too many shards."""
    if sum(split["shards"] for header in headers for split in header.counts.values()) > _limit(store):
        return {}
    versions = store.versions
    rows = {f"{h.dataset}@{h.version}": versions.rows(h.dataset, h.version) for h in headers}
    sizes = object_sizes(store, [row for listed in rows.values() for row in listed])
    return {
        name: sum(sizes.get(found, 0) for found in {found for row in listed for found in row.objects})
        for name, listed in rows.items()
    }


def _limit(store: Store) -> int:
    return ASKED_AT_MOST if isinstance(store.root, storage.Url) else COUNTED_AT_MOST
