"""``zipbatch purify``: plan, let workers purify what is missing, publish a version when it is whole."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from zipbatch import places
from zipbatch.cluster import Outcome, Workers, run_tasks
from zipbatch.errors import TimeIsUp, UsageError, WorkFailed
from zipbatch.shards import ShardDataset, ShardRef
from zipbatch.shards.dataset import CLEAN_SPLIT, POISONED_SPLIT
from zipbatch.stages.publish import publish_version
from zipbatch.stages.purifier import PurifierSpec
from zipbatch.stages.purify_shard import PurifyResult, PurifySetup, PurifyTask
from zipbatch.store import (
    LostObjectsError,
    Origin,
    RememberedInputs,
    Store,
    TaskRecord,
    VersionRow,
    Versions,
    check_name,
    lost_objects,
    task_key,
)
from zipbatch.store.versions import LATEST

log = logging.getLogger(__name__)
ATTEMPTS = 3
"""How often a run begins again because a gc removed old objects that it was about to list."""
FULL_DISK_TRIES = 3


@dataclass(frozen=True)
class PurifyRequest:
    """What to purify, how, and where to."""

    dataset: ShardDataset
    spec: PurifierSpec
    store: Store
    workers: Workers
    splits: tuple[str, ...] = ()
    tag: str | None = None
    batch_size: int = 32


@dataclass(frozen=True)
class PurifyPlan:
    """``rows`` are done already, by shard name; ``tasks`` are still to be looked at by a worker.

    ``known`` are the rows of the parent version by their input, none when another purifier made it.
    """

    request: PurifyRequest
    shards: tuple[ShardRef, ...]
    identity: dict[str, Any]
    rows: dict[str, VersionRow]
    tasks: tuple[PurifyTask, ...]
    parent: str | None
    inputs: RememberedInputs
    started_ns: int
    known: Mapping[str, VersionRow]
    attempt: int = 1


@dataclass(frozen=True)
class PurifyProgress:
    """Running totals.

    Attributes:
        shards_done: done or failed.
        shards: all there are.
        samples: images that this run computed.
        samples_per_s: those against wall time.
        reused: shards that were done before.
        samples_whole: images in all shards that are done.
        failed: reason by shard; grows with the run.
    """

    shards_done: int
    shards: int
    samples: int
    samples_per_s: float
    reused: int = 0
    samples_whole: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PurifySummary:
    """What a run did. ``samples_per_s`` counts computed samples against wall time."""

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
    inputs = RememberedInputs(request.store, request.dataset.name)
    digests = _digests(shards, inputs)
    inputs.release()
    parent = Versions(request.store).latest(request.dataset.name)
    known: dict[str, VersionRow] = {}
    if parent is not None and parent.header.purifier == identity:
        known = {row.input: row for row in parent.rows}
    rows = _listed(request.store, shards, digests, known)
    left = [(shard, digest) for shard, digest in zip(shards, digests, strict=True) if shard.name not in rows]

    def recorded(entry: tuple[ShardRef, str | None]) -> VersionRow | None:
        return _recorded(request.store, *entry, identity)

    tasks: list[PurifyTask] = []
    for (shard, _), row in zip(left, places.each(recorded, left, at=request.store.root), strict=True):
        if row is None:
            tasks.append(PurifyTask(shard.name, shard.path, shard.sha256))
        else:
            rows[shard.name] = row
    parent_id = None if parent is None else parent.header.version
    return PurifyPlan(request, shards, identity, rows, tuple(tasks), parent_id, inputs, started_ns, known)


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
        wanted = (
            dataset.splits
            if dataset.manifest is None
            else [s for s in (CLEAN_SPLIT, POISONED_SPLIT) if s in dataset.splits]
        )
    shards = tuple(shard for shard in dataset.shards if shard.split in wanted)
    if not shards:
        raise UsageError(f"{dataset.name}: nothing to purify; name a split of {', '.join(dataset.splits)} with --split")
    return shards


def _digests(shards: Sequence[ShardRef], inputs: RememberedInputs) -> list[str | None]:
    """Digest of each input as a manifest says it or a run remembered it, None where nobody knows."""
    unknown = [shard for shard in shards if shard.sha256 is None]
    if not unknown:
        return [shard.sha256 for shard in shards]
    found = iter(places.each(lambda shard: inputs.digest(shard.path), unknown, at=unknown[0].path))
    return [shard.sha256 if shard.sha256 is not None else next(found) for shard in shards]


def _listed(
    store: Store, shards: Sequence[ShardRef], digests: Sequence[str | None], known: Mapping[str, VersionRow]
) -> dict[str, VersionRow]:
    """The rows, by shard, that the parent version's list holds for these inputs, and whose objects are there."""
    found = [known.get(digest or "") for digest in digests]
    lost = lost_objects(store, [name for row in found if row is not None for name in row.objects])
    rows: dict[str, VersionRow] = {}
    for shard, row in zip(shards, found, strict=True):
        if row is not None and lost.isdisjoint(row.objects):
            same = (row.split, row.shard) == (shard.split, shard.name)
            rows[shard.name] = row if same else row._replace(split=shard.split, shard=shard.name)
    return rows


