"""A place is where a file or folder lies: a local path, or the URL of an object store. Both speak pathlib's words.

Local places are ``Path`` itself, so nothing changes for them. ``Url`` has the same words for what code asks of a place,
and the functions here have the ones that pathlib lacks. Nothing else needs to know which of the two it holds.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias, TypeVar

from zipbatch import atomic, filesystem
from zipbatch.errors import DataError, UsageError, WorkFailed
from zipbatch.storage import cache
from zipbatch.storage.remote import REQUESTS_AT_ONCE, Client, client_for
from zipbatch.storage.stamp import Stamp, stamp_of

T = TypeVar("T")
R = TypeVar("R")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_NOT_PLAIN: dict[str, Callable[[int], bool]] = {
    "a pipe": stat.S_ISFIFO,
    "a socket": stat.S_ISSOCK,
    "a device": lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode),
}
_UPDATES = 20
MAX_UPDATED_BYTES = 1 << 16


@dataclass(frozen=True)
class Url:
    """An object, or what lies below a prefix; small and picklable, its client is found where it is used."""

    text: str
    scheme: str = field(repr=False)
    parts: tuple[str, ...] = field(repr=False)

    def __str__(self) -> str:
        return self.text

    def __truediv__(self, name: str) -> Url:
        return Url(f"{self.text}/{name}", self.scheme, (*self.parts, *name.split("/")))

    @property
    def name(self) -> str:
        """The last part."""
        return self.parts[-1]

    @property
    def suffix(self) -> str:
        """As pathlib's."""
        return Path(self.name).suffix

    @property
    def stem(self) -> str:
        """As pathlib's."""
        return Path(self.name).stem

    @property
    def parent(self) -> Url:
        """The folder that it is in; a bucket is its own."""
        if len(self.parts) == 1:
            return self
        return Url(self.text[: -len(self.name) - 1], self.scheme, self.parts[:-1])

    def with_name(self, name: str) -> Url:
        """Another name in the same folder."""
        return self.parent / name

    def with_suffix(self, suffix: str) -> Url:
        """As pathlib's."""
        return self.with_name(self.stem + suffix)

    def absolute(self) -> Url:
        """Itself."""
        return self

    def resolve(self) -> Url:
        """Itself."""
        return self

    def is_file(self) -> bool:
        """Whether there is an object of that very name."""
        try:
            self.client.info(self.text)
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        """Whether any object's name begins with it, as with a folder's. This lists the store."""
        return self.client.is_folder(self.text)

    def exists(self) -> bool:
        """Whether it is either."""
        return self.is_file() or self.is_dir()

    def read_bytes(self, limit: int | None = None) -> bytes:
        """The object's bytes, with ``limit`` no more than that from its beginning; raises ``FileNotFoundError``."""
        return self.client.read(self.text, limit)

    def read_text(self, encoding: str = "utf-8") -> str:
        """The object's text; raises ``FileNotFoundError``."""
        return self.read_bytes().decode(encoding)

    def unlink(self, missing_ok: bool = False) -> None:  # noqa: FBT001, FBT002, RUF100 - pathlib's own signature
        """Remove the object."""
        if missing_ok:
            try:
                self.client.remove(self.text)
            except FileNotFoundError:
                pass
        else:
            self.client.remove(self.text)

    @property
    def client(self) -> Client:
        """Who speaks to the store, in this process."""
        return client_for(self.scheme, self.parts[0])


StoragePath: TypeAlias = Path | Url


def storage_path(text: str | Path) -> StoragePath:
    """What the user names: a path, ``file://`` and a path, or the URL of an object store.

    Raises:
        UsageError: a URL with credentials or a query in it, or one that names nothing.
    """
    match = _SCHEME.fullmatch(str(text)) if isinstance(text, str) else None
    if match is None:
        return Path(text)
    scheme, rest = match[1].lower(), match[2]
    head = rest.partition("/")[0]
    if "@" in head:
        shown = f"{scheme}://…@{head.rpartition('@')[2]}/…"
        raise UsageError(f"{shown}: credentials do not belong in a URL; put them into the environment")
    if "?" in rest or "::" in rest:
        shown = re.split(r"[?]|::", str(text))[0]
        raise UsageError(f"{shown}…: a URL of a bucket and a key is needed, without '?' and '::'")
    if scheme in {"file", "local"}:
        if not rest.startswith("/"):
            raise UsageError(f"{text}: name a whole path after file://, as in file:///data/shards")
        return Path(rest)
    parts = tuple(rest.strip("/").split("/"))
    if any(part in {"", ".", ".."} for part in parts):
        raise UsageError(f"{text}: names no place; a URL is {scheme}://BUCKET/KEY without empty, '.' or '..' parts")
    return Url(f"{scheme}://{'/'.join(parts)}", scheme, parts)


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
    return Stamp(found.st_size, found.st_mtime_ns, found.st_ino, found.st_ctime_ns, modified_s=found.st_mtime)


