"""Objects and task records of a store, on a disk or in an object store."""

from __future__ import annotations

import errno
import logging
import math
import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from zipbatch import atomic, storage
from zipbatch.errors import DataError, UsageError
from zipbatch.shards import ShardWriter
from zipbatch.shards.writer import ShardInfo
from zipbatch.storage import StoragePath
from zipbatch.store.records import QUARANTINE, TaskRecord, read_record
from zipbatch.store.seal import sealed

log = logging.getLogger(__name__)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_FOLDERS = ("objects", "tasks", "versions", "tags")
ASKED_AT_MOST = 5_000
"""Objects that an object store is asked for one by one: some seconds, at many requests at once."""
OLD_TEMP_S = 86_400.0
_OBJECT = re.compile(rf"[0-9a-f]{{64}}({re.escape(QUARANTINE)})?")


class LostObjectsError(DataError):
    """Objects that a run had found or made were removed before it could publish what names them."""


def check_name(name: str, what: str) -> str:
    """A dataset or tag name that is safe as a file name.

    Raises:
        UsageError: it is not; says what is allowed.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"{what} {name!r}: use letters, digits, '.', '_' and '-', starting with a letter or digit")
    return name


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a store: its name below the root, its size in bytes, and when it was written (ns since 1970)."""

    name: str
    size: int
    mtime_ns: int


