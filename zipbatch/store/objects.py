"""Objects of a store: purified shards and quarantine shards, each named by the digest of its bytes."""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from zipbatch import atomic, storage
from zipbatch.errors import DataError
from zipbatch.shards import ShardWriter
from zipbatch.shards.writer import ShardInfo
from zipbatch.storage import StoragePath
from zipbatch.store.files import StoreFiles
from zipbatch.store.records import QUARANTINE

ASKED_AT_MOST = 5_000
"""Objects that an object store is asked for one by one: some seconds, at many requests at once."""
_OBJECT = re.compile(rf"[0-9a-f]{{64}}({re.escape(QUARANTINE)})?")


class Objects:
    """Everything is looked up by its name. Only ``all`` lists, for those that look after the whole store."""

    def __init__(self, files: StoreFiles) -> None:
        self._files = files

    def path(self, sha256: str) -> StoragePath:
        """Where the object of that digest lies or would lie; with ``QUARANTINE`` after it, a quarantine shard.

        That is named by its own digest: by that of the purified shard, two shards of which nothing could be read, whose
        purified shards are the same empty one, would share a quarantine.
        """
        if not _OBJECT.fullmatch(sha256):
            raise DataError(self._files.root, f"{sha256[:80]!r} is not a digest")
        return self._files.root / "objects" / sha256[:2] / f"{sha256}.tar"

    def has(self, sha256: str) -> bool:
        """Whether the object is there (by name; ``verify`` looks at its bytes)."""
        return self.path(sha256).is_file()

    def lost(self, digests: Collection[str], *, since_ns: int | None = None) -> set[str]:
        """Those of many objects that are not there. An object store is not asked for more than ``ASKED_AT_MOST``.

        A million requests are too many: then a version's list is trusted (``removals.lost_objects``).

        Args:
            digests: names of objects.
            since_ns: also those to which something was done after that time, when what names them was written: their
                bytes may be others by now, and ``Tasks.sound`` looks at them.
        """
        touched: Iterable[int | None]
        if isinstance(self._files.root, Path):
            folder = f"{self._files.root}/objects"
            touched = [_touched_ns(f"{folder}/{sha256[:2]}/{sha256}.tar") for sha256 in digests]
        else:
            digests = digests if len(digests) <= ASKED_AT_MOST else ()
            few = len(digests) < 3  # those of a record: a pool of threads for each would cost more than the requests
            touched = (
                map(self.touched_ns, digests) if few else storage.each(self.touched_ns, digests, at=self._files.root)
            )
        limit = math.inf if since_ns is None else since_ns
        return {sha256 for sha256, ns in zip(digests, touched, strict=True) if ns is None or ns > limit}

    def touched_ns(self, sha256: str) -> int | None:
        """When something was done to an object, ns since 1970; None where it is not there."""
        try:
            return storage.stamp(self.path(sha256)).touched_ns
        except FileNotFoundError:
            return None

    def export(self, sha256: str, to: Path, *, copy: bool) -> None:
        """Give an object another name outside of the store: a hard link, or a copy where asked or where it must be.

        Raises:
            DataError: the object is not there, or has not the bytes that its name says; ``to`` is not there then.
        """
        path = self.path(sha256)
        try:
            if copy or not isinstance(path, Path) or not _is_linked(path, to):
                with storage.local_copy(path, cached=False) as file:
                    shutil.copyfile(file, to)
            _check_digest(to, sha256, of=path)
        except FileNotFoundError as error:
            raise _missing(path) from error
        except DataError:
            to.unlink()
            raise

    @contextmanager
    def sound(self, sha256: str) -> Iterator[Path]:
        """The object of that name in a local file, its bytes held against it first.

        Raises:
            DataError: it is not there, or has other bytes.
        """
        path = self.path(sha256)
        with ExitStack() as opened:
            try:
                file = opened.enter_context(storage.local_copy(path, cached=False))
                _check_digest(file, sha256, of=path)
            except FileNotFoundError as error:
                raise _missing(path) from error
            yield file

    def remove(self, sha256: str, *, unless_newer_ns: int) -> bool:
        """Remove an object that nothing needs, unless it was published (again) after ``unless_newer_ns``.

        Returns:
            Whether it was removed, or was not there any more.
        """
        path = self.path(sha256)
        try:
            written_s = storage.stamp(path).modified_s
            if written_s is None or written_s > unless_newer_ns / 1e9:
                return False
        except FileNotFoundError:
            return True
        path.unlink(missing_ok=True)
        return True

    def have(self, sha256s: Iterable[str]) -> list[bool]:
        """``has`` of each."""
        return storage.each(self.has, sha256s, at=self._files.root)

    def new(self) -> ShardWriter:
        """A writer on a local disk, the store's own where it has one; publish its result with ``publish``.

        Raises:
            FileNotFoundError: the store's folder has gone since it was prepared.
        """
        self._files.check_there()
        return ShardWriter(storage.workbench(self._files.root / "objects"))

    def publish(self, writer: ShardWriter, info: ShardInfo) -> None:
        """Name the finished shard by its digest. An object that is there already has the same bytes."""
        writer.publish(self.path(info.sha256), read_only=True)

    def publish_quarantine(self, writer: ShardWriter, info: ShardInfo) -> None:
        """Name the finished quarantine shard by its digest."""
        writer.publish(self.path(f"{info.sha256}{QUARANTINE}"), read_only=True)

    def all(self) -> Iterator[StoragePath]:
        """All objects, for the store's care only."""
        return storage.files_below(self._files.root / "objects")


def _missing(path: StoragePath) -> DataError:
    return DataError(path, "missing; run purify again")


def _check_digest(file: Path, sha256: str, *, of: StoragePath) -> None:
    if atomic.sha256_file(file) != sha256.removesuffix(QUARANTINE):
        reason = "its bytes are not those its name says; run 'zipbatch store verify --repair', then purify again"
        raise DataError(of, reason)


def _is_linked(path: Path, to: Path) -> bool:
    """Make ``to`` a hard link, unless it lies on another file system or on one without links."""
    try:
        to.hardlink_to(path)
    except FileNotFoundError:
        raise
    except OSError:
        return False
    return True


def _touched_ns(path: str) -> int | None:
    """As ``Stamp.touched_ns``, None where nothing is there. A Path and a Stamp for each of a million take too long."""
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return max(found.st_mtime_ns, found.st_ctime_ns)
