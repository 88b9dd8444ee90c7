"""Copies of objects on the local disk: named by URL and ETag, limited in size, least recently used go first.

Safe between threads and processes: who reads a copy holds a shared lock on it, who removes one needs an exclusive lock,
and one download at a time fills a name.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from zipbatch import atomic, filesystem
from zipbatch.errors import DataError, UsageError
from zipbatch.storage.remote import Client
from zipbatch.storage.retries import positive
from zipbatch.storage.stamp import Stamp, stamp_of

FOLDER = "ZIPBATCH_CACHE"
SIZE_GB = "ZIPBATCH_CACHE_GB"
DEFAULT_GB = 20.0
_TRIES = 3
_LOCKS = 64
_IN_USE_S = 3600.0
"""How long after its last use a copy is taken for one in use where no locks tell."""


def folder() -> Path:
    """``ZIPBATCH_CACHE``, else ``zipbatch`` in the user's cache folder.

    Raises:
        UsageError: as ``home``.
    """
    named = os.environ.get(FOLDER)
    if named:
        return home(named).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or home() / ".cache").absolute() / "zipbatch"


def home(path: str = "~") -> Path:
    """The user's home folder, or a path that may begin with it.

    Raises:
        UsageError: there is none, as for a user id that nobody has, in a container.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UsageError(f"this user has no home folder: set HOME to one, and {FOLDER} to where copies go") from error


@contextmanager
def held(url: str, client: Client, *, keep: bool = True) -> Iterator[Path]:
    """A local copy of the object as it is now, which nobody removes while the block lasts.

    Args:
        url: the object.
        client: of its store.
        keep: leave the copy for the next one who asks.

    Raises:
        FileNotFoundError: there is no such object.
        DataError: it changes faster than it can be read.
    """
    if not keep:
        with _passing(url, client) as file:
            yield file
        return
    for _ in range(_TRIES):
        stamp = stamp_of(client.info(url))
        copy = folder() / "objects" / _name(url, stamp)
        stream = _hold(copy, stamp) or _fetch(url, client, copy, stamp)
        if stream is not None:
            with stream:
                yield copy
            return
    raise DataError(url, "changes while it is read; run again")


@contextmanager
def _passing(url: str, client: Client) -> Iterator[Path]:
    temp = atomic.temp_path(folder() / "objects")
    try:
        with temp.open("xb") as mark:
            atomic.hold(mark)
            client.download(url, temp)
            yield temp
    finally:
        temp.unlink(missing_ok=True)


def _name(url: str, stamp: Stamp) -> str:
    digest = hashlib.sha256(atomic.canonical_json([url, stamp.size, stamp.changed])).hexdigest()
    return f"{digest[:32]}-{url.rpartition('/')[2][-100:]}"


def _hold(copy: Path, stamp: Stamp) -> BinaryIO | None:
    """The copy, opened, with a shared lock on it that ends when it is closed; None when it is not there, or has not the
    bytes any more that were fetched.
    """
    try:
        stream = copy.open("rb")
    except FileNotFoundError:
        return None
    filesystem.lock(stream, copy, shared=True)
    found = os.fstat(stream.fileno())
    gone = found.st_nlink == 0 or found.st_size != stamp.size  # removed between the opening and the lock, or cut short
    if gone or hashlib.file_digest(stream, "sha256").hexdigest() != _noted(copy):
        stream.close()
        return None
    now = time.time_ns()  # finer than the clock that the system stamps files with
    with suppress(PermissionError):  # another user's, in a shared cache
        os.utime(stream.fileno(), ns=(now, now))
    return stream


def _note_of(copy: Path) -> Path:
    """The file beside a copy that holds its digest."""
    return copy.with_name(f".{copy.name}.sha256")


def _noted(copy: Path) -> str | None:
    try:
        return _note_of(copy).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None  # a copy of an older release, or a damaged note: it is fetched anew


def _fetch(url: str, client: Client, copy: Path, stamp: Stamp) -> BinaryIO | None:
    """Download and hold; None when the object has changed meanwhile, so that this would be a copy of neither."""
    temp = atomic.temp_path(copy.parent)
    with (copy.parent / f".lock-{int(copy.name[:8], 16) % _LOCKS}").open("wb") as lock:
        filesystem.lock(lock, Path(lock.name))
        if (stream := _hold(copy, stamp)) is not None:
            return stream  # another one has just fetched it
        atomic.sweep(copy.parent)
        _make_room(copy.parent, stamp.size)
        try:
            with temp.open("xb") as mark:
                atomic.hold(mark)
                client.download(url, temp)
            if temp.stat().st_size != stamp.size or stamp_of(client.info(url)) != stamp:
                return None
            atomic.write_bytes(_note_of(copy), atomic.sha256_file(temp).encode())
            atomic.publish(temp, copy)
        finally:
            temp.unlink(missing_ok=True)
        return _hold(copy, stamp)


def _make_room(objects: Path, needed: int) -> None:
    """Remove copies that nobody holds, the least recently used first, until ``needed`` bytes fit below the limit."""
    limit = positive(SIZE_GB, DEFAULT_GB) * 1e9
    copies = sorted(_copies(objects))
    total = sum(size for _, size, _ in copies) + needed
    for _, size, path in copies:
        if total <= limit:
            return
        if _remove(path):
            total -= size


def _copies(objects: Path) -> Iterator[tuple[int, int, Path]]:
    """(time of last use, bytes, path) of each copy."""
    for path in objects.iterdir():
        if not path.name.startswith("."):
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue  # another process has just removed it
            yield stat.st_mtime_ns, stat.st_size, path


def _remove(copy: Path) -> bool:
    try:
        with copy.open("rb") as stream:
            if not filesystem.lock(stream, copy, wait=False) and time.time() - copy.stat().st_mtime < _IN_USE_S:
                return False
            _note_of(copy).unlink(missing_ok=True)
            copy.unlink()
    except OSError:
        return False  # in use, or gone already
    return True
