"""What a run of ``zipbatch purify`` has to do: what is done already is looked up, and nothing is written."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zipbatch import storage
from zipbatch.datasets import ShardDataset, ShardRef
from zipbatch.datasets.splits import check_splits
from zipbatch.datasets.staged import CLEAN_SPLIT, POISONED_SPLIT
from zipbatch.diffusion.tiling import DoesNotTileError
from zipbatch.errors import UsageError
from zipbatch.purifiers import RepaintSettings
from zipbatch.spelling import setting
from zipbatch.stages.purify.acceptance import acceptable, acceptable_row
from zipbatch.stages.purify.job import PurifyJob
from zipbatch.stages.purify.spec import PurifierSpec
from zipbatch.stages.purify.trial import first_shards, trial_of
from zipbatch.stages.purify.worker import PurifyTask
from zipbatch.store import (
    RememberedInputs,
    Store,
    TaskRecord,
    Version,
    VersionRow,
    check_name,
    check_tag,
    lost_objects,
    task_key,
)
from zipbatch.store.tags import LATEST


@dataclass(frozen=True, kw_only=True)
class PurifyPlan:
    """``rows`` are done already, by shard name; ``tasks`` are still to be looked at by a worker.

    ``known`` are the rows of the parent version by their input, none when another purifier made it. ``doubted`` of the
    tasks are done by their record, but something was done to their object since: it is only to be read. ``trial`` is
    split -> all its shards, of which ``shards`` are some; None where they are all.
    """

    job: PurifyJob
    shards: tuple[ShardRef, ...]
    identity: dict[str, Any]
    rows: dict[str, VersionRow]
    tasks: tuple[PurifyTask, ...]
    parent: str | None
    inputs: RememberedInputs
    started_ns: int
    known: Mapping[str, VersionRow]
    attempt: int = 1
    doubted: int = 0
    trial: dict[str, int] | None = None

    @property
    def to_compute(self) -> int:
        """How many shards are left whose object is not there."""
        return len(self.tasks) - self.doubted

    @property
    def images(self) -> int | None:
        """How many images all shards hold, as manifests and what is done say; None where they do not say it all."""
        return self._images(self.shards)

    @property
    def images_left(self) -> int | None:
        """The same of the shards that are to be computed."""
        return self._images([shard for shard in self.shards if shard.name not in self.rows])

    def input_bytes(self) -> int:
        """Size of all shards as they lie there; looks at each."""
        root = self.shards[0].path
        return sum(storage.each(lambda shard: storage.stamp(shard.path).size, self.shards, at=root))

    def _images(self, shards: Sequence[ShardRef]) -> int | None:
        counts = [_images(shard, self.rows.get(shard.name)) for shard in shards]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None


def plan_purify(job: PurifyJob) -> PurifyPlan:
    """Resolve what there is to do, without writing anything. The parent version is asked first, then the task keys.

    Raises:
        UsageError: no such split, or nothing to purify.
    """
    started_ns = time.time_ns()
    check_name(job.dataset.name, "dataset (use ‹name›)")
    if job.tag is not None:
        check_request_tag(job.tag, latest=job.latest)
    _check_size(job)
    shards, trial = _taken(job)
    identity = job.spec.identity
    inputs = RememberedInputs(job.store, job.dataset.name, trust_mtime=job.trust_mtime)
    digests = _digests(shards, inputs)
    inputs.release()
    parent = job.store.versions.latest(job.dataset.name)
    known = {} if parent is None else _known(job, parent, identity)
    rows = _listed(job.store, shards, digests, known, since_ns=0 if parent is None else parent.written_ns)
    left = [(shard, digest) for shard, digest in zip(shards, digests, strict=True) if shard.name not in rows]

    def recorded(entry: tuple[ShardRef, str | None]) -> tuple[VersionRow | None, bool]:
        return _recorded(job, *entry, identity)

    tasks: list[PurifyTask] = []
    doubted = 0
    for (shard, _), (row, sure) in zip(left, storage.each(recorded, left, at=job.store.root), strict=True):
        if row is not None and sure:
            rows[shard.name] = row
        else:
            doubted += row is not None
            tasks.append(PurifyTask(shard.name, shard.path, shard.sha256))
    return PurifyPlan(
        job=job,
        shards=shards,
        identity=identity,
        rows=rows,
        tasks=tuple(tasks),
        parent=None if parent is None else parent.header.version,
        inputs=inputs,
        started_ns=started_ns,
        known=known,
        doubted=doubted,
        trial=trial,
    )


def _known(job: PurifyJob, parent: Version, identity: Mapping[str, Any]) -> dict[str, VersionRow]:
    """What the parent version has, by the digest of what it was made from; nothing if another purifier made it."""
    if parent.header.purifier != identity:
        return {}
    accepted = (row for row in parent.rows if acceptable_row(row, quarantine=job.quarantine, keep=job.keep_others))
    return {row.input: row for row in accepted}


def _images(shard: ShardRef, row: VersionRow | None) -> int | None:
    return shard.samples if row is None else row.samples + row.quarantined


def check_request_tag(tag: str, *, latest: bool | None) -> None:
    """Raises ``UsageError`` for a tag that cannot be, or that is ``latest`` where that is not to be moved."""
    check_tag(tag, "‹tag›")
    if tag == LATEST and latest is False:
        raise UsageError(f"{setting('tag', LATEST)} and ‹latest=False› contradict each other; give one")


def _check_size(job: PurifyJob) -> None:
    """What a manifest says of the image size is held against the purifier before any work is handed out.

    Images that fit the prior stay as they are, and only others are resized to its size. Where nobody says how large
    they are, they may be either.
    """
    spec, manifest = job.spec, job.dataset.manifest
    size = None if manifest is None else manifest.image_size
    try:
        if size is not None:
            _check_images(spec, size)
        elif spec.asked.resize is not None and spec.prior is not None and not _for_tiles(spec, spec.prior.image_size):
            spec.images_per_row(spec.prior.image_size, spec.prior.image_size)
    except ValueError as error:
        raise UsageError(f"{job.dataset.name}: {error}") from error


def _for_tiles(spec: PurifierSpec, prior_size: int) -> bool:
    """Whether thresholds are of images smaller than the prior, which are not resized."""
    sizes = [step.settings.image_size for step in spec.steps if isinstance(step.settings, RepaintSettings)]
    return any(size not in {None, prior_size} for size in sizes)


def _check_images(spec: PurifierSpec, size: int) -> None:
    """Raises ``ValueError`` for images of a size that cannot be purified, be they resized where they do not fit."""
    try:
        spec.images_per_row(size, size)
    except DoesNotTileError:
        if spec.asked.resize is None or spec.prior is None:
            raise
        spec.images_per_row(spec.prior.image_size, spec.prior.image_size)


def _chosen(dataset: ShardDataset, splits: Sequence[str]) -> tuple[ShardRef, ...]:
    check_splits(dataset.name, dataset.splits, splits)
    wanted = splits
    if not splits:
        wanted = (
            dataset.splits
            if dataset.manifest is None
            else [s for s in (CLEAN_SPLIT, POISONED_SPLIT) if s in dataset.splits]
        )
    shards = tuple(shard for shard in dataset.shards if shard.split in wanted)
    if not shards:
        raise UsageError(
            f"{dataset.name}: nothing to purify; name a split of {', '.join(dataset.splits)} with ‹splits›"
        )
    return shards


def _taken(job: PurifyJob) -> tuple[tuple[ShardRef, ...], dict[str, int] | None]:
    """The shards of a run, and the mark of a trial where they are some alone."""
    every = _chosen(job.dataset, job.settings.splits)
    shards = every if job.limit is None else first_shards(every, job.limit)
    return shards, trial_of(shards, every)


def _digests(shards: Sequence[ShardRef], inputs: RememberedInputs) -> list[str | None]:
    """Digest of each input as a manifest says it or a run remembered it, None where nobody knows."""
    unknown = [shard for shard in shards if shard.sha256 is None]
    if not unknown:
        return [shard.sha256 for shard in shards]
    found = iter(storage.each(lambda shard: inputs.digest(shard.path), unknown, at=unknown[0].path))
    return [shard.sha256 if shard.sha256 is not None else next(found) for shard in shards]


def _listed(
    store: Store,
    shards: Sequence[ShardRef],
    digests: Sequence[str | None],
    known: Mapping[str, VersionRow],
    *,
    since_ns: int,
) -> dict[str, VersionRow]:
    """The rows, by shard, that the parent version's list holds for these inputs, and whose objects are as they were."""
    found = [known.get(digest or "") for digest in digests]
    lost = lost_objects(store, [name for row in found if row is not None for name in row.objects], since_ns=since_ns)
    rows: dict[str, VersionRow] = {}
    for shard, row in zip(shards, found, strict=True):
        if row is not None and lost.isdisjoint(row.objects):
            same = (row.split, row.shard) == (shard.split, shard.name)
            rows[shard.name] = row if same else row._replace(split=shard.split, shard=shard.name)
    return rows


def _recorded(
    job: PurifyJob, shard: ShardRef, sha256: str | None, identity: dict[str, Any]
) -> tuple[VersionRow | None, bool]:
    """What a record says of a shard, and whether its objects are surely as they were: else a worker has to look."""
    if sha256 is None:
        return None, False
    record, sure = job.store.tasks.peek(task_key(sha256, identity))
    if record is None or record.input_sha256 != sha256:
        return None, False
    if not acceptable(record, quarantine=job.quarantine, keep=job.keep_others):
        return None, False
    return version_row(shard, record), sure


def version_row(shard: ShardRef, record: TaskRecord) -> VersionRow:
    """The line of a version's list for a shard whose purification the record tells of."""
    return VersionRow(
        split=shard.split,
        shard=shard.name,
        output=record.output_sha256,
        input=record.input_sha256,
        samples=record.samples_out,
        quarantined=len(record.quarantined),
        quarantine=record.quarantine_sha256,
        other_images=record.other_images,
    )
