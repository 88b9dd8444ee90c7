"""Workers as Ray actors, one a GPU or one a share of the CPU cores. The only module that imports ray."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from zipbatch.cluster.guard import Answer, guarded
from zipbatch.cluster.run import Outcome, Setup, WorkerContext, Workers, cpu_cores
from zipbatch.errors import UsageError, WorkFailed
from zipbatch.logs import KeptLines, LogSettings, configure, log_lines, settings

log = logging.getLogger(__name__)
MAX_TRIES = 3
START_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 10.0
_OBJECT_STORE_BYTES = 100 * 1024**2


class WorkerActor:
    """Holds one worker. It is built on first use, so that a restarted actor builds it anew by itself."""

    def __init__(self, setup: Setup, device: str, lanes: int, logs: LogSettings) -> None:
        self._setup, self._device, self._lanes = setup, device, lanes
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._built: Answer | None = None
        self._lines = KeptLines(f"{socket.gethostname()}:{os.getpid()}")
        configure(logs, kept=self._lines)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the driver says when to stop, and where

    @ray.method(max_task_retries=-1)  # type: ignore[untyped-decorator]
    def ready(self) -> Answer:
        """Build the worker; the error of a worker that cannot be built. Ray repeats the call until an actor is up."""
        with self._lock:
            if self._built is None:
                label = {
                    "host": socket.gethostname(),
                    "pid": os.getpid(),
                    "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
                    "actor": ray.get_runtime_context().get_actor_id(),
                }
                context = WorkerContext(self._device, self._lanes, self._stopping.is_set, label)
                self._built = guarded(self._setup, context)
            return Answer(error=self._built.error, exit_code=self._built.exit_code)

    def run(self, task: Any) -> Answer:
        """Run one task; never raises for what happens in it."""
        ready: Answer = self.ready()
        if ready.error is not None:
            return ready
        assert self._built is not None
        return replace(guarded(self._built.result, task), lines=self._lines.drain())

    def stop(self) -> None:
        """Let what runs come to its next safe point and go no further."""
        self._stopping.set()


@dataclass
class _Entry:
    """A task and how often it has killed a worker. A suspect runs alone."""

    task: Any
    tries: int = 0
    suspect: bool = False


@dataclass
class _Slot:
    """An actor and what it is working on; ``waking`` is the pending answer of one that died, and no work till then."""

    actor: Any
    running: dict[Any, _Entry] = field(default_factory=dict)
    waking: Any = None
    down_since: float = 0.0

    @property
    def open(self) -> bool:
        """Whether it may take tasks beside those it has."""
        return self.waking is None and not any(entry.suspect for entry in self.running.values())


def run_ray(setup: Setup, tasks: Iterable[Any], workers: Workers) -> Iterator[Outcome]:
    """See ``run_tasks``. Ray restarts dead actors; tries are counted here, for each task."""
    with _cluster(workers):
        slots = [_Slot(actor) for actor in _start_actors(setup, workers)]
        try:
            yield from _drive(slots, iter(tasks), workers.in_flight)
        finally:
            _stop(slots)


def _stop(slots: list[_Slot]) -> None:
    """Give what still runs a moment to leave nothing half-written behind, then end the actors."""
    running = [ref for slot in slots for ref in slot.running]
    try:
        if running:
            for slot in slots:
                slot.actor.stop.remote()
            ray.wait(running, num_returns=len(running), timeout=STOP_TIMEOUT_S)
        for slot in slots:
            ray.kill(slot.actor, no_restart=True)
    except RayError as error:
        log.warning("workers could not be stopped in order: %s", error)


@contextmanager
def _cluster(workers: Workers) -> Iterator[None]:
    """Join a cluster or start an embedded one, and leave it.

    Ray prints notices of dead workers on stdout and takes SIGTERM for itself; stdout is for results and the signal
    ours, so both are put right as long as Ray is there.
    """
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    main_thread = threading.current_thread() is threading.main_thread()
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        if workers.address is not None:
            ray.init(address=workers.address, **common)
        else:
            ray.init(
                address="local",
                num_cpus=max(workers.workers, 1),
                num_gpus=workers.gpus or 0,
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                **common,
            )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        first_line = str(error).strip().partition("\n")[0]
        if workers.address is None:
            raise WorkFailed(f"Ray could not be started here: {first_line}; --workers 0 does without it") from error
        raise UsageError(
            f"--address {workers.address}: cannot join a Ray cluster there: {first_line} (if it asks for a token, give "
            "this machine the same one: RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH)"
        ) from error
    if main_thread:
        signal.signal(signal.SIGTERM, on_terminate)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        ray.shutdown()


def _start_actors(setup: Setup, workers: Workers) -> list[Any]:
    """Start all actors and build their workers; nothing is left waiting for resources that do not exist."""
    kind = "GPU" if workers.gpus else "CPU"
    have = ray.cluster_resources().get(kind, 0)
    if workers.count > have:
        flag = f"--gpus {workers.gpus}" if workers.gpus else f"--workers {workers.workers}"
        raise UsageError(f"{flag}: the Ray cluster has {have:g} {kind}s; ask for {have:g} or fewer")
    lanes = 1 if workers.gpus or workers.address else max(1, cpu_cores() // workers.count)
    options: dict[str, Any] = {
        "num_gpus": 1 if workers.gpus else 0,
        "num_cpus": 0 if workers.gpus else 1,
        "max_restarts": -1,
        "max_task_retries": 0,
        "max_concurrency": workers.in_flight + 2,  # beside its tasks it answers ready and stop
    }
    remote = ray.remote(WorkerActor).options(**options)
    actors = [remote.remote(setup, workers.device, lanes, settings()) for _ in range(workers.count)]
    try:
        answers: list[Answer] = ray.get([actor.ready.remote() for actor in actors], timeout=START_TIMEOUT_S)
    except RayActorError as error:
        raise WorkFailed(f"a worker died while it was starting: {error}") from error
    except ray.exceptions.GetTimeoutError:
        free = ray.available_resources().get(kind, 0)
        raise UsageError(
            f"{workers.count} workers did not start within {START_TIMEOUT_S:g} s; the cluster has {have:g} {kind}s, "
            f"{free:g} of them free"
        ) from None
    failed = [answer.error for answer in answers if answer.error is not None]
    if failed:
        raise UsageError(failed[0])
    return actors


def _drive(slots: list[_Slot], queue: Iterator[Any], in_flight: int) -> Iterator[Outcome]:
    suspects: deque[_Entry] = deque()
    exhausted = False
    while True:
        exhausted = _dispatch(slots, queue, suspects, in_flight) or exhausted
        running = {ref: slot for slot in slots for ref in slot.running}
        waking = {slot.waking: slot for slot in slots if slot.waking is not None}
        if exhausted and not running and not suspects:
            return
        done, _ = ray.wait([*running, *waking], num_returns=1, timeout=START_TIMEOUT_S if waking else None)
        for ref in done:
            if ref in waking:
                _woken(waking[ref])
            else:
                yield from _collect(running[ref], ref, suspects)
        _give_up_lost(slots)


def _woken(slot: _Slot) -> None:
    """Open a restarted worker for tasks again."""
    try:
        answer: Answer = ray.get(slot.waking)
    except RayError as error:
        log.warning("a worker died again while it was starting: %s", type(error).__name__)
        slot.waking = slot.actor.ready.remote()
        return
    if answer.error is not None:
        raise WorkFailed(f"a worker could not be set up again: {answer.error}")
    slot.waking = None


def _give_up_lost(slots: list[_Slot]) -> None:
    """Drop workers that did not come back in time; without any left, the run fails."""
    now = time.monotonic()
    for slot in list(slots):
        if slot.waking is not None and now - slot.down_since > START_TIMEOUT_S:
            log.warning("a worker did not come back within %g s; going on without it", START_TIMEOUT_S)
            slots.remove(slot)
    if not slots:
        raise WorkFailed("all workers are lost; run the same command again to go on")


def _dispatch(slots: list[_Slot], queue: Iterator[Any], suspects: deque[_Entry], in_flight: int) -> bool:
    """Hand the next tasks to the least loaded workers; True when the queue has no more.

    A suspect gets an idle worker to itself; while one waits for that, the least loaded worker takes nothing new.
    """
    for slot in slots:
        if suspects and slot.open and not slot.running:
            _start(slot, suspects.popleft())
    ready = sorted((slot for slot in slots if slot.open), key=lambda slot: len(slot.running))
    if suspects:
        ready = ready[1:]
    while ready:
        slot = min(ready, key=lambda slot: len(slot.running))
        if len(slot.running) == in_flight:
            break
        if (task := next(queue, None)) is None:
            return True
        _start(slot, _Entry(task))
    return False


def _start(slot: _Slot, entry: _Entry) -> None:
    slot.running[slot.actor.run.remote(entry.task)] = entry


def _collect(slot: _Slot, ref: Any, suspects: deque[_Entry]) -> Iterator[Outcome]:
    """The outcome of a finished call, or what follows from the death of its worker."""
    entry = slot.running.pop(ref)
    try:
        answer: Answer = ray.get(ref)
    except RayTaskError as error:  # our own code raised past its guard, for example on the way back
        yield Outcome(entry.task, None, f"internal error: {error.cause or error} (please report it)", entry.tries + 1)
        return
    except RayError as error:
        log.warning("a worker died with %s in hand: %s", entry.task.name, type(error).__name__)
        yield from _after_death(slot, entry, suspects)
        return
    log_lines(answer.lines)
    yield Outcome(entry.task, answer.result, answer.error, entry.tries + 1, answer.full)


def _after_death(slot: _Slot, entry: _Entry, suspects: deque[_Entry]) -> Iterator[Outcome]:
    """Whoever was with the worker runs again, each alone; only one that was alone when it died is charged a try."""
    dead = [entry]
    finished: list[Outcome] = []
    for ref, other in list(slot.running.items()):
        del slot.running[ref]
        try:
            answer: Answer = ray.get(ref)
            log_lines(answer.lines)
            finished.append(Outcome(other.task, answer.result, answer.error, other.tries + 1, answer.full))
        except RayError:
            dead.append(other)
    slot.waking, slot.down_since = slot.actor.ready.remote(), time.monotonic()
    yield from finished
    for victim in dead:
        victim.suspect = True
        victim.tries += len(dead) == 1
        if victim.tries < MAX_TRIES:
            suspects.append(victim)
            continue
        yield Outcome(victim.task, None, f"killed its worker {MAX_TRIES} times; given up", victim.tries)
