"""Digests of bare input shards, remembered so that an unchanged file is not read again."""

from __future__ import annotations

import gzip
import json
import zlib

from zipbatch import places
from zipbatch.places import Place, Stamp
from zipbatch.store.store import Store


class RememberedInputs:
    """A cache of one dataset: place -> (size, mtime in ns or ETag, SHA-256). Lost, it costs time only."""

    def __init__(self, store: Store, dataset: str) -> None:
        self._file = store.root / "inputs" / f"{dataset}.jsonl.gz"
        self._known: dict[str, tuple[int, int | str, str]] = {}
        self._changed = False
        try:
            for line in gzip.decompress(self._file.read_bytes()).splitlines():
                path, size, changed, sha256 = json.loads(line)
                changed = changed if isinstance(changed, str) else int(changed)
                self._known[str(path)] = (int(size), changed, str(sha256))
        except (OSError, EOFError, ValueError, TypeError, zlib.error, RecursionError):
            self._known = {}  # missing or damaged: workers read the shards again

    def digest(self, path: Place) -> str | None:
        """The digest of a file that has not changed since it was remembered, else None."""
        known = self._known.get(str(path.resolve()))
        if known is None:
            return None
        now = places.stamp(path)
        return known[2] if known[:2] == (now.size, now.changed) else None

    def remember(self, path: Place, sha256: str, stamp: Stamp) -> None:
        """Note a digest that a worker found, with the stamp that the file had before it was read."""
        self._known[str(path.resolve())] = (stamp.size, stamp.changed, sha256)
        self._changed = True

    def save(self) -> None:
        """Publish the cache when it has changed."""
        if self._changed:
            lines = [json.dumps([path, *entry]) for path, entry in sorted(self._known.items())]
            places.put_bytes(self._file, gzip.compress("\n".join(lines).encode(), mtime=0))
            self._changed = False
