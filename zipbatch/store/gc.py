"""Collect garbage: forget versions that nobody asked to keep, and remove what no version needs.

What is needed: every object that the list of a remaining version names, with its task record. Objects and records that
no version names may be of a run that has not published its version yet, or be found by the next one; they go when they
are older than a grace period. That is thrift, not safety: what makes gc safe beside running purifies is in
``removals.py``.

Answers of victims are needed as long as a version names the shard that they are on, as its input or its object. Nobody
waits for them: what is missing is asked again.

A killed gc leaves nothing broken: a version goes before its objects, header first; a task record before its object, and
in any case a record without its object counts as not done.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath
from typing import TypeVar

from zipbatch import storage
from zipbatch.errors import DataError
from zipbatch.store.files import StoredFile
from zipbatch.store.records import QUARANTINE
from zipbatch.store.removals import Removals, claims, sweep_claims
from zipbatch.store.signatures import sweep_signatures
from zipbatch.store.store import Store
from zipbatch.store.versions import Versions

T = TypeVar("T")
DAY_S = 86_400.0
BATCH = 5_000
"""Objects to a note: so many are removed well within the time that a note is in force."""
_UNLISTED = "its list is missing, so what it needs is not known; run 'zipbatch store verify --repair' first"
_OBJECT = re.compile(rf"objects/[0-9a-f]{{2}}/([0-9a-f]{{64}}(?:{re.escape(QUARANTINE)})?)\.tar")


@dataclass(frozen=True)
class GcPolicy:
    """What may go.

    Attributes:
        untagged_older_than_s: versions without a tag whose run started longer ago; None forgets no version.
        grace_s: age from which objects, records and lists that no version needs may go.
    """

    untagged_older_than_s: float | None = None
    grace_s: float = 7 * DAY_S


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """What would go. ``versions`` are ``dataset@version``, lists of versions that were never finished among them.

    ``objects``, and ``tasks`` (their keys, by the object that they name), go only if no list that appears meanwhile
    names them; ``answers`` are files of answers. ``read`` are the versions whose lists were read, ``before_ns`` is when
    the grace period began; ``kept_versions`` and ``kept_objects`` count what stays.
    """

    versions: tuple[str, ...]
    tasks: dict[str, tuple[str, ...]]
    objects: tuple[StoredFile, ...]
    read: frozenset[str]
    before_ns: int
    kept_versions: int
    kept_objects: int
    answers: tuple[str, ...] = ()

    @property
    def records(self) -> int:
        """How many task records."""
        return len({key for keys in self.tasks.values() for key in keys})

    @property
    def bytes(self) -> int:
        """Size of the objects together."""
        return sum(file.size for file in self.objects)


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What went."""

    versions: tuple[str, ...]
    tasks: int
    objects: int
    bytes: int
    answers: int = 0


def find_garbage(store: Store, policy: GcPolicy) -> Garbage:
    """Look through the whole store; nothing is changed.

    Raises:
        UsageError: there is no store.
        DataError: a version or tag cannot be read, so that nobody knows what it needs.
    """
    store.require()
    now_s = time.time()
    before_ns = int((now_s - policy.grace_s) * 1e9)
    versions = store.versions
    forgotten, kept = _choose_versions(store, versions, policy, now_s=now_s)
    read, needed, inputs = set[str](), set[str](), set[str]()
    for dataset, version, file in versions.lists():
        if (name := f"{dataset}@{version}") not in forgotten:
            if name not in kept and file.mtime_ns < before_ns:
                forgotten.append(name)  # its run never finished it
                continue
            objects_of, inputs_of = _listed(versions, dataset, version)
            needed |= objects_of
            inputs |= inputs_of
            read.add(name)
    _check_listed(versions, kept - read)
    objects = {name: file for file in store.list_files("objects") if (name := _object_name(file))}
    records = _records(store)
    young = {name for name, made in records.items() if any(mtime_ns >= before_ns for _, mtime_ns in made)}
    gone = {
        name: file
        for name, file in objects.items()
        if name not in needed and name not in young and file.mtime_ns < before_ns
    }
    tasks = {
        name: tuple(key for key, _ in made)
        for name, made in records.items()
        if name in gone or (name not in objects and name not in young)
    }
    return Garbage(
        versions=tuple(sorted(forgotten)),
        tasks=tasks,
        objects=tuple(gone.values()),
        read=frozenset(read),
        before_ns=before_ns,
        kept_versions=len(kept),
        kept_objects=len(objects) - len(gone),
        answers=store.answers.needless(needed | inputs, before_ns=before_ns),
    )


def _check_listed(versions: Versions, unread: set[str]) -> None:
    if unlisted := {name for name in unread if name.partition("@")[2] in versions.ids(name.partition("@")[0])}:
        raise DataError(min(unlisted), _UNLISTED)


def _choose_versions(store: Store, versions: Versions, policy: GcPolicy, *, now_s: float) -> tuple[list[str], set[str]]:
    """(versions to forget, versions that stay)."""
    forgotten, kept = list[str](), set[str]()
    in_use = claims(store) | _tagged(versions)
    for dataset in versions.datasets():
        for header in versions.versions(dataset):
            name = f"{dataset}@{header.version}"
            limit_s = policy.untagged_older_than_s
            if limit_s is None or name in in_use or now_s - header.started_s < limit_s:
                kept.add(name)
            else:
                forgotten.append(name)
    return forgotten, kept


