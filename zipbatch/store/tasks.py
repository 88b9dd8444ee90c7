"""Task records of a store: what was made of which input by which purifier, so that it is never made twice."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from zipbatch import storage
from zipbatch.errors import DataError
from zipbatch.storage import StoragePath
from zipbatch.store.files import LostObjectsError, StoreFiles
from zipbatch.store.objects import Objects
from zipbatch.store.records import TaskRecord, read_record
from zipbatch.store.seal import sealed

log = logging.getLogger(__name__)


class Tasks:
    """Everything is looked up by its key. Only ``all`` lists, for those that look after the whole store."""

    def __init__(self, files: StoreFiles, objects: Objects) -> None:
        self._files, self._objects = files, objects

    def _task_path(self, key: str) -> StoragePath:
        return self._files.root / "tasks" / key[:2] / f"{key}.json"

    def read(self, key: str) -> TaskRecord | None:
        """The record of a task whose objects are as they were when it was written, else None: then the work is still to
        be done, or ``sound`` has to look.
        """
        record, sure = self.peek(key)
        return record if sure else None

    def peek(self, key: str) -> tuple[TaskRecord | None, bool]:
        """The record of a task whose objects are there, and whether they are surely as they were when it was made."""
        if (record := self.record(key)) is None:
            return None, False
        try:
            if not self._objects.lost(record.objects, since_ns=storage.stamp(self._task_path(key)).touched_ns):
                return record, True
        except FileNotFoundError:
            return None, False
        return (None if self._objects.lost(record.objects) else record), False

    def sound(self, key: str) -> TaskRecord | None:
        """``read``, but objects to which something was done since are read; if they are sound, the record says so."""
        record, sure = self.peek(key)
        if record is None or sure:
            return record
        try:
            before = [self._objects.touched_ns(name) for name in record.objects]
            for name in record.objects:
                with self._objects.sound(name):
                    pass
            if before != [self._objects.touched_ns(name) for name in record.objects]:
                return None  # something is done to it right now
        except DataError:
            return None
        except OSError as error:  # a sector that cannot be read any more: it is written anew
            log.warning("%s: %s; making it again", error.filename or name, error.strerror or error)
            return None
        self.put(key, record)  # it is younger than its objects again
        return record

    def record(self, key: str) -> TaskRecord | None:
        """The record of a task, wherever its objects are; None when it is missing or damaged."""
        return read_record(self._task_path(key))

    def put(self, key: str, record: TaskRecord) -> None:
        """Publish a task's record; its objects must have been published before.

        Raises:
            LostObjectsError: they are not there any more.
        """
        if not all(map(self._objects.has, record.objects)):
            raise LostObjectsError(
                self._objects.path(record.output_sha256), "was removed as soon as it was made; run again"
            )
        unsaid = {name for name in ("other_images", "passed_over", "in_float32") if not getattr(record, name)}
        unsaid |= {name for name in ("calls", "busy_s", "made") if getattr(record, name) is None}
        storage.put_json(self._task_path(key), sealed(record.model_dump(mode="json", exclude=unsaid)))

    def remove(self, key: str) -> None:
        """Forget a damaged record; its work is then still to be done."""
        self._task_path(key).unlink(missing_ok=True)

    def all(self) -> Iterator[tuple[str, TaskRecord | None]]:
        """All (task key, record or None when damaged), for the store's care only."""
        for file in storage.files_below(self._files.root / "tasks"):
            if file.suffix == ".json":
                record = read_record(file)
                if record is not None or file.is_file():  # else it was removed meanwhile
                    yield file.stem, record
