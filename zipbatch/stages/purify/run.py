"""``zipbatch purify``: let workers purify what is missing, publish a version when it is whole."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from zipbatch.cluster import OnPartial, Outcome, run_tasks
from zipbatch.errors import WorkFailed
from zipbatch.report.progress import Progress
from zipbatch.stages.purify.plan import PurifyPlan, plan_purify
from zipbatch.stages.purify.progress import ShardTally
from zipbatch.stages.purify.publish import ATTEMPTS, publish_version
from zipbatch.stages.purify.worker import PurifySetup, PurifyTask
from zipbatch.store import LostObjectsError, Origin, RememberedInputs, VersionRow, task_key

log = logging.getLogger(__name__)
FULL_DISK_TRIES = 3


@dataclass(frozen=True, kw_only=True)
class PurifySummary:
    """What a run did. ``samples_per_s`` counts computed samples against wall time, without the ``quarantined``.

    ``latest_left`` says why the tag ``latest`` was not to be moved; None where it was. ``other_images`` of the samples
    were kept as they are. ``tags_left``: as in ``Published``; ``trial``: as in ``PurifyPlan``. ``in_float32`` of the
    computed samples did not come out finite in fewer bits and were done again.
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
    in_float32: int = 0
    trial: dict[str, int] | None = None


def purify(
    plan: PurifyPlan,
    *,
    on_progress: Callable[[Progress], None] = lambda _: None,
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
    run, store = ShardTally(plan), plan.job.store
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
    setup = PurifySetup(
        spec=job.spec,
        store=job.store.root,
        batch_size=job.settings.batch_size,
        quarantine=job.quarantine,
        keep=job.keep_others,
    )
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


def _remember(inputs: RememberedInputs) -> None:
    """Keep the cache of digests; it must not hide why a run ends."""
    try:
        inputs.save()
    except (OSError, WorkFailed) as error:
        log.warning("digests of input shards could not be remembered: %s", error)


def _check_not_empty(plan: PurifyPlan, rows: Sequence[VersionRow]) -> None:
    """A version of nothing but quarantined samples tells of a setting that does not fit, not of broken samples."""
    quarantined = sum(row.quarantined for row in rows)
    if quarantined and not any(row.samples for row in rows):
        short = next(row for row in rows if row.quarantined)
        record = plan.job.store.tasks.record(task_key(short.input, plan.identity))
        reasons = [] if record is None else [f": key {key!r}: {reason}" for key, reason in record.reasons.items()]
        raise WorkFailed(
            f"not one of {quarantined} samples could be read, so no version was published; do the settings fit the "
            f"images?\n  {short.shard}{''.join(reasons[:1])}"
        )


def _publish(run: ShardTally, rows: Sequence[VersionRow]) -> PurifySummary:
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
        trial=plan.trial,
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
        in_float32=run.in_float32,
        trial=plan.trial,
    )


def _origin(plan: PurifyPlan, rows: Sequence[VersionRow], *, reused: int) -> Origin:
    """How many shards this run computed, and how many of the others the parent lists, too, with the same result."""
    listed = sum(1 for row in rows if (old := plan.known.get(row.input)) is not None and old.output == row.output)
    from_parent = min(listed, reused)
    return Origin(computed=len(rows) - reused, parent=from_parent, store=reused - from_parent)
