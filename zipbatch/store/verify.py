"""Check every byte and every reference of a store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from zipbatch.atomic import sha256_file
from zipbatch.errors import DataError, UsageError
from zipbatch.shards import read_shard
from zipbatch.store.store import Store
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


def verify(store: Store) -> Checked:
    """Hash every object, read every shard, follow every reference of tasks, versions and tags.

    Raises:
        UsageError: there is no store.
    """
    store.require()
    faults: list[Fault] = []
    samples: dict[str, int] = {}
    objects = list(store.objects())
    for path in objects:
        try:
            samples[path.stem] = _check_object(path)
        except DataError as error:
            faults.append(Fault(error.where, str(error.reason)))
    tasks = 0
    for key, record in store.tasks():
        tasks += 1
        if record is None:
            faults.append(Fault(f"tasks/{key}", "damaged record"))
        elif record.output_sha256 not in samples:
            faults.append(Fault(f"tasks/{key}", f"its object {record.output_sha256} is missing or damaged"))
        elif record.samples_out != samples[record.output_sha256]:
            faults.append(Fault(f"tasks/{key}", "its sample count is not its object's"))
        elif record.samples_in != record.samples_out + len(record.quarantined):
            faults.append(Fault(f"tasks/{key}", "samples in are not samples out plus quarantined"))
    counted = {"versions": 0, "tags": 0}
    faults += _check_versions(Versions(store), samples, counted)
    return Checked(len(objects), tasks, counted["versions"], counted["tags"], tuple(faults))


def _check_object(path: Path) -> int:
    if path.suffix != ".tar" or path.parent.name != path.stem[:2]:
        raise DataError(path, "does not belong here")
    if sha256_file(path) != path.stem:
        raise DataError(path, "its bytes are not those its name says; remove it and run purify again")
    return sum(1 for _ in read_shard(path))


def _check_versions(versions: Versions, samples: dict[str, int], counted: dict[str, int]) -> Iterator[Fault]:
    for dataset in versions.datasets():
        try:
            headers = versions.versions(dataset)
        except DataError as error:
            yield Fault(error.where, error.reason)
            continue
        known = {header.version for header in headers}
        for header in headers:
            counted["versions"] += 1
            yield from _check_version(versions, f"{dataset}@{header.version}", samples)
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


def _check_version(versions: Versions, reference: str, samples: dict[str, int]) -> Iterator[Fault]:
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
        if row.output not in samples:
            yield Fault(reference, f"{row.shard}: object {row.output} is missing or damaged")
        elif samples[row.output] != row.samples:
            yield Fault(reference, f"{row.shard}: {samples[row.output]} samples, the list says {row.samples}")
    if counts != header.counts:
        yield Fault(reference, "its counts are not those of its list")