def _recorded(store: Store, shard: ShardRef, sha256: str | None, identity: dict[str, Any]) -> VersionRow | None:
    if sha256 is None:
        return None
    record = store.task(task_key(sha256, identity))
    return None if record is None or record.quarantined else _row(shard, record)


def purify(
    plan: PurifyPlan,
    *,
    on_progress: Callable[[PurifyProgress], None] = lambda _: None,
    stop_at: float | None = None,
) -> PurifySummary:
    """Carry out a plan. Shards that fail do not stop the others; then nothing is published but the finished shards.

    Args:
        plan: what to do.
        on_progress: called once before the work begins and after each shard.
        stop_at: when, on the monotonic clock, no shard is begun any more; those in hand are finished.

    Raises:
        WorkFailed: some shards failed; names each with its reason.
        TimeIsUp: ``stop_at`` came before the end; the shards that are done are kept.
        UsageError: the workers cannot be had, or the store cannot be written.
    """
    request = plan.request
    started = time.monotonic()
    made = request.store.prepare()
    rows, failed = dict(plan.rows), dict[str, str]()
    shards = {shard.name: shard for shard in plan.shards}
    reused, samples, whole = len(plan.rows), 0, sum(row.samples for row in plan.rows.values())
    on_progress(PurifyProgress(len(rows), len(plan.shards), 0, 0.0, reused, whole, failed))
    setup = PurifySetup(request.spec, request.store.root, request.batch_size)
    try:
        handing = _HandingOut(plan.tasks, stop_at)
        for outcome in run_tasks(setup, handing, request.workers, files=request.spec.files) if plan.tasks else ():
            shard = shards[outcome.task.name]
            handing.note(outcome)
            if outcome.error is not None:
                failed[shard.name] = outcome.error
                log.info("%s failed: %s", shard.name, outcome.error, extra={"shard": shard.name})
            else:
                result: PurifyResult = outcome.result
                _log_done(shard, result)
                if request.workers.gpus and result.record.device == "cpu" and request.workers.device == "auto":
                    log.warning("%s: a GPU worker found no CUDA and computed on the CPU", shard.name)
                rows[shard.name] = _row(shard, result.record)
                reused += result.reused
                whole += result.record.samples_out
                samples += 0 if result.reused else result.record.samples_out
                if shard.sha256 is None:
                    plan.inputs.remember(shard.path, result.record.input_sha256, result.stamp)
            rate = samples / max(1e-9, time.monotonic() - started)
            done = len(rows) + len(failed)
            on_progress(PurifyProgress(done, len(plan.shards), samples, rate, reused, whole, failed))
    finally:
        _remember(plan.inputs)
        if len(rows) == len(plan.rows):
            request.store.discard_empty(made)
    left = len(plan.shards) - len(rows) - len(failed)
    if failed:
        raise WorkFailed(_failure(plan, failed, left=left))
    if left:
        raise TimeIsUp(
            f"time is up: {len(rows)} of {len(plan.shards)} shards are done and kept, {left} left; no version was "
            "published; the same command goes on"
        )
    try:
        return _publish(plan, rows, reused=reused, samples=samples, seconds=time.monotonic() - started)
    except LostObjectsError as error:
        if plan.attempt == ATTEMPTS:
            raise
        log.warning("%s; looking again at what is left to do", error)
        return purify(replace(plan_purify(request), attempt=plan.attempt + 1), on_progress=on_progress, stop_at=stop_at)


