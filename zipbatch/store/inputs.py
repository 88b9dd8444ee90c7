"""Digests of bare input shards, remembered so that an unchanged file is not read again."""

from __future__ import annotations

import gzip
import json
import os
import stat
from pathlib import Path

from zipbatch import storage
from zipbatch.storage import Stamp, StoragePath
from zipbatch.store.lists import MAX_BYTES, unpacked_lines
from zipbatch.store.store import Store

_Entry = tuple[int, int | str, int, int, str]


_UNKNOWN = -1
"""Inode and ctime of a file that an older release remembered."""


class RememberedInputs:
    """A cache of one dataset: place -> (size, mtime in ns or ETag, inode, ctime in ns, SHA-256). Lost, it costs time
    only.

    Tars are padded, and copies keep times: another content may have the size and mtime of the one before, but not its
    inode and ctime. ``trust_mtime`` does without these two, for file systems that make new ones up at each mount.
    """

    def __init__(self, store: Store, dataset: str, *, trust_mtime: bool = False) -> None:
        self._trust_mtime = trust_mtime
        self._store, self._name = store, f"inputs/{dataset}.jsonl.gz"
        self._folders: dict[str, str] = {}
        self._new: dict[str, _Entry] = {}
        self._known = self._read()

    def _read(self) -> dict[str, _Entry]:
        known: dict[str, _Entry] = {}
        try:
            if (packed := self._store.read_file(self._name, limit=MAX_BYTES)) is None:
                return {}
            for line in unpacked_lines(packed):
                path, size, changed, *more, sha256 = json.loads(line.decode())
                changed = changed if isinstance(changed, str) else int(changed)
                inode, status_ns = map(int, more or (_UNKNOWN, _UNKNOWN))
                known[str(path)] = (int(size), changed, inode, status_ns, str(sha256))
        except (OSError, ValueError, TypeError, OverflowError, RecursionError):
            return {}  # missing or damaged: workers read the shards again
        return known

    def release(self) -> None:
        """Let go of what was read, which may be a million digests, until the next ``save``."""
        self._known = {}

    def digest(self, path: StoragePath) -> str | None:
        """The digest of a file that has not changed since it was remembered, else None."""
        if isinstance(path, Path):
            return self._digest_of_file(str(path))
        known = self._known.get(str(path))
        if known is None:
            return None
        now = storage.stamp(path)
        return known[-1] if known[:2] == (now.size, now.changed) else None

    def _digest_of_file(self, path: str) -> str | None:
        """To resolve every path of a million would take longer than all else: here once a folder, and links."""
        try:
            now = os.lstat(path)
            if stat.S_ISLNK(now.st_mode):
                resolved, now = str(Path(path).resolve()), Path(path).stat()
            else:
                parent, slash, name = path.rpartition("/")
                resolved = f"{self._resolved(parent + slash)}/{name}"
        except FileNotFoundError:
            return None  # who reads it will say so
        known = self._known.get(resolved)
        if known is None or known[:2] != (now.st_size, now.st_mtime_ns):
            return None
        return known[-1] if self._trust_mtime or known[2:4] == (now.st_ino, now.st_ctime_ns) else None

    def _resolved(self, folder: str) -> str:
        if folder not in self._folders:
            self._folders[folder] = str(Path(folder).resolve()).rstrip("/")
        return self._folders[folder]

    def remember(self, path: StoragePath, sha256: str, stamp: Stamp) -> None:
        """Note a digest that a worker found, with the stamp that the file had before it was read."""
        self._new[str(path.resolve())] = (stamp.size, stamp.changed, stamp.inode, stamp.status_ns, sha256)

    def save(self) -> None:
        """Publish what is new beside what others have published meanwhile."""
        if self._new:
            known = self._read() | self._new
            lines = [json.dumps([path, *entry]) for path, entry in sorted(known.items())]
            self._store.write_file(self._name, gzip.compress("\n".join(lines).encode(), 1, mtime=0))
            self._known, self._new = known, {}
