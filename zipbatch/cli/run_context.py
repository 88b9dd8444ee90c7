"""The run that a command line starts: its id, its lock, and what it leaves for those who were not there."""

from __future__ import annotations

import io
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from zipbatch.errors import TimeIsUp, WorkFailed
from zipbatch.logs import new_run_id
from zipbatch.spelling import as_read

if TYPE_CHECKING:
    from zipbatch.report.counts import Counts
    from zipbatch.report.run import Ending, RunReport, State, Verdict
    from zipbatch.storage import StoragePath
    from zipbatch.store.lock import RunLock

log = logging.getLogger(__name__)
Command = TypeVar("Command", bound=Callable[..., Any])
LockPolicy = Literal["skip", "wait", "fail"]
_POLL_S = 1.0


@dataclass(kw_only=True)
class RunContext:
    """One run. A command notes here what it has got to, so that its end can be told whatever that is.

    Attributes:
        run: its id.
        started: in seconds since 1970; ``clock`` is the same moment on the monotonic clock.
        command: its name.
        held_back: what a quiet run would have printed on stdout; shown when it fails.
        summary: where a summary goes, if anywhere; likewise ``metrics``.
        dataset: what is worked on, in which ``store``.
        version: what came of it, with its ``tags``.
        latest_left: why the tag ``latest`` was not to be moved.
        tags_left: tags that were to be moved and could not be, with the version that each points to.
        nothing_to_do: everything was there already.
        counts: how far it has got.
        failed: the reason of each piece of work that failed.
        verdict: what an audit came to.
        writing: held while reports are written; ``ended`` once the last ones are.
    """

    run: str = field(default_factory=new_run_id)
    started: float = field(default_factory=time.time)
    clock: float = field(default_factory=time.monotonic)
    command: str = ""
    held_back: io.StringIO | None = None
    summary: Path | None = None
    metrics: Path | None = None
    dataset: str | None = None
    store: str | None = None
    version: str | None = None
    tags: tuple[str, ...] = ()
    latest_left: str | None = None
    tags_left: Mapping[str, str | None] = field(default_factory=dict)
    nothing_to_do: bool = False
    counts: Counts | None = None
    failed: Mapping[str, str] = field(default_factory=dict)
    verdict: Verdict | None = None
    writing: threading.RLock = field(default_factory=threading.RLock)
    ended: bool = False

    def count(self, unit: str, done: int, total: int | None) -> None:
        """Note how far a command has got that reuses nothing and ends at its first failure."""
        from zipbatch.report.counts import Counts

        self.counts = Counts(unit=unit, total=total, computed=done)

    def unreported(self) -> None:
        """Leave no report: nothing was run, and the files may be those of a run that was."""
        self.summary = self.metrics = None

    def refresh(self) -> None:
        """Write the files that were asked for, as far as the run has got; not any more once it has ended.

        Raises:
            OSError: one cannot be written.
        """
        with self.writing:
            if not self.ended:
                self._write("running", None, None)

    def write_reports(self, code: int, error: str | None, *, outcome: Ending | None = None) -> None:
        """Write the files that were asked for, for good.

        Raises:
            OSError: one cannot be written.
        """
        with self.writing:
            self.ended = True
            self._write(outcome or self._ending(code), code, error)

    def _write(self, outcome: State, code: int | None, error: str | None) -> None:
        if self.summary is None and self.metrics is None:
            return
        from zipbatch.report.run import write_metrics, write_summary

        report = self._report(outcome, code, error)
        for path, write in ((self.summary, write_summary), (self.metrics, write_metrics)):
            if path is not None:
                write(path, report)

    def _report(self, outcome: State, code: int | None, error: str | None) -> RunReport:
        from zipbatch.report.run import RunReport

        return RunReport(
            run=self.run,
            command=self.command,
            outcome=outcome,
            exit_code=code,
            started=self.started,
            ended=self.started + time.monotonic() - self.clock,
            error=error,
            dataset=self.dataset,
            store=self.store,
            version=self.version,
            tags=self.tags,
            latest_left=self.latest_left,
            tags_left=self.tags_left,
            counts=self.counts,
            failed={what: as_read(reason) for what, reason in self.failed.items()},
            verdict=self.verdict,
        )

    def _ending(self, code: int) -> State:
        if code == 0:
            return "nothing to do" if self.nothing_to_do else "done"
        return "interrupted" if code > 128 else "failed"

    def left(self) -> str:
        """What an unfinished run has done and what is left, as far as it is known: '3 of 9 shards are done, …; '."""
        counts = self.counts
        if counts is None or not counts.total:
            return ""
        return f"{counts.done} of {counts.total} {counts.unit} are done, {counts.left} left; "

    def stop_at(self, max_hours: float | None) -> float | None:
        """The time, of the monotonic clock, after which no work should be begun."""
        return None if max_hours is None else self.clock + 3600 * max_hours


