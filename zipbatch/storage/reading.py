"""Read what lies at a path or URL."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from zipbatch import atomic
from zipbatch.errors import DataError
from zipbatch.storage import cache
from zipbatch.storage.path import StoragePath, Url
from zipbatch.storage.remote import REQUESTS_AT_ONCE
from zipbatch.storage.stamp import Stamp, stamp_of

T = TypeVar("T")
R = TypeVar("R")
_NOT_PLAIN: dict[str, Callable[[int], bool]] = {
    "a pipe": stat.S_ISFIFO,
    "a socket": stat.S_ISSOCK,
    "a device": lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode),
}


@contextmanager
def local_copy(source: StoragePath, *, cached: bool = True) -> Iterator[Path]:
    """A file to read while the block lasts: a local file itself, or a copy of an object.

    Args:
        source: the file.
        cached: take it from the cache, or into it; else read it from the store and keep nothing.

    Raises:
        FileNotFoundError: it is not there.
        DataError: it is a pipe, a device or the like.
    """
    if isinstance(source, Path):
        plain(source)
        yield source
        return
    with cache.held(source.text, source.client, keep=cached) as file:
        yield file


def plain(file: Path) -> os.stat_result:
    """What is known of a file (or folder) that may be opened: a pipe would have its reader wait for ever.

    Raises:
        FileNotFoundError: it is not there.
        DataError: it is a pipe, a socket or a device, or a link to one.
    """
    found = file.stat()
    for kind, is_kind in _NOT_PLAIN.items():
        if is_kind(found.st_mode):
            raise DataError(file, f"is {kind}, no plain file, and is not read")
    return found


def sha256(source: StoragePath) -> str:
    """Hex SHA-256 of a file's bytes."""
    with local_copy(source) as file:
        return atomic.sha256_file(file)


CHANGED = "changed while it was read; run again"
REPLACED = "is not the file that was there when the run was planned; run again"


@contextmanager
def held_to(source: StoragePath, digest: str | None) -> Iterator[str]:
    """Read a file within: what is read there has the digest that this gives.

    Args:
        source: the file.
        digest: the SHA-256 that it had when the run was planned, None for whatever it has.

    Raises:
        FileNotFoundError: it is not there.
        DataError: it has another digest, or was changed while it was read.
    """
    before, found = stamp(source), sha256(source)
    if digest is not None and found != digest:
        raise DataError(source, REPLACED)
    yield found
    if stamp(source) != before:
        raise DataError(source, CHANGED)


def stamp(source: StoragePath) -> Stamp:
    """Size and time or ETag of a file: two equal stamps, the same bytes. Raises as ``local_copy``."""
    if isinstance(source, Url):
        return stamp_of(source.client.info(source.text))
    found = plain(source)
    return Stamp(
        size=found.st_size,
        changed=found.st_mtime_ns,
        inode=found.st_ino,
        status_ns=found.st_ctime_ns,
        modified_s=found.st_mtime,
    )


def read_bytes(source: StoragePath, *, limit: int) -> bytes:
    """A file that is to be small, in one request.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it has over ``limit`` bytes.
    """
    data = beginning(source, limit + 1)
    if len(data) > limit:
        raise ValueError(f"over the limit of {limit} bytes")
    return data


def beginning(source: StoragePath, length: int) -> bytes:
    """The first bytes of a file, ``length`` at most."""
    if isinstance(source, Url):
        return source.read_bytes(length)
    plain(source)
    with source.open("rb") as stream:
        return stream.read(length)


def names_in(folder: StoragePath) -> list[str]:
    """Names of files and folders right in ``folder``, sorted, without hidden ones; empty when there is no folder."""
    if isinstance(folder, Url):
        names = folder.client.names(folder.text)
    else:
        names = sorted(item.name for item in folder.iterdir()) if folder.is_dir() else []
    return [name for name in names if not name.startswith(".")]


def files_below(folder: StoragePath) -> Iterator[StoragePath]:
    """All files below ``folder``, sorted, without temp files. On an object store this lists, so its cost grows."""
    if isinstance(folder, Url):
        found: Iterable[StoragePath] = (folder / name for name in folder.client.below(folder.text))
    else:
        found = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return (file for file in found if not file.name.startswith(atomic.TEMP_PREFIX))


def stamps_below(folder: StoragePath) -> Iterator[tuple[str, Stamp]]:
    """Name relative to ``folder``, and stamp, of all files below it, sorted, without temp files. Lists, at one request
    for many names; what vanishes meanwhile is left out."""
    if isinstance(folder, Url):
        yield from folder.client.stamps_below(folder.text)
        return
    for file in files_below(folder):
        try:
            yield file.relative_to(folder).as_posix(), stamp(file)  # type: ignore[union-attr]  # a local one
        except FileNotFoundError:
            continue


def each(function: Callable[[T], R], items: Iterable[T], *, at: StoragePath) -> list[R]:
    """``function`` of every item, in order; at the same time where each call waits for an object store."""
    if isinstance(at, Path):
        return [function(item) for item in items]
    _ = at.client  # the first contact, once for all
    with ThreadPoolExecutor(REQUESTS_AT_ONCE, "request") as pool:
        return list(pool.map(function, items))
