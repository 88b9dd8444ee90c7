"""What a command shows while it works: a bar on a terminal, elsewhere a line when it begins and one a minute."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from zipbatch.cli.run_context import RunContext, run_context
from zipbatch.logs import PROGRESS, configure, settings
from zipbatch.report.progress import Part, Progress, TimeLeft

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

log = logging.getLogger(__name__)
LINE_EVERY_S = 60.0
REFRESH_EVERY_S = 30.0
_BAR_CELLS = 24


class Ticker:
    """Calls functions, each at its own interval, from a thread that neither outlives the process nor dies of an error.

    Args:
        jobs: (seconds, function) pairs.
    """

    def __init__(self, *jobs: tuple[float, Callable[[], None]]) -> None:
        self._jobs, self._stopped, self._said = jobs, threading.Event(), ""
        self._thread = threading.Thread(target=self._heartbeat, name="ticker", daemon=True)

    def start(self) -> None:
        """Begin; the first calls come after their intervals."""
        self._thread.start()

    def stop(self) -> None:
        """End, once a call that is under way has come back; one that hangs is left to itself."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _heartbeat(self) -> None:
        due = [time.monotonic() + every for every, _ in self._jobs]
        while not self._stopped.wait(max(0.0, min(due) - time.monotonic())):
            for number, (every, job) in enumerate(self._jobs):
                if time.monotonic() >= due[number]:
                    self._call(job)
                    due[number] = time.monotonic() + every

    def _call(self, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception as error:  # noqa: BLE001  a full disk, say, is told once and ends neither the run nor the ticking
            if (said := f"{type(error).__name__}: {error}") != self._said:
                log.warning("the report of a run that goes on could not be written: %s", said)
            self._said = said


class Screen:
    """What is shown of a command's work. ``show`` may be called from any thread, as often as there is news."""

    def __init__(self, run: RunContext, *, lines: bool) -> None:
        self._left, self._lock = TimeLeft(), threading.Lock()
        self._now = Progress(what="starting")
        jobs = [(REFRESH_EVERY_S, run.refresh)]
        if lines:
            jobs.append((LINE_EVERY_S, self._log))
        self._ticker, self._began, self._lines = Ticker(*jobs), False, lines

    def begin(self, what: str, about: str = "") -> None:
        """The work begins: lines are logged and reports refreshed from here on. ``about`` says how much it is."""
        with self._lock:
            self._now = Progress(what=what)
        if self._lines:
            self._say(f"{what}{': ' if about else ''}{about}", self._now, None)
        if not self._began:
            self._began = True
            self._ticker.start()

    def show(self, progress: Progress) -> None:
        """Take in how far the work has got; work of another name is announced."""
        with self._lock:
            new, self._now = progress.what != self._now.what, progress
            self._left.note(progress)
        if new:
            self._say(progress.what, progress, None)

    def of(self, what: str) -> Callable[[Progress], None]:
        """For work that does not know what it is called."""
        return lambda progress: self.show(progress.shown(what))

    def counter(self, what: str, unit: str) -> Callable[[int, int | None], None]:
        """For work that only counts: to be called with how much is done, and of how much."""
        began, first = time.monotonic(), -1

        def show(done: int, total: int | None) -> None:
            nonlocal began, first
            if first < 0:
                began, first = time.monotonic(), done
            passed = time.monotonic() - began
            rate = (done - first) / passed if done > first and passed > 0 else None
            self.show(Progress(what=what, parts=(Part(unit, done, total),), per_s=rate))

        return show

    def end(self) -> None:
        """Nothing more is shown."""
        self._ticker.stop()

    def _state(self) -> tuple[Progress, float | None]:
        with self._lock:
            return self._now, self._left.seconds()

    def _log(self) -> None:
        now, left_s = self._state()
        self._say(f"{now.what}: {now.text(left_s) or 'going on'}", now, left_s)

    @staticmethod
    def _say(text: str, progress: Progress, left_s: float | None) -> None:
        logging.getLogger(PROGRESS).info("%s", text, extra={"progress": progress.value(left_s)})

    def line(self, width: int) -> RenderableType:
        """What, a bar and the counts, in one line of a terminal that is ``width`` cells wide; the counts come first."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        now, left_s = self._state()
        counts = now.text(left_s)
        room = width - len(counts) - 2
        what = now.what if len(now.what) + 6 <= room else f"{now.what[: max(0, room - 7)]}…"
        cells = min(_BAR_CELLS, room - len(what) - 1)
        parts: list[RenderableType] = [Text(what, no_wrap=True)] if room >= 8 else []
        if cells >= 4:
            share = now.share
            parts.append(ProgressBar(total=None if share is None else 1.0, completed=share or 0.0, width=cells))
        grid = Table.grid(padding=(0, 1))
        grid.add_row(*parts, Text(counts, no_wrap=True, overflow="ellipsis"))
        return grid


@contextmanager
def screen() -> Iterator[Screen]:
    """A bar on stderr where that is a terminal, else log lines. Print results when it has gone."""
    from rich.console import Console

    console = Console(stderr=True)
    terminal = sys.stderr.isatty() and not console.is_dumb_terminal
    shown = Screen(run_context(), lines=not terminal)
    try:
        if terminal:
            with _bar(shown, console):
                yield shown
        else:
            yield shown
    finally:
        shown.end()


@contextmanager
def _bar(shown: Screen, console: Console) -> Iterator[None]:
    """Draw until this ends; what is logged meanwhile appears above the bar."""
    from rich.live import Live

    def line() -> RenderableType:
        return shown.line(console.width)

    live = Live(get_renderable=line, console=console, transient=True, refresh_per_second=4, redirect_stdout=False)
    try:
        with live:
            configure(settings(), sys.stderr)  # which is rich's own by now
            yield
    finally:
        configure(settings())