def run_context() -> RunContext:
    """The run of the command that is being carried out."""
    found = click.get_current_context().find_object(RunContext)
    assert found is not None  # main always gives one
    return found


def report_options(command: Command) -> Command:
    """``--summary --metrics``: files that tell how the run ended, however it did."""
    for option in (
        click.option(
            "--metrics",
            type=click.Path(path_type=Path),
            metavar="FILE.prom",
            is_eager=True,
            expose_value=False,
            callback=_keep_metrics,
            help="Write the end of the run for the textfile collector of Prometheus' node_exporter.",
        ),
        click.option(
            "--summary",
            type=click.Path(path_type=Path),
            metavar="FILE.json",
            is_eager=True,
            expose_value=False,
            callback=_keep_summary,
            help="Write a summary of the run as JSON, also when it fails or is interrupted.",
        ),
    ):
        command = option(command)
    return command


def _keep_summary(context: click.Context, _option: click.Parameter, path: Path | None) -> None:
    if path is not None:
        _found(context).summary = _writable("--summary", path)


def _keep_metrics(context: click.Context, _option: click.Parameter, path: Path | None) -> None:
    if path is not None:
        if path.suffix != ".prom":
            raise click.UsageError(f"--metrics {path}: must end in .prom; node_exporter reads no other files")
        _found(context).metrics = _writable("--metrics", path)


def _found(context: click.Context) -> RunContext:
    found = context.find_object(RunContext)
    assert found is not None
    found.command = context.command_path.partition(" ")[2]
    return found


def _writable(flag: str, path: Path) -> Path:
    path = path.absolute()
    if not path.parent.is_dir():
        raise click.UsageError(f"{flag} {path}: its folder is not there")
    if path.is_dir():
        raise click.UsageError(f"{flag} {path}: is a folder; name a file")
    return path


@contextmanager
def locked(
    policy: LockPolicy | None, *, store: StoragePath, dataset: str, stop_at: float | None = None
) -> Iterator[bool]:
    """Hold the lock of a store's dataset for as long as this lasts; without a policy, hold nothing.

    Yields:
        False when another run has the lock and this one is to be skipped.

    Raises:
        UsageError: the lock cannot be taken for want of rights or of locks.
        WorkFailed: another run has it: at once under ``fail``, or under ``wait`` when ``stop_at`` has come.
    """
    if policy is None:
        yield True
        return
    from zipbatch.store.lock import RunLock, lock_file

    lock = RunLock(lock_file(store, dataset))
    try:
        yield _taken(lock, policy, f"{dataset} in {store}", stop_at)
    finally:
        lock.release()


def _taken(lock: RunLock, policy: LockPolicy, what: str, stop_at: float | None) -> bool:
    told = False
    while not lock.take(run=run_context().run, now=time.time()):
        who = f"{what}: another run has the lock: {lock.holder() or 'a process that has not said who it is'}"
        if policy == "skip":
            log.info("%s; skipped", who)
            run_context().unreported()
            return False
        if policy == "fail":
            raise WorkFailed(f"{who}; try again when it has ended, or use --lock wait")
        if stop_at is not None and time.monotonic() >= stop_at:
            raise TimeIsUp(f"time is up, all of it spent waiting. {who}")
        if not told:
            log.warning("%s; waiting for it", who)
            told = True
        time.sleep(_POLL_S)
    return True