def read_bytes(source: StoragePath, *, limit: int) -> bytes:
    """A file that is to be small, in one request.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it has over ``limit`` bytes.
    """
    data = _beginning(source, limit + 1)
    if len(data) > limit:
        raise ValueError(f"over the limit of {limit} bytes")
    return data


def _beginning(source: StoragePath, length: int) -> bytes:
    if isinstance(source, Url):
        return source.read_bytes(length)
    plain(source)
    with source.open("rb") as stream:
        return stream.read(length)


def put_bytes(target: StoragePath, data: bytes) -> None:
    """Publish ``data``, whole or not at all."""
    if isinstance(target, Url):
        target.client.put(target.text, data)
    else:
        atomic.write_bytes(target, data)


def put_json(target: StoragePath, value: object) -> None:
    """Publish ``value`` as indented JSON that people can read."""
    put_bytes(target, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def put_file(temp: Path, target: StoragePath) -> None:
    """Publish a finished file, whole or not at all: ``temp`` from ``workbench(target.parent)`` is gone afterwards."""
    if isinstance(target, Url):
        target.client.put_file(target.text, temp)
        temp.unlink()
    else:
        atomic.publish(temp, target)


def workbench(folder: StoragePath) -> Path:
    """Where files for ``folder`` are made: in it, or in the cache for those that are sent away when they are done."""
    return folder if isinstance(folder, Path) else cache.folder() / "outgoing"


def update(target: StoragePath, decide: Callable[[bytes | None], bytes | None]) -> None:
    """Let ``decide`` turn the present content (None: missing) into the next one (None: leave it).

    Of content that has grown over ``MAX_UPDATED_BYTES`` it is shown the beginning.

    Nobody else's update comes in between, and ``decide`` may be asked again: a lock file beside a local file, a
    conditional put on S3. Other object stores, and S3 servers without conditional puts, leave a window between the look
    and the put.
    """
    if isinstance(target, Url):
        _update_object(target, decide)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / ".lock").open("wb") as lock:
        filesystem.lock(lock, Path(lock.name))
        present = _beginning(target, MAX_UPDATED_BYTES) if target.is_file() else None
        if (new := decide(present)) is not None:
            atomic.write_bytes(target, new)


def remove_if(target: StoragePath, wanted: Callable[[], bool]) -> None:
    """Remove a file, which need not be there, if ``wanted`` says so while nobody can ``update`` it; on an object store
    that leaves a window between the look and the removal.
    """
    if isinstance(target, Url):
        if wanted():
            target.unlink(missing_ok=True)
    elif target.parent.is_dir():
        with (target.parent / ".lock").open("wb") as lock:
            filesystem.lock(lock, Path(lock.name))
            if wanted():
                target.unlink(missing_ok=True)


def _update_object(target: Url, decide: Callable[[bytes | None], bytes | None]) -> None:
    for _ in range(_UPDATES):
        etag, present = _present(target)
        new = decide(present)
        if new is None or target.client.put_unless_changed(target.text, new, etag):
            return
    raise WorkFailed(f"{target}: others keep changing it; run again")


def _present(target: Url) -> tuple[str | None, bytes | None]:
    """The ETag first: content that is newer than it makes the conditional put fail, as it should."""
    try:
        return str(target.client.info(target.text).get("ETag", "")), _beginning(target, MAX_UPDATED_BYTES)
    except FileNotFoundError:
        return None, None


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


def make_writable(root: StoragePath, folders: Iterable[str]) -> list[Path]:
    """Make ``folders`` below ``root`` where there are such things, and show that ``root`` can be written.

    Returns:
        The local folders that were not there before.

    Raises:
        OSError: it cannot be written.
        UsageError: an object store refuses.
    """
    if isinstance(root, Url):
        probe = root / ".zipbatch-writable"  # one name for all: what a killed run leaves of it, the next one removes
        put_bytes(probe, b"")
        probe.unlink(missing_ok=True)
        return []
    made = [folder for name in folders for folder in atomic.make_folder(root / name)]
    temp = atomic.temp_path(root)
    temp.touch()
    temp.unlink()
    return made


def each(function: Callable[[T], R], items: Iterable[T], *, at: StoragePath) -> list[R]:
    """``function`` of every item, in order; at the same time where each call waits for an object store."""
    if isinstance(at, Path):
        return [function(item) for item in items]
    _ = at.client  # the first contact, once for all
    with ThreadPoolExecutor(REQUESTS_AT_ONCE, "request") as pool:
        return list(pool.map(function, items))
