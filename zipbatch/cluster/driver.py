"""Keep Ray actors busy with tasks, and go on when they die, hang, leave or come."""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from zipbatch.cluster.actor import Heartbeat, Sent
from zipbatch.cluster.guard import Answer
from zipbatch.cluster.types import OnPartial, Outcome
from zipbatch.errors import UsageError, WorkFailed
from zipbatch.logs import log_lines

log = logging.getLogger(__name__)
MAX_TRIES = 3
START_TIMEOUT_S = 300.0
HEARTBEAT_S = 2.0
FROZEN_S = 180.0
_DEATH_SETTLES_S = 30.0


@dataclass(kw_only=True)
class _Entry:
    """A task, how far it is, and how often it has killed or hung a worker. A suspect runs alone."""

    task: Any
    call: int
    done: int = 0
    tries: int = 0
    suspect: bool = False


@dataclass(kw_only=True)
class Slot:
    """An actor and what it is working on; one that is not up has no work, and ``waking`` is its pending answer."""

    actor: Any
    sent: Sent
    waking: Any = None
    seen: bool = False
    failures: int = 0
    running: dict[Any, _Entry] = field(default_factory=dict)
    heartbeats: Any = None
    heartbeats_at: float = 0.0

    @property
    def open(self) -> bool:
        """Whether it may take tasks beside those it has."""
        return self.waking is None and not any(entry.suspect for entry in self.running.values())


