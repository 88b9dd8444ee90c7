"""Check every byte and every reference of a store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from zipbatch.atomic import sha256_file
from zipbatch.errors import DataError, UsageError
from zipbatch.shards import read_shard
from zipbatch.store.store import QUARANTINE, Store, TaskRecord
from zipbatch.store.versions import Version, Versions, counts_of, version_id


@dataclass(frozen=True)
class Fault:
    """Something that is not as it should be, and where."""

    where: str
    reason: str


@dataclass(frozen=True)
class Checked:
    """How much was looked at, and what is wrong with it."""

    objects: int
    tasks: int
    versions: int
    tags: int
    faults: tuple[Fault, ...]


@dataclass(frozen=True)
class _Content:
    """What a sound object holds; ``keys`` are noted of quarantine shards alone, which are small."""

    samples: int
    keys: tuple[str, ...] = ()


class _Objects:
    """Sample counts of sound objects, keys of sound quarantine shards. One that was published after the listing is
    looked at when it is asked for."""

    def __init__(self, store: Store, *, repair: bool) -> None:
        self._store, self._repair = store, repair
        self.faults: list[Fault] = []
        self._found: dict[str, _Content | None] = {}
        for path in store.objects():
            self._found[path.name] = self._check(path)
        self.count = len(self._found)

    def samples(self, sha256: str) -> int | None:
        """How many samples the object holds, None when it is missing or damaged."""
        found = self._content(self._store.object_path(sha256))
        return None if found is None else found.samples

    def quarantined(self, sha256: str) -> tuple[str, ...] | None:
        """The keys in the quarantine shard, in order, None when it is missing or damaged."""
        found = self._content(self._store.quarantine_path(sha256))
        return None if found is None else found.keys

    def _content(self, path: Path) -> _Content | None:
        if path.name not in self._found:
            self._found[path.name] = self._check(path) if path.is_file() else None
        return self._found[path.name]

    def _check(self, path: Path) -> _Content | None:
        try:
            return _check_object(path)
        except DataError as error:
            self.faults.append(Fault(error.where, error.reason + (" (removed)" if self._repair else "")))
            if self._repair:
                path.unlink(missing_ok=True)
            return None


def verify(store: Store, *, repair: bool = False) -> Checked:
    """Hash every object, read every shard, follow every reference of tasks, versions and tags.

    Safe beside a running purify: what is published meanwhile is looked at when something refers to it.

    Args:
        store: the store.
        repair: remove damaged objects and task records, so that the next purify computes them anew.

    Raises:
        UsageError: there is no store.
    """
    store.require()
    objects = _Objects(store, repair=repair)
    faults: list[Fault] = []
    tasks = 0
    for key, record in store.tasks():
        tasks += 1
        if reason := _task_fault(record, objects):
            faults.append(Fault(f"tasks/{key}", reason))
            if repair:
                store.remove_task(key)
    counted = {"versions": 0, "tags": 0}
    faults += _check_versions(Versions(store), objects, counted)
    return Checked(objects.count, tasks, counted["versions"], counted["tags"], tuple(objects.faults + faults))


def _task_fault(record: TaskRecord | None, objects: _Objects) -> str | None:
    if record is None:
        return "damaged record"
    samples = objects.samples(record.output_sha256)
    if samples is None:
        return f"its object {record.output_sha256} is missing or damaged"
    if record.samples_out != samples:
        return "its sample count is not its object's"
    if record.samples_in != record.samples_out + len(record.quarantined):
        return "samples in are not samples out plus quarantined"
    return _quarantine_fault(record, objects)


def _quarantine_fault(record: TaskRecord, objects: _Objects) -> str | None:
    keys = () if record.quarantine_sha256 is None else objects.quarantined(record.quarantine_sha256)
    if keys is None:
        return f"its quarantine shard {record.quarantine_sha256} is missing or damaged"
    if keys != tuple(record.quarantined):
        return "its quarantined keys are not those of its quarantine shard"
    return None


def _check_object(path: Path) -> _Content:
    digest, dot, kind = path.name.partition(".")
    if dot + kind not in {".tar", QUARANTINE} or path.parent.name != digest[:2]:
        raise DataError(path, "does not belong here")
    if sha256_file(path) != digest:
        raise DataError(path, "its bytes are not those its name says")
    if dot + kind == QUARANTINE:
        keys = tuple(sample.key for sample in read_shard(path, imageless=True))
        return _Content(len(keys), keys)
    return _Content(sum(1 for _ in read_shard(path)))


def _check_versions(versions: Versions, objects: _Objects, counted: dict[str, int]) -> Iterator[Fault]:
    for dataset in versions.datasets():
        try:
            headers = versions.versions(dataset)
        except DataError as error:
            yield Fault(error.where, error.reason)
            continue
        known = {header.version for header in headers}
        for header in headers:
            counted["versions"] += 1
            yield from _check_version(versions, f"{dataset}@{header.version}", objects)
        for tag in versions.tag_names(dataset):
            counted["tags"] += 1
            yield from _check_tag(versions, dataset, tag, known)


def _check_tag(versions: Versions, dataset: str, tag: str, known: set[str]) -> Iterator[Fault]:
    try:
        version = versions.tag(dataset, tag)
    except (DataError, UsageError) as error:
        yield Fault(f"tags/{dataset}/{tag}", str(error))
        return
    if version not in known:
        yield Fault(f"tags/{dataset}/{tag}", f"points to {version}, which is not there")


def _check_version(versions: Versions, reference: str, objects: _Objects) -> Iterator[Fault]:
    try:
        version: Version = versions.read(reference)
    except (DataError, UsageError) as error:
        yield Fault(reference, str(error))
        return
    header = version.header
    if version_id(header.dataset, header.purifier, version.rows) != header.version:
        yield Fault(reference, "its list is not the one its id was made of")
    for row in version.rows:
        samples = objects.samples(row.output)
        if samples is None:
            yield Fault(reference, f"{row.shard}: object {row.output} is missing or damaged")
        elif samples != row.samples:
            yield Fault(reference, f"{row.shard}: {samples} samples, the list says {row.samples}")
        keys = () if row.quarantine is None else objects.quarantined(row.quarantine)
        if keys is None:
            yield Fault(reference, f"{row.shard}: quarantine shard {row.quarantine} is missing or damaged")
        elif len(keys) != row.quarantined:
            yield Fault(reference, f"{row.shard}: {len(keys)} quarantined, the list says {row.quarantined}")
    if header.counts != counts_of(version.rows) or header.quarantined != sum(row.quarantined for row in version.rows):
        yield Fault(reference, "its counts are not those of its list")
