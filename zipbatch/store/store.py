"""Objects and task records of a store on a local file system."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from zipbatch import atomic
from zipbatch.errors import DataError, UsageError
from zipbatch.shards import ShardWriter
from zipbatch.shards.writer import ShardInfo

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_FOLDERS = ("objects", "tasks", "versions", "tags")
_DIGEST = re.compile(r"^[0-9a-f]{64}$")
QUARANTINE = ".quarantine.tar"


def check_name(name: str, what: str) -> str:
    """A dataset or tag name that is safe as a file name.

    Raises:
        UsageError: it is not; says what is allowed.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"{what} {name!r}: use letters, digits, '.', '_' and '-', starting with a letter or digit")
    return name


class SlotRun(BaseModel):
    """Consecutive samples of one size in a shard, and how they shared canvases.

    Sample i of the run, from 0, was in slot i % slots of its canvas i // slots; slots count in reading order, and a
    canvas has as many columns as ``width`` goes into its side. Where a run ends within a canvas, its images repeat.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    samples: int = Field(ge=1)
    width: int = Field(ge=1)
    height: int = Field(ge=1)
    slots: int = Field(ge=1)


class TaskRecord(BaseModel):
    """What is known of one purified shard; written after its object.

    ``quarantined`` are the keys, in order, of samples that could not be read, for ``reasons`` by key; they lie
    untouched in the quarantine shard of digest ``quarantine_sha256``, None where there are none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    format_version: Literal[1] = 1
    input_sha256: str = Field(pattern=_DIGEST.pattern)
    output_sha256: str = Field(pattern=_DIGEST.pattern)
    samples_in: int = Field(ge=0)
    samples_out: int = Field(ge=0)
    quarantined: list[str] = []
    quarantine_sha256: str | None = Field(default=None, pattern=_DIGEST.pattern)
    reasons: dict[str, str] = {}
    slots: list[SlotRun] = []
    seconds: float
    device: str
    worker: dict[str, Any]
    versions: dict[str, str]


class Store:
    """A store rooted at a folder. Reading never creates anything; ``prepare`` makes it ready for writing."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def prepare(self) -> list[Path]:
        """Create the store's folders, show that they can be written, and sweep up what killed runs left behind.

        Returns:
            The folders that were not there before.

        Raises:
            UsageError: they cannot be written.
        """
        try:
            made = [folder for name in _FOLDERS for folder in atomic.make_folder(self.root / name)]
            probe = atomic.temp_path(self.root)
            probe.touch()
            probe.unlink()
            atomic.sweep(self.root / "objects")
        except OSError as error:
            raise UsageError(
                f"{self.root}: the store cannot be written ({error.strerror}); choose another --store or fix it"
            ) from error
        return made

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

    def object_path(self, sha256: str) -> Path:
        """Where the object of that digest lies or would lie."""
        if not _DIGEST.fullmatch(sha256):
            raise DataError(self.root, f"{sha256[:80]!r} is not a digest")
        return self.root / "objects" / sha256[:2] / f"{sha256}.tar"

    def quarantine_path(self, sha256: str) -> Path:
        """Where the quarantine shard of that digest lies or would lie.

        It is named by its own digest: by that of the purified shard, two shards of which nothing could be read, whose
        purified shards are the same empty one, would share a quarantine.
        """
        return self.object_path(sha256).with_suffix(QUARANTINE)

    def _task_path(self, key: str) -> Path:
        return self.root / "tasks" / key[:2] / f"{key}.json"

    def has_object(self, sha256: str) -> bool:
        """Whether the object is there (by name; ``verify`` looks at its bytes)."""
        return self.object_path(sha256).is_file()

    def has_all(self, sha256: str, quarantine: str | None) -> bool:
        """Whether the object is there, and the quarantine shard beside it if there is to be one."""
        return self.has_object(sha256) and (quarantine is None or self.quarantine_path(quarantine).is_file())

    def new_object(self) -> ShardWriter:
        """A writer on the store's file system; publish its result with ``publish_object``."""
        return ShardWriter(self.root / "objects")

    def publish_object(self, writer: ShardWriter, info: ShardInfo) -> None:
        """Name the finished shard by its digest. An object that is there already has the same bytes."""
        writer.publish(self.object_path(info.sha256))

    def publish_quarantine(self, writer: ShardWriter, info: ShardInfo) -> None:
        """Name the finished quarantine shard by its digest."""
        writer.publish(self.quarantine_path(info.sha256))

    def task(self, key: str) -> TaskRecord | None:
        """The record of a task whose objects are there too, else None: then the work is still to be done."""
        try:
            record = TaskRecord.model_validate_json(self._task_path(key).read_bytes())
        except (FileNotFoundError, NotADirectoryError, ValidationError):
            return None
        return record if self.has_all(record.output_sha256, record.quarantine_sha256) else None

    def put_task(self, key: str, record: TaskRecord) -> None:
        """Publish a task's record; its objects must have been published before."""
        if not self.has_all(record.output_sha256, record.quarantine_sha256):
            raise RuntimeError(f"task {key} would name an object that is not there")
        atomic.write_json(self._task_path(key), record.model_dump(mode="json"))

    def remove_task(self, key: str) -> None:
        """Forget a damaged record; its work is then still to be done."""
        self._task_path(key).unlink(missing_ok=True)

    def objects(self) -> Iterator[Path]:
        """All objects, for ``verify`` only: nothing else lists the store."""
        return (file for file in sorted((self.root / "objects").glob("??/*")) if _visible(file))

    def tasks(self) -> Iterator[tuple[str, TaskRecord | None]]:
        """All (task key, record or None when damaged), for ``verify`` only."""
        for file in sorted((self.root / "tasks").glob("??/*.json")):
            if _visible(file):
                try:
                    yield file.stem, TaskRecord.model_validate(json.loads(file.read_bytes()))
                except (ValueError, RecursionError):
                    yield file.stem, None


def _visible(file: Path) -> bool:
    return not file.name.startswith(atomic.TEMP_PREFIX)