class Driver:
    """Hands tasks to actors that come and go, and counts the tries of each task.

    Args:
        slots: an actor each, just started.
        tasks: read only as far as workers take them.
        in_flight: tasks an actor holds at once.
        required: actors that must come up once.
        stall_s: how long a task may show no progress.
        on_partial: see ``run_tasks``.
    """

    def __init__(
        self,
        slots: list[Slot],
        tasks: Iterator[Any],
        *,
        in_flight: int,
        required: int,
        stall_s: float,
        on_partial: OnPartial,
    ) -> None:
        self._slots, self._tasks = slots, tasks
        self._in_flight, self._required, self._stall_s = in_flight, required, stall_s
        self._on_partial = on_partial
        self._suspects: deque[_Entry] = deque()
        self._calls = itertools.count()
        self._exhausted = False
        self._began = self._last_up = time.monotonic()
        for slot in slots:
            self._ask(slot)

    def outcomes(self) -> Iterator[Outcome]:
        """What became of each task, as it ends.

        Raises:
            UsageError: the workers asked for do not come up.
            WorkFailed: all workers are lost.
        """
        while True:
            self._dispatch()
            running = {ref: slot for slot in self._slots for ref in slot.running}
            waking = {slot.waking: slot for slot in self._slots if slot.waking is not None}
            if self._exhausted and not running and not self._suspects:
                return
            done, _ = ray.wait([*running, *waking], num_returns=1, timeout=HEARTBEAT_S)
            for ref in done:
                if ref in waking:
                    self._woken(waking[ref])
                else:
                    yield from self._collect(running[ref], ref)
            for slot in list(self._slots):
                if slot.running and (fault := self._fault(slot)):
                    yield from self._replace(slot, fault)
            self._on_partial({entry.task.name: entry.done for slot in self._slots for entry in slot.running.values()})
            self._check_lost()

    def _dispatch(self) -> None:
        """Hand the next tasks to the least loaded workers.

        A suspect gets an idle worker to itself; while one waits for that, the least loaded worker takes nothing new.
        """
        for slot in self._slots:
            if self._suspects and slot.open and not slot.running:
                self._start(slot, self._suspects.popleft())
        ready = sorted((slot for slot in self._slots if slot.open), key=lambda slot: len(slot.running))
        if self._suspects:
            ready = ready[1:]
        while ready and not self._exhausted:
            slot = min(ready, key=lambda slot: len(slot.running))
            if len(slot.running) == self._in_flight:
                return
            if (task := next(self._tasks, None)) is None:
                self._exhausted = True
                return
            self._start(slot, _Entry(task=task, call=next(self._calls)))

    def _start(self, slot: Slot, entry: _Entry) -> None:
        if not slot.running:
            slot.heartbeats_at = time.monotonic()
        slot.running[slot.actor.run.remote(entry.call, entry.task, slot.sent)] = entry

    def _woken(self, slot: Slot) -> None:
        """Open a worker for tasks, or find that there will be none."""
        try:
            answer: Answer = ray.get(slot.waking)
        except RayError as error:
            slot.failures += 1
            reason = f"a worker died while it was starting: {str(error).strip().partition(chr(10))[0]}{_token_hint()}"
            log.warning("%s", reason)
            if slot.failures < MAX_TRIES:
                self._ask(slot)
            else:
                self._drop(slot, WorkFailed(reason))
            return
        if answer.error is not None:
            self._drop(slot, answer.failure())
            return
        slot.waking, slot.seen, slot.failures = None, True, 0
        self._last_up = time.monotonic()

    def _drop(self, slot: Slot, error: UsageError | WorkFailed) -> None:
        """Go on without a worker, unless too few are left for what was asked."""
        self._slots.remove(slot)
        if (not slot.seen and len(self._slots) < self._required) or not self._slots:
            raise error
        log.warning("going on with %d workers: %s", len(self._slots), error)
        ray.kill(slot.actor, no_restart=True)

    @staticmethod
    def _ask(slot: Slot) -> None:
        slot.waking, slot.heartbeats = slot.actor.ready.remote(slot.sent), None

    def _check_lost(self) -> None:
        """End a run whose workers do not come, or do not come back; one that still has some goes on."""
        now = time.monotonic()
        up = sum(slot.seen for slot in self._slots)
        if up < self._required and now - self._began > START_TIMEOUT_S and any(not s.seen for s in self._slots):
            raise UsageError(
                f"only {up} of {self._required} workers came up within {START_TIMEOUT_S:g} s; {_free()}; "
                "ask for fewer, wait until more are free, or allow fewer with ‹at_least›"
            )
        if any(slot.waking is None for slot in self._slots):
            self._last_up = now
        elif now - self._last_up > START_TIMEOUT_S:
            raise WorkFailed("all workers are lost; run the same command again to go on")

    def _fault(self, slot: Slot) -> str | None:
        """Whether a worker hangs: it has stopped answering, or one of its tasks has stopped moving."""
        now = time.monotonic()
        if slot.heartbeats is None:
            if now - slot.heartbeats_at >= min(HEARTBEAT_S, self._stall_s / 2):
                slot.heartbeats, slot.heartbeats_at = slot.actor.heartbeats.remote(), now
            return None
        if not ray.wait([slot.heartbeats], timeout=0)[0]:
            return f"it has not answered for {FROZEN_S:g} s" if now - slot.heartbeats_at > FROZEN_S else None
        answer, slot.heartbeats = slot.heartbeats, None
        try:
            heartbeats: dict[int, Heartbeat] = ray.get(answer)
        except RayError:
            return None  # it died: its tasks will tell
        for entry in slot.running.values():
            heartbeat = heartbeats.get(entry.call, Heartbeat(0.0, entry.done))
            entry.done = heartbeat.done
            if heartbeat.idle_s > self._stall_s:
                return f"{entry.task.name} has made no progress for {heartbeat.idle_s:.0f} s"
        return None

    def _replace(self, slot: Slot, fault: str) -> Iterator[Outcome]:
        log.warning("a worker hangs and is replaced: %s", fault)
        ray.kill(slot.actor, no_restart=False)
        yield from self._after_loss(slot, settle_s=0)

    def _collect(self, slot: Slot, ref: Any) -> Iterator[Outcome]:
        """The outcome of a finished call, or what follows from the death of its worker."""
        if ref not in slot.running:
            return  # settled with the loss of its worker already
        entry = slot.running[ref]
        try:
            answer: Answer = ray.get(ref)
        except RayTaskError as error:  # our own code raised past its guard, for example on the way back
            del slot.running[ref]
            reason = f"internal error: {error.cause or error} (please report it)"
            yield Outcome(task=entry.task, result=None, error=reason, tries=entry.tries + 1)
            return
        except RayError as error:
            log.warning("a worker died with %s in hand: %s", entry.task.name, type(error).__name__)
            yield from self._after_loss(slot, settle_s=_DEATH_SETTLES_S)
            return
        del slot.running[ref]
        yield _outcome(entry, answer)

    def _after_loss(self, slot: Slot, *, settle_s: float) -> Iterator[Outcome]:
        """Whoever was with the worker runs again, each alone; only one that was alone is charged a try."""
        lost: list[_Entry] = []
        finished: list[Outcome] = []
        ray.wait(list(slot.running), num_returns=len(slot.running), timeout=settle_s)
        for ref, entry in slot.running.items():
            try:
                answer: Answer = ray.get(ref, timeout=0)
                finished.append(_outcome(entry, answer))
            except RayError:
                lost.append(entry)
        slot.running.clear()
        self._ask(slot)
        yield from finished
        for entry in lost:
            entry.suspect, entry.call, entry.done = True, next(self._calls), 0
            entry.tries += len(lost) == 1
            if entry.tries < MAX_TRIES:
                self._suspects.append(entry)
                continue
            yield Outcome(
                task=entry.task,
                result=None,
                error=f"killed or hung its worker {MAX_TRIES} times; given up",
                tries=entry.tries,
            )


def _outcome(entry: _Entry, answer: Answer) -> Outcome:
    log_lines(answer.lines)
    return Outcome(task=entry.task, result=answer.result, error=answer.error, tries=entry.tries + 1, full=answer.full)


def _token_hint() -> str:
    """A cluster without authentication drops the calls of a driver that has it, and says nothing of why."""
    if os.environ.get("RAY_AUTH_MODE") != "token":
        return ""
    return " (if the cluster was started without tokens, set RAY_AUTH_MODE=disabled here)"


def _free() -> str:
    """What the cluster has and what of it is free."""
    total, free = ray.cluster_resources(), ray.available_resources()
    kinds = [f"{free.get(kind, 0):g} of {total[kind]:g} {kind}s" for kind in ("GPU", "CPU") if total.get(kind)]
    return f"the cluster has {' and '.join(kinds) or 'neither GPUs nor CPUs'} free"