class Store:
    """A store rooted at a folder or URL. Reading never creates anything; ``prepare`` makes it ready for writing.

    Everything is looked up by its name. Only ``objects`` and ``tasks`` list, for those that look after the whole store.
    """

    def __init__(self, root: StoragePath) -> None:
        self.root: StoragePath = root.absolute()

    def prepare(self) -> list[Path]:
        """Create the store's folders, show that they can be written, and sweep up what killed runs left behind.

        Returns:
            The folders that were not there before.

        Raises:
            UsageError: they cannot be written.
        """
        try:
            made = storage.make_writable(self.root, _FOLDERS)
            atomic.sweep(storage.workbench(self.root / "objects"))
        except OSError as error:
            raise UsageError(
                f"{self.root}: the store cannot be written ({error.strerror}); choose another --store or fix it"
            ) from error
        return made

    def _check_there(self) -> None:
        """A disk that was unmounted in mid-run leaves its empty folder behind, which is not to be written to."""
        if isinstance(self.root, Path) and not (objects := self.root / "objects").is_dir():
            raise FileNotFoundError(
                errno.ENOENT, "the store is gone: was its disk unmounted, or removed?", str(objects)
            )

    def sweep(self) -> None:
        """Remove the temp files that killed runs left anywhere in the store, a day ago or longer."""
        if isinstance(self.root, Path):
            for folder, _, _ in os.walk(self.root):
                atomic.sweep(Path(folder), older_than_s=OLD_TEMP_S)

    @staticmethod
    def discard_empty(made: list[Path]) -> None:
        """Take back folders of ``prepare`` that are still empty, after a run that published nothing."""
        for folder in reversed(made):
            try:
                folder.rmdir()
            except OSError:
                pass  # no longer empty: it stays

    def require(self) -> None:
        """Raises ``UsageError`` when there is no store at the root."""
        if not (self.root / "objects").is_dir():
            raise UsageError(f"{self.root}: no store there; 'zipbatch purify … --store {self.root}' makes one")

    def object_path(self, sha256: str) -> StoragePath:
        """Where the object of that digest lies or would lie; with ``QUARANTINE`` after it, a quarantine shard.

        That is named by its own digest: by that of the purified shard, two shards of which nothing could be read, whose
        purified shards are the same empty one, would share a quarantine.
        """
        if not _OBJECT.fullmatch(sha256):
            raise DataError(self.root, f"{sha256[:80]!r} is not a digest")
        return self.root / "objects" / sha256[:2] / f"{sha256}.tar"

    def _task_path(self, key: str) -> StoragePath:
        return self.root / "tasks" / key[:2] / f"{key}.json"

    def has_object(self, sha256: str) -> bool:
        """Whether the object is there (by name; ``verify`` looks at its bytes)."""
        return self.object_path(sha256).is_file()

    def lost_objects(self, digests: Collection[str], *, since_ns: int | None = None) -> set[str]:
        """Those of many objects that are not there. An object store is not asked for more than ``ASKED_AT_MOST``.

        A million requests are too many: then a version's list is trusted (``removals.lost_objects``).

        Args:
            digests: names of objects.
            since_ns: also those to which something was done after that time, when what names them was written: their
                bytes may be others by now, and ``sound_task`` looks at them.
        """
        touched: Iterable[int | None]
        if isinstance(self.root, Path):
            folder = f"{self.root}/objects"
            touched = [_touched_ns(f"{folder}/{sha256[:2]}/{sha256}.tar") for sha256 in digests]
        else:
            digests = digests if len(digests) <= ASKED_AT_MOST else ()
            few = len(digests) < 3  # those of a record: a pool of threads for each would cost more than the requests
            touched = map(self._touched_ns, digests) if few else storage.each(self._touched_ns, digests, at=self.root)
        limit = math.inf if since_ns is None else since_ns
        return {sha256 for sha256, ns in zip(digests, touched, strict=True) if ns is None or ns > limit}

    def _touched_ns(self, sha256: str) -> int | None:
        try:
            return storage.stamp(self.object_path(sha256)).touched_ns
        except FileNotFoundError:
            return None

    def export_object(self, sha256: str, to: Path, *, copy: bool) -> None:
        """Give an object another name outside of the store: a hard link, or a copy where asked or where it must be.

        Raises:
            DataError: the object is not there, or has not the bytes that its name says; ``to`` is not there then.
        """
        path = self.object_path(sha256)
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
    def sound_object(self, sha256: str) -> Iterator[Path]:
        """The object of that name in a local file, its bytes held against it first.

        Raises:
            DataError: it is not there, or has other bytes.
        """
        path = self.object_path(sha256)
        with ExitStack() as opened:
            try:
                file = opened.enter_context(storage.local_copy(path, cached=False))
                _check_digest(file, sha256, of=path)
            except FileNotFoundError as error:
                raise _missing(path) from error
            yield file

    def remove_object(self, sha256: str, *, unless_newer_ns: int) -> bool:
        """Remove an object that nothing needs, unless it was published (again) after ``unless_newer_ns``.

        Returns:
            Whether it was removed, or was not there any more.
        """
        path = self.object_path(sha256)
        try:
            written_s = storage.stamp(path).modified_s
            if written_s is None or written_s > unless_newer_ns / 1e9:
                return False
        except FileNotFoundError:
            return True
        path.unlink(missing_ok=True)
        return True

    def read_file(self, name: str, *, limit: int) -> bytes | None:
        """The bytes of a file of the store by its name below the root, None when it is not there.

        Raises:
            ValueError: it has over ``limit`` bytes.
        """
        try:
            return storage.read_bytes(self.root / name, limit=limit)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write_file(self, name: str, data: bytes) -> None:
        """Publish a file of the store, whole or not at all."""
        self._check_there()
        storage.put_bytes(self.root / name, data)

    def remove_file(self, name: str) -> None:
        """Remove a file of the store; it need not be there."""
        (self.root / name).unlink(missing_ok=True)

    def list_files(self, folder: str) -> Iterator[StoredFile]:
        """Every file in a folder of the store and below, sorted by name; those that vanish meanwhile are left out.

        For what looks after the store (``gc.py``, ``removals.py``); runs never list objects or records.
        """
        for name, stamp in storage.stamps_below(self.root / folder):
            yield StoredFile(f"{folder}/{name}", stamp.size, int((stamp.modified_s or 0) * 1e9))

    def has_objects(self, sha256s: Iterable[str]) -> list[bool]:
        """``has_object`` of each."""
        return storage.each(self.has_object, sha256s, at=self.root)

    def new_object(self) -> ShardWriter:
        """A writer on a local disk, the store's own where it has one; publish its result with ``publish_object``.

        Raises:
            FileNotFoundError: the store's folder has gone since it was prepared.
        """
        self._check_there()
        return ShardWriter(storage.workbench(self.root / "objects"))

    def publish_object(self, writer: ShardWriter, info: ShardInfo) -> None:
        """Name the finished shard by its digest. An object that is there already has the same bytes."""
        writer.publish(self.object_path(info.sha256), read_only=True)

    def publish_quarantine(self, writer: ShardWriter, info: ShardInfo) -> None:
        """Name the finished quarantine shard by its digest."""
        writer.publish(self.object_path(f"{info.sha256}{QUARANTINE}"), read_only=True)

    def task(self, key: str) -> TaskRecord | None:
        """The record of a task whose objects are as they were when it was written, else None: then the work is still to
        be done, or ``sound_task`` has to look.
        """
        record, sure = self.peek(key)
        return record if sure else None

    def peek(self, key: str) -> tuple[TaskRecord | None, bool]:
        """The record of a task whose objects are there, and whether they are surely as they were when it was made."""
        if (record := self.record(key)) is None:
            return None, False
        try:
            if not self.lost_objects(record.objects, since_ns=storage.stamp(self._task_path(key)).touched_ns):
                return record, True
        except FileNotFoundError:
            return None, False
        return (None if self.lost_objects(record.objects) else record), False

    def sound_task(self, key: str) -> TaskRecord | None:
        """``task``, but objects to which something was done since are read; if they are sound, the record says so."""
        record, sure = self.peek(key)
        if record is None or sure:
            return record
        try:
            before = [self._touched_ns(name) for name in record.objects]
            for name in record.objects:
                with self.sound_object(name):
                    pass
            if before != [self._touched_ns(name) for name in record.objects]:
                return None  # something is done to it right now
        except DataError:
            return None
        except OSError as error:  # a sector that cannot be read any more: it is written anew
            log.warning("%s: %s; making it again", error.filename or name, error.strerror or error)
            return None
        self.put_task(key, record)  # it is younger than its objects again
        return record

    def record(self, key: str) -> TaskRecord | None:
        """The record of a task, wherever its objects are; None when it is missing or damaged."""
        return read_record(self._task_path(key))

    def put_task(self, key: str, record: TaskRecord) -> None:
        """Publish a task's record; its objects must have been published before.

        Raises:
            LostObjectsError: they are not there any more.
        """
        if not all(map(self.has_object, record.objects)):
            raise LostObjectsError(
                self.object_path(record.output_sha256), "was removed as soon as it was made; run again"
            )
        unsaid = {name for name in ("other_images", "passed_over") if not getattr(record, name)}
        unsaid |= {name for name in ("calls", "busy_s", "made") if getattr(record, name) is None}
        storage.put_json(self._task_path(key), sealed(record.model_dump(mode="json", exclude=unsaid)))

    def remove_task(self, key: str) -> None:
        """Forget a damaged record; its work is then still to be done."""
        self._task_path(key).unlink(missing_ok=True)

    def objects(self) -> Iterator[StoragePath]:
        """All objects, for the store's care only."""
        return storage.files_below(self.root / "objects")

    def tasks(self) -> Iterator[tuple[str, TaskRecord | None]]:
        """All (task key, record or None when damaged), for the store's care only."""
        for file in storage.files_below(self.root / "tasks"):
            if file.suffix == ".json":
                record = read_record(file)
                if record is not None or file.is_file():  # else it was removed meanwhile
                    yield file.stem, record


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