def _tagged(versions: Versions) -> set[str]:
    return {f"{dataset}@{version}" for dataset in versions.datasets() for version in versions.tags.of(dataset).values()}


def _object_name(file: StoredFile) -> str:
    match = _OBJECT.fullmatch(file.name)
    return match[1] if match else ""


def _records(store: Store) -> dict[str, list[tuple[str, int]]]:
    """Name of an object -> (task key, mtime) of the records that name it."""
    found: dict[str, list[tuple[str, int]]] = {}
    written = {PurePosixPath(file.name).stem: file.mtime_ns for file in store.list_files("tasks")}
    for key, record in zip(written, storage.each(store.tasks.record, written, at=store.root), strict=True):
        for name in () if record is None else record.objects:
            found.setdefault(name, []).append((key, written[key]))
    return found


def collect(
    store: Store, garbage: Garbage, *, on_progress: Callable[[int, int], None] = lambda _done, _all: None
) -> Collected:
    """Remove what ``find_garbage`` found, except what has come into use since.

    Raises:
        DataError: the removal took too long, or a list that has appeared cannot be read; run it again.
    """
    removals, versions = Removals(store), store.versions
    forgotten = _forget(versions, garbage, store, removals)
    tasks, objects, size, done = set[str](), 0, 0, 0
    queue, lonely = iter(garbage.objects), dict(garbage.tasks)
    read, needed = set(garbage.read), set[str]()

    def remove(name: str) -> bool:
        return store.objects.remove(name, unless_newer_ns=garbage.before_ns)

    while batch := {_object_name(file): file for file in islice(queue, BATCH)}:
        with removals.noted(objects=batch) as check_time:
            needed |= _listed_since(versions, read)
            doomed = [name for name in batch if name not in needed]
            keys = [key for name in batch for key in lonely.pop(name, ()) if name not in needed]
            storage.each(_before_time_is_up(store.tasks.remove, check_time), keys, at=store.root)
            gone = storage.each(_before_time_is_up(remove, check_time), doomed, at=store.root)
        tasks.update(keys)
        objects += sum(gone)
        size += sum(batch[name].size for name, went in zip(doomed, gone, strict=True) if went)
        done += len(batch)
        on_progress(done, len(garbage.objects))
    for name, dangling in lonely.items():  # records whose object was not there to begin with
        if not store.objects.has(name):
            for key in dangling:
                store.tasks.remove(key)
            tasks.update(dangling)
    storage.each(store.remove_file, garbage.answers, at=store.root)
    _drop_notes(versions, garbage, removals)
    sweep_claims(store)
    sweep_signatures(store, older_than_ns=garbage.before_ns)
    store.sweep()
    return Collected(versions=forgotten, tasks=len(tasks), objects=objects, bytes=size, answers=len(garbage.answers))


def _before_time_is_up(function: Callable[[str], T], check_time: Callable[[], None]) -> Callable[[str], T]:
    def checked(name: str) -> T:
        check_time()
        return function(name)

    return checked


def _forget(versions: Versions, garbage: Garbage, store: Store, removals: Removals) -> tuple[str, ...]:
    if not garbage.versions:
        return ()
    forgotten = []
    with removals.noted(versions=garbage.versions) as check_time:
        in_use = claims(store) | _tagged(versions)  # in this order: a claim goes when the tag is there
        for name in garbage.versions:
            if name not in in_use:
                check_time()
                versions.remove(*name.split("@"))
                forgotten.append(name)
    return tuple(forgotten)


def _listed_since(versions: Versions, read: set[str]) -> set[str]:
    """Outputs of the lists that are not ``read`` yet; they are then."""
    found: set[str] = set()
    for dataset, version, _ in versions.lists():
        if (name := f"{dataset}@{version}") not in read:
            found |= _listed(versions, dataset, version)[0]
            read.add(name)
    return found


def _listed(versions: Versions, dataset: str, version: str) -> tuple[set[str], set[str]]:
    """The objects that a version needs, by name, and the digests of the shards that they were made from."""
    objects, inputs = set[str](), set[str]()
    try:
        for row in versions.rows(dataset, version):
            objects.update(row.objects)
            inputs.add(row.input)
    except DataError:
        if any((dataset, version) == there[:2] for there in versions.lists()):
            raise
        return set(), set()  # another gc has just removed it
    return objects, inputs


def _drop_notes(versions: Versions, garbage: Garbage, removals: Removals) -> None:
    """Forget the notes that no run can need any more; those of objects that are missing from a version stay."""
    listed: list[set[str]] = []

    def needed(objects: frozenset[str]) -> bool:
        if not listed:
            listed.append(_listed_since(versions, set()))
        return not objects.isdisjoint(listed[0])

    removals.forget(older_than_ns=garbage.before_ns, needed=needed)


def age_s(text: str) -> float:
    """``30d``, ``12h``, ``45m`` or ``90s`` in seconds.

    Raises:
        ValueError: it is none of those.
    """
    match = re.fullmatch(r"(\d{1,6})([smhd])", text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a time such as 30d, 12h, 45m or 90s")
    return int(match[1]) * {"s": 1.0, "m": 60.0, "h": 3600.0, "d": DAY_S}[match[2]]
