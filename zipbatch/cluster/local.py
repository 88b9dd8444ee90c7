"""Workers in this process: one worker, a few threads around it, no Ray."""

from __future__ import annotations

import contextvars
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from zipbatch.cluster.device import cpu_cores
from zipbatch.cluster.guard import Answer, guarded
from zipbatch.cluster.types import OnPartial, Outcome, Setup, WorkerContext, Workers
from zipbatch.errors import Cancelled
from zipbatch.memory import usual_share

PARTIAL_S = 1.0
_TASK: contextvars.ContextVar[str] = contextvars.ContextVar("task")


def run_local(setup: Setup, tasks: Iterable[Any], workers: Workers, *, on_partial: OnPartial) -> Iterator[Outcome]:
    """See ``run_tasks``."""
    stop = threading.Event()
    far: dict[str, int] = {}

    def heartbeat() -> None:
        if stop.is_set():
            raise Cancelled("the run is being stopped")

    def progress(done: int) -> None:
        if (name := _TASK.get(None)) is not None:
            far[name] = done

    def work(task: Any) -> Answer:
        token = _TASK.set(task.name)
        try:
            return guarded(built.result, task)
        finally:
            _TASK.reset(token)
            far.pop(task.name, None)

    compute_threads = cpu_cores()
    context = WorkerContext(
        device=workers.device,
        compute_threads=compute_threads,
        heartbeat=heartbeat,
        label=_label(),
        progress=progress,
        memory=workers.memory or usual_share(compute_threads),
        in_flight=workers.in_flight,
    )
    built = guarded(setup, context)
    if built.error is not None:
        raise built.failure()
    with ThreadPoolExecutor(max_workers=workers.in_flight, thread_name_prefix="shard") as pool:
        try:
            yield from _outcomes(
                iter(tasks), lambda task: pool.submit(work, task), workers.in_flight, lambda: on_partial(far.copy())
            )
        finally:
            stop.set()


def _label() -> dict[str, Any]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return {"host": socket.gethostname(), "pid": os.getpid(), "cuda_visible_devices": visible}


def _outcomes(
    queue: Iterator[Any], submit: Callable[[Any], Future[Answer]], in_flight: int, on_partial: Callable[[], None]
) -> Iterator[Outcome]:
    """What becomes of each task; those that have not begun when this is left never do."""
    running: dict[Future[Answer], Any] = {}
    try:
        while True:
            while len(running) < in_flight and (task := next(queue, None)) is not None:
                running[submit(task)] = task
            if not running:
                return
            on_partial()
            for future in wait(running, timeout=PARTIAL_S, return_when=FIRST_COMPLETED).done:
                task = running.pop(future)
                answer = future.result()
                yield Outcome(task=task, result=answer.result, error=answer.error, full=answer.full)
    finally:
        for future in running:
            future.cancel()
