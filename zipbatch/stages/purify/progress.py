"""How far a purify run is: what is done of its shards, what failed, and how quick it goes."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from zipbatch.cluster import Outcome
from zipbatch.datasets import ShardRef
from zipbatch.errors import TimeIsUp, WorkFailed
from zipbatch.report.counts import Counts
from zipbatch.report.progress import Part, Progress
from zipbatch.stages.purify.plan import PurifyPlan, version_row
from zipbatch.stages.purify.worker import PurifyResult
from zipbatch.store import VersionRow

log = logging.getLogger(__name__)


class ShardTally:
    """How far a plan has got: a row for each shard that is done, a reason for each that failed."""

    def __init__(self, plan: PurifyPlan) -> None:
        self.plan, self._started = plan, time.monotonic()
        self._shards = {shard.name: shard for shard in plan.shards}
        self._rows, self._failed = dict(plan.rows), dict[str, str]()
        self._samples_whole = sum(row.samples for row in plan.rows.values())
        self._quarantined = sum(row.quarantined for row in plan.rows.values())
        self.reused, self.samples, self.in_float32 = len(plan.rows), 0, 0
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
        row = self._rows[shard.name] = version_row(shard, result.record)
        self.reused += result.reused
        self.samples += 0 if result.reused else row.samples
        self.in_float32 += 0 if result.reused else result.record.in_float32
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

    def progress(self) -> Progress:
        """The totals up to now.

        Shards that failed count as done. Images are those of all shards that are done, and in shards that are not those
        that are done by the share of their forward passes, which a shard that is begun again takes back; they have no
        total where nobody has counted them yet. The rate is of those that this run computed.
        """
        in_hand = sum(self._far.values()) // self.plan.job.spec.passes
        done, failed = len(self._rows) + len(self._failed), len(self._failed)
        return Progress(
            parts=(
                Part("shards", done, len(self.plan.shards)),
                Part("images", self._samples_whole + in_hand, self._samples_all),
            ),
            fraction=self._fraction(in_hand),
            per_s=(self.samples + in_hand) / max(1e-9, self.seconds) or None,
            notes=(f"reused {self.reused}", f"failed {failed}"),
            counts=Counts(
                unit="shards",
                total=len(self.plan.shards),
                computed=done - self.reused - failed,
                reused=self.reused,
                failed=failed,
                samples=self._samples_whole,
                quarantined=self._quarantined,
            ),
            failed=self._failed,
        )

    def _fraction(self, in_hand: int) -> float | None:
        """By images; where nobody has counted them, shards in hand count as far as shards have been large by now."""
        if self._samples_all:
            return (self._samples_whole + in_hand) / self._samples_all
        shards, whole = len(self.plan.shards), len(self._rows)
        done = whole + len(self._failed)
        mean = self._samples_whole / whole if whole else 0
        hand = min(in_hand / mean, shards - done) if mean else 0.0
        return (done + hand) / shards if done else None

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


def _failure(failed: Mapping[str, str], *, shards: int, left: int) -> str:
    lines = [f"  {reason if name in reason else f'{name}: {reason}'}" for name, reason in sorted(failed.items())]
    head = f"{len(failed)} of {shards} shards failed; no version was published, finished shards are kept"
    head += f"; {left} more were not begun" if left else ""
    return "\n".join([head, *lines[:20], *([f"  … and {len(lines) - 20} more"] if len(lines) > 20 else [])])
