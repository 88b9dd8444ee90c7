"""``zipbatch purify``: plan, let workers purify what is missing, publish a version when it is whole."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from zipbatch.cluster import Workers, run_tasks
from zipbatch.errors import UsageError, WorkFailed
from zipbatch.shards import ShardDataset, ShardRef
from zipbatch.stages.publish import publish_version
from zipbatch.stages.purifier import PurifierSpec
from zipbatch.stages.purify_shard import PurifyResult, PurifySetup, PurifyTask
from zipbatch.store import RememberedInputs, Store, TaskRecord, VersionRow, Versions, check_name, task_key
from zipbatch.store.versions import LATEST

log = logging.getLogger(__name__)
DEFAULT_SPLITS = ("test", "test_poisoned")


@dataclass(frozen=True)
class PurifyRequest:
    """What to purify, how, and where to. ``quarantine``: set samples that cannot be read aside and go on."""

    dataset: ShardDataset
    spec: PurifierSpec
    store: Store
    workers: Workers
    splits: tuple[str, ...] = ()
    tag: str | None = None
    batch_size: int = 32
    quarantine: bool = False


@dataclass(frozen=True)
class PurifyPlan:
    """``rows`` are done already, by shard name; ``tasks`` are still to be looked at by a worker."""

    request: PurifyRequest
    shards: tuple[ShardRef, ...]
    identity: dict[str, Any]
    rows: dict[str, VersionRow]
    tasks: tuple[PurifyTask, ...]
    parent: str | None
    inputs: RememberedInputs
    started_ns: int


@dataclass(frozen=True)
class PurifyProgress:
    """Running totals for a progress bar."""

    shards_done: int
    shards: int
    samples: int
    samples_per_s: float


@dataclass(frozen=True)
class PurifySummary:
    """What a run did. ``samples_per_s`` counts computed samples against wall time, without the ``quarantined``."""

    reference: str
    version: str
    tags: tuple[str, ...]
    new_version: bool
    shards: int
    samples: int
    computed: int
    reused: int
    seconds: float
    samples_per_s: float
    computed_samples: int = 0
    quarantined: int = 0
    counts: dict[str, dict[str, int]] = field(default_factory=dict)


def plan_purify(request: PurifyRequest) -> PurifyPlan:
    """Resolve what there is to do, without writing anything. The parent version is asked first, then the task keys.

    Raises:
        UsageError: no such split, or nothing to purify.
    """
    started_ns = time.time_ns()
    check_name(request.dataset.name, "dataset (use --name)")
    if request.tag is not None:
        check_name(request.tag, "--tag")
    _check_size(request)
    shards = _chosen(request.dataset, request.splits)
    identity = request.spec.identity
    parent = Versions(request.store).latest(request.dataset.name)
    known = {}
    if parent is not None and parent.header.purifier == identity:
        known = {row.input: row for row in parent.rows if request.quarantine or not row.quarantined}
    inputs = RememberedInputs(request.store, request.dataset.name)
    rows: dict[str, VersionRow] = {}
    tasks: list[PurifyTask] = []
    for shard in shards:
        row = _done(request, shard, shard.sha256 or inputs.digest(shard.path), identity, known)
        if row is None:
            tasks.append(PurifyTask(shard.name, shard.path, shard.sha256))
        else:
            rows[shard.name] = row
    parent_id = None if parent is None else parent.header.version
    return PurifyPlan(request, shards, identity, rows, tuple(tasks), parent_id, inputs, started_ns)


def _check_size(request: PurifyRequest) -> None:
    """What a manifest says of the image size is held against the purifier before any work is handed out."""
    spec, manifest = request.spec, request.dataset.manifest
    size = None if manifest is None else manifest.image_size
    if spec.resize is not None and spec.prior is not None:
        size = spec.prior.image_size
    try:
        if size is not None:
            spec.row_of(size, size)
    except ValueError as error:
        raise UsageError(f"{request.dataset.name}: {error}") from error


def _chosen(dataset: ShardDataset, splits: Sequence[str]) -> tuple[ShardRef, ...]:
    missing = [split for split in splits if split not in dataset.splits]
    if missing:
        raise UsageError(f"{dataset.name}: no split {missing[0]!r}; it has {', '.join(dataset.splits)}")
    wanted = splits
    if not splits:
        wanted = dataset.splits if dataset.manifest is None else [s for s in DEFAULT_SPLITS if s in dataset.splits]
    shards = tuple(shard for shard in dataset.shards if shard.split in wanted)
    if not shards:
        raise UsageError(f"{dataset.name}: nothing to purify; name a split of {', '.join(dataset.splits)} with --split")
    return shards


def _done(
    request: PurifyRequest, shard: ShardRef, sha256: str | None, identity: dict[str, Any], known: dict[str, VersionRow]
) -> VersionRow | None:
    if sha256 is None:
        return None
    old = known.get(sha256)
    if old is not None and request.store.has_all(old.output, old.quarantine):
        return old.model_copy(update={"split": shard.split, "shard": shard.name})
    record = request.store.task(task_key(sha256, identity))
    if record is None or (record.quarantined and not request.quarantine):
        return None
    return _row(shard, record)


def purify(plan: PurifyPlan, *, on_progress: Callable[[PurifyProgress], None] = lambda _: None) -> PurifySummary:
    """Carry out a plan. Shards that fail do not stop the others; then nothing is published but the finished shards.

    Raises:
        WorkFailed: some shards failed; names each with its reason.
        UsageError: the workers cannot be had, or the store cannot be written.
    """
    request = plan.request
    started = time.monotonic()
    made = request.store.prepare()
    rows, failed = dict(plan.rows), dict[str, str]()
    shards = {shard.name: shard for shard in plan.shards}
    reused, samples = len(plan.rows), 0
    setup = PurifySetup(request.spec, request.store.root, request.batch_size, request.quarantine)
    try:
        for outcome in run_tasks(setup, plan.tasks, request.workers) if plan.tasks else ():
            shard = shards[outcome.task.name]
            if outcome.error is not None:
                failed[shard.name] = outcome.error
            else:
                result: PurifyResult = outcome.result
                log.info("%s: %s", shard.name, "reused" if result.reused else f"{result.record.seconds:.1f} s")
                _warn_of_quarantine(shard, result)
                if request.workers.gpus and result.record.device == "cpu" and request.workers.device == "auto":
                    log.warning("%s: a GPU worker found no CUDA and computed on the CPU", shard.name)
                rows[shard.name] = _row(shard, result.record)
                reused += result.reused
                samples += 0 if result.reused else result.record.samples_out
                if shard.sha256 is None:
                    digest = result.record.input_sha256
                    plan.inputs.remember(shard.path, digest, size=result.size, mtime_ns=result.mtime_ns)
            rate = samples / max(1e-9, time.monotonic() - started)
            on_progress(PurifyProgress(len(rows) + len(failed), len(plan.shards), samples, rate))
    finally:
        _remember(plan.inputs)
        if len(rows) == len(plan.rows):
            request.store.discard_empty(made)
    if failed:
        raise WorkFailed(_failure(plan, failed))
    return _publish(plan, rows, reused=reused, samples=samples, seconds=time.monotonic() - started)


def _remember(inputs: RememberedInputs) -> None:
    """Keep the cache of digests; it must not hide why a run ends."""
    try:
        inputs.save()
    except OSError as error:
        log.warning("digests of input shards could not be remembered: %s", error)


def _warn_of_quarantine(shard: ShardRef, result: PurifyResult) -> None:
    """What was set aside just now; a later run that reuses it says no more than how many there are."""
    record = result.record
    if record.quarantined and not result.reused:
        key = record.quarantined[0]
        log.warning(
            "%s: %d of %d samples quarantined; the first is %r: %s",
            shard.name,
            len(record.quarantined),
            record.samples_in,
            key,
            record.reasons.get(key, "unknown"),
        )


def _row(shard: ShardRef, record: TaskRecord) -> VersionRow:
    return VersionRow(
        split=shard.split,
        shard=shard.name,
        output=record.output_sha256,
        input=record.input_sha256,
        samples=record.samples_out,
        quarantined=len(record.quarantined),
        quarantine=record.quarantine_sha256,
    )


def _failure(plan: PurifyPlan, failed: dict[str, str]) -> str:
    lines = [f"  {reason if name in reason else f'{name}: {reason}'}" for name, reason in sorted(failed.items())]
    head = f"{len(failed)} of {len(plan.shards)} shards failed; no version was published, finished shards are kept"
    return "\n".join([head, *lines[:20], *([f"  … and {len(lines) - 20} more"] if len(lines) > 20 else [])])


def _check_not_empty(plan: PurifyPlan, rows: Sequence[VersionRow]) -> None:
    """A version of nothing but quarantined samples tells of a setting that does not fit, not of broken samples."""
    quarantined = sum(row.quarantined for row in rows)
    if quarantined and not any(row.samples for row in rows):
        short = next(row for row in rows if row.quarantined)
        record = plan.request.store.task(task_key(short.input, plan.identity))
        reasons = [] if record is None else [f": key {key!r}: {reason}" for key, reason in record.reasons.items()]
        raise WorkFailed(
            f"not one of {quarantined} samples could be read, so no version was published; do the settings fit the "
            f"images?\n  {short.shard}{''.join(reasons[:1])}"
        )


def _publish(
    plan: PurifyPlan, rows: dict[str, VersionRow], *, reused: int, samples: int, seconds: float
) -> PurifySummary:
    request = plan.request
    ordered = [rows[shard.name] for shard in plan.shards]
    _check_not_empty(plan, ordered)
    dataset = request.dataset.name
    published = publish_version(
        request.store,
        dataset,
        plan.identity,
        rows=ordered,
        tag=request.tag,
        parent=plan.parent,
        started_ns=plan.started_ns,
    )
    return PurifySummary(
        reference=f"{dataset}@{request.tag or LATEST}",
        version=published.version,
        tags=published.tags,
        new_version=published.new,
        shards=len(ordered),
        samples=sum(row.samples for row in ordered),
        computed=len(ordered) - reused,
        reused=reused,
        seconds=round(seconds, 2),
        samples_per_s=round(samples / max(1e-9, seconds), 1),
        computed_samples=samples,
        quarantined=sum(row.quarantined for row in ordered),
        counts=published.counts,
    )
