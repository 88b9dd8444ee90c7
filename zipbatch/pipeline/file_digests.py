"""Digests of files and folders that a pipeline reads, remembered by what tells one content from the next."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from zipbatch import atomic, storage
from zipbatch.errors import UsageError
from zipbatch.storage import StoragePath, Url


class Fingerprints:
    """Content digests of paths. ``cache`` remembers those of files by path and ``Stamp``: size, mtime, inode and ctime.
    ``trust_mtime`` does without the last two, as ``RememberedInputs``.
    """

    def __init__(self, cache: Path, *, trust_mtime: bool = False) -> None:
        self._cache, self._trust_mtime = cache, trust_mtime
        self._known: dict[str, list[object]] = {}
        try:
            known = json.loads(cache.read_bytes())
            if isinstance(known, dict):
                self._known = known
        except (OSError, ValueError):
            pass  # a lost cache costs reading the files once more
        self._of: dict[tuple[StoragePath, frozenset[str]], str] = {}

    def anew(self) -> Fingerprints:
        """The same, to be asked how things are now."""
        other = Fingerprints(self._cache, trust_mtime=self._trust_mtime)
        other._known = self._known
        return other

    def of(self, path: StoragePath, where: str, *, without: frozenset[str] = frozenset()) -> str:
        """SHA-256 over the names and contents of the files below ``path``, or of the file itself; files right in it
        that are called as ``without`` says do not count.

        Of what is at a URL, over sizes and ETags (or times, where the store has none) instead of contents.

        Raises:
            UsageError: there is no such file or folder; says ``where`` it was asked for.
        """
        path = path.absolute()
        if (path, without) not in self._of:
            if not path.exists():
                raise UsageError(f"{where}: {path}: no such file or folder")
            if isinstance(path, Path):
                self._of[path, without] = self._file(path) if path.is_file() else self._folder(path, without)
            else:
                self._of[path, without] = _remote(path, without)
        return self._of[path, without]

    def save(self) -> None:
        """Write the cache."""
        atomic.write_json(self._cache, self._known)

    def _folder(self, folder: Path, without: frozenset[str]) -> str:
        def counts(name: str) -> bool:
            return name not in without and not name.rpartition("/")[2].startswith(atomic.TEMP_PREFIX)

        named = [(file.relative_to(folder).as_posix(), file) for file in sorted(_files_below(folder, frozenset()))]
        return atomic.sha256_json([[name, self._file(file)] for name, file in named if counts(name)])

    def _file(self, file: Path) -> str:
        stamp = storage.stamp(file)
        key, now = str(file), [stamp.size, stamp.changed, stamp.inode, stamp.status_ns]
        told = 2 if self._trust_mtime else len(now)
        known = self._known.get(key)
        if isinstance(known, list) and known[:-1][:told] == now[:told] and isinstance(known[-1], str):
            return known[-1]
        with storage.held_to(file, None) as digest:
            self._known[key] = [*now, digest]
        return digest


def _remote(url: Url, without: frozenset[str]) -> str:
    stamps = [("", storage.stamp(url))] if url.is_file() else list(storage.stamps_below(url))
    return atomic.sha256_json([[name, stamp.size, stamp.changed] for name, stamp in stamps if name not in without])


def _files_below(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    """Files, through links to folders too (datasets are linked into place), but not round in circles."""
    real = folder.resolve()
    if real in above:
        return
    for path in folder.iterdir():
        if path.is_dir():
            yield from _files_below(path, above | {real})
        elif path.is_file():
            yield path
