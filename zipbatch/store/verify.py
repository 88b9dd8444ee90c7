"""Check every byte and every reference of a store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from zipbatch.atomic import sha256_file
from zipbatch.errors import DataError, UsageError
from zipbatch.shards import read_shard
from zipbatch.storage import Stamp, StoragePath, local_copy, stamp
from zipbatch.store.attestation import read_statement
from zipbatch.store.records import QUARANTINE, TaskRecord
from zipbatch.store.removals import Removals, claims
from zipbatch.store.rows import VersionRow
from zipbatch.store.signatures import envelopes, subject_fault, version_files
from zipbatch.store.store import Store
from zipbatch.store.versions import Version, Versions


@dataclass(frozen=True)
class Fault:
    """Something that is not as it should be, and where."""

    where: str
    reason: str


@dataclass(frozen=True, kw_only=True)
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

    def __init__(
        self, store: Store, paths: Sequence[StoragePath], *, repair: bool, on_progress: Callable[[int, int], None]
    ) -> None:
        self._store, self._repair = store, repair
        self.faults: list[Fault] = []
        self.lost: set[str] = set()
        self._found: dict[str, _Content | None] = {}
        for number, path in enumerate(paths):
            on_progress(number, len(paths))
            if (content := self._check(path)) is not None or path.is_file():
                self._found[f"{path.parent.name}/{path.name}"] = content
        on_progress(len(paths), len(paths))
        self.count = len(self._found)

    def samples(self, sha256: str) -> int | None:
        """How many samples the object holds, None when it is missing or damaged."""
        found = self._content(sha256)
        return None if found is None else found.samples

    def quarantined(self, sha256: str) -> tuple[str, ...] | None:
        """The keys in the quarantine shard, in order, None when it is missing or damaged."""
        found = self._content(f"{sha256}{QUARANTINE}")
        return None if found is None else found.keys

    def _content(self, name: str) -> _Content | None:
        path = self._store.objects.path(name)
        where = f"{path.parent.name}/{path.name}"
        if where not in self._found:
            self._found[where] = self._check(path) if path.is_file() else None
        if self._found[where] is None:
            self.lost.add(name)
        return self._found[where]

    def _check(self, path: StoragePath) -> _Content | None:
        """What the object holds. One that a run made anew while it was read is read again: what is removed is what was
        found damaged.
        """
        while True:
            try:
                before = _stamp(path)
                return _check_object(path)
            except FileNotFoundError:
                return None  # removed meanwhile; a fault only where something refers to it
            except DataError as error:
                if _stamp(path) not in {None, before}:
                    continue
                self.faults.append(Fault(error.where, error.reason + (" (removed)" if self._repair else "")))
                if self._repair:
                    path.unlink(missing_ok=True)
                return None


def _stamp(path: StoragePath) -> Stamp | None:
    """None where nothing is there."""
    try:
        return stamp(path)
    except FileNotFoundError:
        return None


def verify(
    store: Store, *, repair: bool = False, on_progress: Callable[[int, int], None] = lambda _done, _all: None
) -> Checked:
    """Hash every object, read every shard, follow every reference of tasks, versions and tags.

    Safe beside a running purify or gc: what is published meanwhile is looked at when something refers to it.

    Args:
        store: the store.
        repair: remove what is damaged, so that the next purify of the same data makes all of it anew: objects, records,
            versions that cannot be read, tags that point nowhere, answers of victims. A sound version that lacks
            objects stays.
        on_progress: called with the objects done so far and in all.

    Raises:
        UsageError: there is no store.
    """
    store.require()
    objects = _Objects(store, list(store.objects.all()), repair=repair, on_progress=on_progress)
    faults: list[Fault] = []
    tasks = 0
    for key, record in store.tasks.all():
        tasks += 1
        if reason := _task_fault(record, objects):
            faults.append(_fault(f"tasks/{key}", reason, removed=repair))
            if repair and store.tasks.record(key) == record:  # else a run has written it anew
                store.tasks.remove(key)
    counted = {"versions": 0, "tags": 0}
    faults += _check_versions(store, objects, counted, repair=repair)
    faults += _check_answers(store, repair=repair)
    if repair:
        Removals(store).note(objects.lost)
    return Checked(
        objects=objects.count,
        tasks=tasks,
        versions=counted["versions"],
        tags=counted["tags"],
        faults=tuple(objects.faults + faults),
    )


def verify_version(
    store: Store, version: Version, *, on_progress: Callable[[int, int], None] = lambda _done, _all: None
) -> tuple[Fault, ...]:
    """Hash and read every object of one version, which was read whole; what is wrong with them."""
    names = dict.fromkeys(name for row in version.rows for name in row.objects)
    objects = _Objects(store, list(map(store.objects.path, names)), repair=False, on_progress=on_progress)
    return (*objects.faults, *_check_rows(version.reference, version.rows, objects))


def _fault(where: str, reason: str, *, removed: bool) -> Fault:
    return Fault(where, reason + (" (removed)" if removed else ""))


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


def _check_object(path: StoragePath) -> _Content:
    digest, dot, kind = path.name.partition(".")
    if dot + kind not in {".tar", f"{QUARANTINE}.tar"} or path.parent.name != digest[:2]:
        raise DataError(path, "does not belong here")
    with local_copy(path, cached=False) as file:  # the store's own bytes, not those of an earlier look
        if sha256_file(file) != digest:
            raise DataError(path, "its bytes are not those its name says")
        try:
            if kind != "tar":
                keys = tuple(sample.key for sample in read_shard(file, imageless=True))
                return _Content(len(keys), keys)
            return _Content(sum(1 for _ in read_shard(file)))
        except DataError as error:
            raise DataError(path, error.reason, key=error.key) from error


def _check_versions(store: Store, objects: _Objects, counted: dict[str, int], *, repair: bool) -> Iterator[Fault]:
    versions = store.versions
    for dataset in versions.datasets():
        for version in versions.ids(dataset):
            counted["versions"] += 1
            name = f"{dataset}@{version}"
            reason, rows = _examine(versions, name)
            if reason is not None:
                yield _fault(name, reason, removed=repair and _remove_damaged(store, versions, name))
            yield from _check_rows(name, rows, objects)
            if reason is None:
                yield from _check_signed(store, dataset, version)
        for tag in versions.tags.names(dataset):
            counted["tags"] += 1
            if reason := _tag_damage(versions, dataset, tag):
                yield _fault(f"tags/{dataset}/{tag}", reason, removed=repair)
                if repair:
                    versions.tags.remove(dataset, tag, only_if=partial(_has_damage, versions, dataset, tag))


def _check_answers(store: Store, *, repair: bool) -> Iterator[Fault]:
    for file in store.answers.all():
        if store.answers.is_damaged(file) and (store.root / file.name).is_file():
            yield _fault(file.name, "damaged answers of a victim; the next audit asks again", removed=repair)
            if repair:
                store.remove_file(file.name)


def _check_signed(store: Store, dataset: str, version: str) -> Iterator[Fault]:
    """Whether the signatures of a version are of its files; by whom they are is not asked. Repair leaves them."""
    try:
        for envelope in envelopes(store, dataset, version):
            said = read_statement(envelope.payload)
            if reason := subject_fault(said.subjects, version_files(store, dataset, version)):
                yield Fault(f"{dataset}@{version}", f"the signature of {envelope.key} {reason}")
    except DataError as error:
        yield Fault(f"{dataset}@{version}", error.reason)
    except ValueError as error:
        yield Fault(f"{dataset}@{version}", f"damaged signature: {error}")


def _has_damage(versions: Versions, dataset: str, tag: str) -> bool:
    return _tag_damage(versions, dataset, tag) is not None


def _tag_damage(versions: Versions, dataset: str, tag: str) -> str | None:
    try:
        version = versions.tags.read(dataset, tag)
    except (DataError, UsageError) as error:
        return str(error)
    if version is not None and version not in versions.ids(dataset):
        return f"points to {version}, which is not there"
    return None


def _examine(versions: Versions, reference: str) -> tuple[str | None, tuple[VersionRow, ...]]:
    """Why a version is not what its id says, or None and its rows; none when it is not there any more."""
    try:
        return None, versions.read_id(*reference.split("@")).rows
    except DataError as error:
        return error.reason, ()
    except FileNotFoundError:
        return None, ()  # forgotten meanwhile


def _remove_damaged(store: Store, versions: Versions, reference: str) -> bool:
    """Remove a damaged version, unless a run has put it right or is about to."""
    with Removals(store).noted(versions=[reference]):
        if reference in claims(store) or _examine(versions, reference)[0] is None:
            return False
        versions.remove(*reference.split("@"))
    return True


def _check_rows(reference: str, rows: Iterable[VersionRow], objects: _Objects) -> Iterator[Fault]:
    for row in rows:
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
