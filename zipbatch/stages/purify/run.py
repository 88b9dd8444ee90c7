"""``zipbatch purify``: let workers purify what is missing, publish a version when it is whole."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from zipbatch.cluster import OnPartial, Outcome, run_tasks
from zipbatch.datasets import ShardRef
from zipbatch.errors import TimeIsUp, WorkFailed
from zipbatch.report.progress import Part, Progress
from zipbatch.stages.purify.plan import PurifyPlan, plan_purify, row_of
from zipbatch.stages.purify.publish import ATTEMPTS, publish_version
from zipbatch.stages.purify.worker import PurifyResult, PurifySetup, PurifyTask
from zipbatch.store import LostObjectsError, Origin, RememberedInputs, VersionRow, task_key

log = logging.getLogger(__name__)
FULL_DISK_TRIES = 3


@dataclass(frozen=True)
class PurifyProgress:
    """Running totals.

    Attributes:
        shards_done: done or failed.
        shards: all there are.
        samples: images that this run computed in whole shards.
        samples_per_s: images that this run computed, those of shards in hand among them, against wall time.
        reused: shards that were done before.
        samples_whole: images in all shards that are done.
        samples_in_hand: images that are done in shards that are not, by the share of their forward passes; a shard that
            is begun again takes them back.
        samples_all: images in all shards, None where nobody has counted them yet.
        quarantined: samples of those shards that could not be read and were set aside.
        failed: reason by shard; grows with the run.
    """

    shards_done: int
    shards: int
    samples: int
    samples_per_s: float
    reused: int = 0
    samples_whole: int = 0
    samples_in_hand: int = 0
    samples_all: int | None = None
    quarantined: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)

    def shown(self, what: str) -> Progress:
        """As a bar shows it."""
        images = self.samples_whole + self.samples_in_hand
        parts = (Part("shards", self.shards_done, self.shards), Part("images", images, self.samples_all))
        notes = (f"reused {self.reused}", f"failed {len(self.failed)}")
        return Progress(what, parts, self._fraction(images), self.samples_per_s or None, notes)

    def _fraction(self, images: int) -> float | None:
        """By images; where nobody has counted them, shards in hand count as far as shards have been large by now."""
        if self.samples_all:
            return images / self.samples_all
        whole = self.shards_done - len(self.failed)
        mean = self.samples_whole / whole if whole else 0
        hand = min(self.samples_in_hand / mean, self.shards - self.shards_done) if mean else 0.0
        return (self.shards_done + hand) / self.shards if self.shards_done else None


@dataclass(frozen=True)
class PurifySummary:
    """What a run did. ``samples_per_s`` counts computed samples against wall time, without the ``quarantined``.

    ``latest_left`` says why the tag ``latest`` was not to be moved; None where it was. ``other_images`` of the samples
    were kept as they are. ``tags_left``: as in ``Published``.
    """

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
    latest_left: str | None = None
    other_images: int = 0
    tags_left: dict[str, str | None] = field(default_factory=dict)


def purify(
    plan: PurifyPlan,
    *,
    on_progress: Callable[[PurifyProgress], None] = lambda _: None,
    stop_at: float | None = None,
) -> PurifySummary:
    """Carry out a plan. Shards that fail do not stop the others; then nothing is published but the finished shards.

    Args:
        plan: what to do.
        on_progress: called once before the work begins, after each shard, and every second or two.
        stop_at: when, on the monotonic clock, no shard is begun any more; those in hand are finished.

    Raises:
        WorkFailed: some shards failed; names each with its reason. Or not one sample could be read.
        TimeIsUp: ``stop_at`` came before the end; the shards that are done are kept.
        UsageError: the workers cannot be had, or the store cannot be written.
    """
    run, store = _Run(plan), plan.job.store
    made = store.prepare()

    def on_partial(far: Mapping[str, int]) -> None:
        run.take_partial(far)
        on_progress(run.progress())

    on_progress(run.progress())
    try:
        for outcome in _outcomes(plan, stop_at, on_partial=on_partial):
            run.take(outcome)
            on_progress(run.progress())
    finally:
        _remember(plan.inputs)
        if not run.has_done_something:
            store.discard_empty(made)
    rows = run.whole()
    _check_not_empty(plan, rows)
    try:
        return _publish(run, rows)
    except LostObjectsError as error:
        if plan.attempt == ATTEMPTS:
            raise
        log.warning("%s; looking again at what is left to do", error)
        again = replace(plan_purify(plan.job), attempt=plan.attempt + 1)
        return purify(again, on_progress=on_progress, stop_at=stop_at)


def _outcomes(plan: PurifyPlan, stop_at: float | None, *, on_partial: OnPartial) -> Iterator[Outcome]:
    """What became of each task of the plan that was handed out."""
    if not plan.tasks:
        return
    job, handing = plan.job, _HandingOut(plan.tasks, stop_at)
    setup = PurifySetup(job.spec, job.store.root, job.settings.batch_size, job.quarantine, job.keep_others)
    files = job.spec.files
    for outcome in run_tasks(setup, handing, job.workers, files=files, on_partial=on_partial):
        handing.note(outcome)
        yield outcome


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


class _Run:
    """How far a plan has got: a row for each shard that is done, a reason for each that failed."""

    def __init__(self, plan: PurifyPlan) -> None:
        self.plan, self._started = plan, time.monotonic()
        self._shards = {shard.name: shard for shard in plan.shards}
        self._rows, self._failed = dict(plan.rows), dict[str, str]()
        self._samples_whole = sum(row.samples for row in plan.rows.values())
        self._quarantined = sum(row.quarantined for row in plan.rows.values())
        self.reused, self.samples = len(plan.rows), 0
        self._samples_all, self._far = plan.images, dict[str, int]()

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._started

    @property
    def has_done_something(self) -> bool:
        """Whether any shard is done that was not when the plan was made."""
        return len(self._rows) > len(self.plan.rows)

    def take(self, outcome: Outcome) -> None:
        """Take in what became of a task."""
        shard = self._shards[outcome.task.name]
        self._far.pop(shard.name, None)
        if outcome.error is not None:
            self._failed[shard.name] = outcome.error
            log.info("%s failed: %s", shard.name, outcome.error, extra={"shard": shard.name})
        else:
            self._log(shard, outcome.result)
            self._add(shard, outcome.result)

    def _add(self, shard: ShardRef, result: PurifyResult) -> None:
        row = self._rows[shard.name] = row_of(shard, result.record)
        self.reused += result.reused
        self.samples += 0 if result.reused else row.samples
        self._samples_whole += row.samples
        self._quarantined += row.quarantined
        if shard.sha256 is None:
            self.plan.inputs.remember(shard.path, row.input, result.stamp)

    def _log(self, shard: ShardRef, result: PurifyResult) -> None:
        _log_done(shard, result)
        _warn_of_quarantine(shard, result)
        workers = self.plan.job.workers
        if workers.gpus and result.record.device == "cpu" and workers.device == "auto":
            log.warning("%s: a GPU worker found no CUDA and computed on the CPU", shard.name)

    def take_partial(self, far: Mapping[str, int]) -> None:
        """Take in how many forward passes of their images are done of the shards in hand."""
        self._far = {name: done for name, done in far.items() if name not in self._rows}

    def progress(self) -> PurifyProgress:
        """The totals up to now."""
        in_hand = sum(self._far.values()) // self.plan.job.spec.passes
        return PurifyProgress(
            shards_done=len(self._rows) + len(self._failed),
            shards=len(self.plan.shards),
            samples=self.samples,
            samples_per_s=(self.samples + in_hand) / max(1e-9, self.seconds),
            reused=self.reused,
            samples_whole=self._samples_whole,
            samples_in_hand=in_hand,
            samples_all=self._samples_all,
            quarantined=self._quarantined,
            failed=self._failed,
        )

    def whole(self) -> list[VersionRow]:
        """The rows of all shards, in order.

        Raises:
            WorkFailed: some failed.
            TimeIsUp: some were not begun.
        """
        shards, done = self.plan.shards, len(self._rows)
        left = len(shards) - done - len(self._failed)
        if self._failed:
            raise WorkFailed(_failure(self._failed, shards=len(shards), left=left))
        if left:
            raise TimeIsUp(
                f"time is up: {done} of {len(shards)} shards are done and kept, {left} left; no version was "
                "published; the same command goes on"
            )
        return [self._rows[shard.name] for shard in shards]


def _log_done(shard: ShardRef, result: PurifyResult) -> None:
    record = result.record
    what = "reused" if result.reused else f"{record.seconds:.1f} s"
    about = {"shard": shard.name, "seconds": record.seconds, "samples": record.samples_out}
    where = f"{record.worker.get('host')}:{record.worker.get('pid')}"
    log.info("%s: %s", shard.name, what, extra=about | ({} if result.reused else {"worker": where}))


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


def _remember(inputs: RememberedInputs) -> None:
    """Keep the cache of digests; it must not hide why a run ends."""
    try:
        inputs.save()
    except (OSError, WorkFailed) as error:
        log.warning("digests of input shards could not be remembered: %s", error)


def _failure(failed: Mapping[str, str], *, shards: int, left: int) -> str:
    lines = [f"  {reason if name in reason else f'{name}: {reason}'}" for name, reason in sorted(failed.items())]
    head = f"{len(failed)} of {shards} shards failed; no version was published, finished shards are kept"
    head += f"; {left} more were not begun" if left else ""
    return "\n".join([head, *lines[:20], *([f"  … and {len(lines) - 20} more"] if len(lines) > 20 else [])])


def _check_not_empty(plan: PurifyPlan, rows: Sequence[VersionRow]) -> None:
    """A version of nothing but quarantined samples tells of a setting that does not fit, not of broken samples."""
    quarantined = sum(row.quarantined for row in rows)
    if quarantined and not any(row.samples for row in rows):
        short = next(row for row in rows if row.quarantined)
        record = plan.job.store.record(task_key(short.input, plan.identity))
        reasons = [] if record is None else [f": key {key!r}: {reason}" for key, reason in record.reasons.items()]
        raise WorkFailed(
            f"not one of {quarantined} samples could be read, so no version was published; do the settings fit the "
            f"images?\n  {short.shard}{''.join(reasons[:1])}"
        )


def _publish(run: _Run, rows: Sequence[VersionRow]) -> PurifySummary:
    plan, job, seconds = run.plan, run.plan.job, run.seconds
    published = publish_version(
        job.store,
        job.dataset.name,
        plan.identity,
        rows=rows,
        tag=job.tag,
        parent=plan.parent,
        started_ns=plan.started_ns,
        origin=_origin(plan, rows, reused=run.reused),
        latest=job.latest,
    )
    if kept := sum(row.other_images for row in rows):
        name = job.dataset.name
        log.warning("%s: %d images beside the samples' own were kept as they are, not purified", name, kept)
    return PurifySummary(
        reference=published.reference,
        version=published.version,
        tags=published.tags,
        new_version=published.new,
        shards=len(rows),
        samples=sum(row.samples for row in rows),
        computed=len(rows) - run.reused,
        reused=run.reused,
        seconds=round(seconds, 2),
        samples_per_s=round(run.samples / max(1e-9, seconds), 1),
        computed_samples=run.samples,
        quarantined=sum(row.quarantined for row in rows),
        counts=published.counts,
        latest_left=published.latest_left,
        tags_left=published.tags_left,
        other_images=kept,
    )


def _origin(plan: PurifyPlan, rows: Sequence[VersionRow], *, reused: int) -> Origin:
    """How many shards this run computed, and how many of the others the parent lists, too, with the same result."""
    listed = sum(1 for row in rows if (old := plan.known.get(row.input)) is not None and old.output == row.output)
    from_parent = min(listed, reused)
    return Origin(computed=len(rows) - reused, parent=from_parent, store=reused - from_parent)