class _HandingOut:
    """The tasks, until time is up or one after the other has failed because the disk is full."""

    def __init__(self, tasks: Sequence[PurifyTask], stop_at: float | None) -> None:
        self._tasks, self._stop_at = tasks, stop_at
        self._full = 0

    def __iter__(self) -> Iterator[PurifyTask]:
        for task in self._tasks:
            if self._full >= FULL_DISK_TRIES or (self._stop_at is not None and time.monotonic() >= self._stop_at):
                return
            yield task

    def note(self, outcome: Outcome) -> None:
        """Take in how a task ended; one that found room, though another did not, is reason to go on."""
        self._full = self._full + 1 if outcome.full else 0


def _log_done(shard: ShardRef, result: PurifyResult) -> None:
    record = result.record
    what = "reused" if result.reused else f"{record.seconds:.1f} s"
    about = {"shard": shard.name, "seconds": record.seconds, "samples": record.samples_out}
    where = f"{record.worker.get('host')}:{record.worker.get('pid')}"
    log.info("%s: %s", shard.name, what, extra=about | ({} if result.reused else {"worker": where}))


def _remember(inputs: RememberedInputs) -> None:
    """Keep the cache of digests; it must not hide why a run ends."""
    try:
        inputs.save()
    except (OSError, WorkFailed) as error:
        log.warning("digests of input shards could not be remembered: %s", error)


def _row(shard: ShardRef, record: TaskRecord) -> VersionRow:
    return VersionRow(
        split=shard.split,
        shard=shard.name,
        output=record.output_sha256,
        input=record.input_sha256,
        samples=record.samples_out,
    )


def _failure(plan: PurifyPlan, failed: dict[str, str], *, left: int) -> str:
    lines = [f"  {reason if name in reason else f'{name}: {reason}'}" for name, reason in sorted(failed.items())]
    head = f"{len(failed)} of {len(plan.shards)} shards failed; no version was published, finished shards are kept"
    head += f"; {left} more were not begun" if left else ""
    return "\n".join([head, *lines[:20], *([f"  … and {len(lines) - 20} more"] if len(lines) > 20 else [])])


def _publish(
    plan: PurifyPlan, rows: dict[str, VersionRow], *, reused: int, samples: int, seconds: float
) -> PurifySummary:
    request = plan.request
    ordered = [rows[shard.name] for shard in plan.shards]
    dataset = request.dataset.name
    published = publish_version(
        request.store,
        dataset,
        plan.identity,
        rows=ordered,
        tag=request.tag,
        parent=plan.parent,
        started_ns=plan.started_ns,
        origin=_origin(plan, ordered, reused=reused),
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
        counts=published.counts,
    )


def _origin(plan: PurifyPlan, rows: Sequence[VersionRow], *, reused: int) -> Origin:
    """How many shards this run computed, and how many of the others the parent lists, too, with the same result."""
    listed = sum(1 for row in rows if (old := plan.known.get(row.input)) is not None and old.output == row.output)
    from_parent = min(listed, reused)
    return Origin(computed=len(rows) - reused, parent=from_parent, store=reused - from_parent)
