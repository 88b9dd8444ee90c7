"""A run is followed by tracking packages in a thread of their own: they neither slow it nor make it fail."""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from zipbatch.report.progress import Progress
from zipbatch.tracking.base import TrackedRun, Tracker
from zipbatch.tracking.choosing import Choice
from zipbatch.tracking.values import USER, plain_name, progress_values, step_of

log = logging.getLogger(__name__)
EVERY_S = 1.0
WAIT_S, WAIT_STOPPED_S = 60.0, 10.0
"""At the end, for a package that is still writing; less where the run was stopped or failed."""
_WAITING = 10_000
_Call = Callable[[Tracker], None]


class _Follower:
    """One package, in its thread. When it fails, that is told once, and nothing more is asked of it."""

    def __init__(self, choice: Choice, run: TrackedRun) -> None:
        self.package = choice.package
        self._calls: queue.Queue[_Call | None] = queue.Queue(_WAITING)
        self._failed = False
        self._thread = threading.Thread(target=lambda: None, name=choice.package, daemon=True)
        try:
            begin = choice.load()  # here, not there: two threads that import at once may meet half a module
        except Exception as error:  # noqa: BLE001  a tracker never fails a run
            self._give_up(error)
        else:
            self._thread = threading.Thread(target=self._follow, args=(begin, run), name=choice.package, daemon=True)
        self._thread.start()

    def tell(self, call: _Call) -> None:
        """Have it called soon; when too many wait, it is left out: the next number comes anyway."""
        if not self._failed:
            with suppress(queue.Full):
                self._calls.put_nowait(call)

    def close(self, *, ok: bool) -> None:
        """End the run there, and wait for it, but not for ever."""
        if self._failed:
            return
        wait_s = WAIT_S if ok else WAIT_STOPPED_S
        deadline = time.monotonic() + wait_s
        with suppress(queue.Full):
            self._calls.put(lambda tracker: tracker.end(ok=ok), timeout=wait_s)
            self._calls.put(None, timeout=max(0.0, deadline - time.monotonic()))
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive() and not self._failed:
            log.warning("%s has not written everything after %.0f s; it is left to itself", self.package, wait_s)

    def _follow(self, begin: Callable[[TrackedRun], Tracker], run: TrackedRun) -> None:
        try:
            tracker = begin(run)
            while (call := self._calls.get()) is not None:
                call(tracker)
        except (Exception, SystemExit) as error:  # noqa: BLE001  a tracker never fails a run, whatever it does
            self._give_up(error)

    def _give_up(self, error: BaseException) -> None:
        first = USER.sub("", (str(error).strip().splitlines() or [""])[0])[:200]
        log.warning("no longer tracked with %s: %s: %s; the run goes on", self.package, type(error).__name__, first)
        self._failed = True


class Following:
    """All packages that follow a run. Its calls return at once and never fail.

    Args:
        choices: the packages; none is fine.
        run: what they follow.
    """

    def __init__(self, choices: tuple[Choice, ...], run: TrackedRun) -> None:
        self._followers = [_Follower(choice, run) for choice in choices]
        self._lock, self._ok = threading.Lock(), True
        self._told: dict[str, tuple[float, Mapping[str, float]]] = {}
        self._waiting: dict[str, Progress] = {}

    def progress(self, progress: Progress, *, group: str = "") -> None:
        """Take in how far a piece of work has got: its measures where they are others than before, once a second. Those
        that are the same later, while what was learned is measured, say, are of the step at which they came.
        """
        if not self._followers:
            return
        values, now = progress_values(progress), time.monotonic()
        with self._lock:
            told_s, told = self._told.get(group, (-math.inf, {}))
            known = self._waiting[group].measures if group in self._waiting else told
            if not values or (progress.measures and progress.measures == known):
                return
            if now - told_s < EVERY_S:
                self._waiting[group] = progress
                return
            self._tell(group, progress, now)

    def _tell(self, group: str, progress: Progress, now: float) -> None:
        self._waiting.pop(group, None)
        self._told[group] = now, progress.measures
        values, step, name = progress_values(progress), step_of(progress), plain_name(group)
        for follower in self._followers:
            follower.tell(lambda tracker: tracker.progress(name, values, step))

    def final(self, values: Mapping[str, float | None], *, ok: bool = True) -> None:
        """What the run came to, without what it does not know; ``ok`` is whether it did all that it was to."""
        self._ok = ok
        known = {plain_name(name): value for name, value in values.items() if value is not None}
        for follower in self._followers:
            follower.tell(lambda tracker: tracker.final(known))

    def close(self, *, ok: bool) -> None:
        """The run is over."""
        with self._lock:
            for group, progress in list(self._waiting.items()):
                self._tell(group, progress, time.monotonic())
        for follower in self._followers:
            follower.close(ok=ok and self._ok)
