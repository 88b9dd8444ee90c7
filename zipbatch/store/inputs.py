"""Digests of bare input shards, remembered so that an unchanged file is not read again."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from zipbatch import atomic
from zipbatch.store.lists import unpacked_lines
from zipbatch.store.store import Store


class RememberedInputs:
    """A cache of one dataset: path -> (size, mtime in ns, SHA-256). Losing it costs time, never correctness."""

    def __init__(self, store: Store, dataset: str) -> None:
        self._file = store.root / "inputs" / f"{dataset}.jsonl.gz"
        self._known: dict[str, tuple[int, int, str]] = {}
        self._changed = False
        try:
            for line in unpacked_lines(self._file.read_bytes()):
                path, size, mtime_ns, sha256 = json.loads(line)
                self._known[str(path)] = (int(size), int(mtime_ns), str(sha256))
        except (OSError, ValueError, TypeError, OverflowError, RecursionError):
            self._known = {}  # missing or damaged: workers read the shards again

    def digest(self, path: Path) -> str | None:
        """The digest of a file that has not changed since it was remembered, else None."""
        known = self._known.get(str(path.resolve()))
        if known is None:
            return None
        stat = path.stat()
        return known[2] if known[:2] == (stat.st_size, stat.st_mtime_ns) else None

    def remember(self, path: Path, sha256: str, *, size: int, mtime_ns: int) -> None:
        """Note a digest that a worker found, with the size and time that the file had before it was read."""
        self._known[str(path.resolve())] = (size, mtime_ns, sha256)
        self._changed = True

    def save(self) -> None:
        """Publish the cache when it has changed."""
        if self._changed:
            lines = [json.dumps([path, *entry]) for path, entry in sorted(self._known.items())]
            atomic.write_bytes(self._file, gzip.compress("\n".join(lines).encode(), mtime=0))
            self._changed = False
