"""Check every byte and every reference of a store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from zipbatch.atomic import sha256_file
from zipbatch.errors import DataError, UsageError
from zipbatch.places import Place, local_copy
from zipbatch.shards import read_shard
from zipbatch.store.store import Store, TaskRecord
from zipbatch.store.versions import Version, Versions, version_id


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


class _Objects:
    """Sample counts of sound objects. One that was published after the listing is looked at when it is asked for."""

    def __init__(self, store: Store, *, repair: bool) -> None:
        self._store, self._repair = store, repair
        self.faults: list[Fault] = []
        self._samples: dict[str, int | None] = {}
        for path in store.objects():
            self._samples[path.stem] = self._check(path)
        self.count = len(self._samples)

    def samples(self, sha256: str) -> int | None:
        """How many samples the object holds, None when it is missing or damaged."""
        if sha256 not in self._samples:
            path = self._store.object_path(sha256)
            self._samples[sha256] = self._check(path) if path.is_file() else None
        return self._samples[sha256]

    def _check(self, path: Place) -> int | None:
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
    return None


def _check_object(path: Place) -> int:
    if path.suffix != ".tar" or path.parent.name != path.stem[:2]:
        raise DataError(path, "does not belong here")
    with local_copy(path, cached=False) as file:  # the store's own bytes, not those of an earlier look
        if sha256_file(file) != path.stem:
            raise DataError(path, "its bytes are not those its name says")
        try:
            return sum(1 for _ in read_shard(file))
        except DataError as error:
            raise DataError(path, error.reason, key=error.key) from error


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
    counts: dict[str, dict[str, int]] = {}
    for row in version.rows:
        split = counts.setdefault(row.split, {"shards": 0, "samples": 0})
        split["shards"] += 1
        split["samples"] += row.samples
        samples = objects.samples(row.output)
        if samples is None:
            yield Fault(reference, f"{row.shard}: object {row.output} is missing or damaged")
        elif samples != row.samples:
            yield Fault(reference, f"{row.shard}: {samples} samples, the list says {row.samples}")
    if counts != header.counts:
        yield Fault(reference, "its counts are not those of its list")
