"""Workers as Ray actors, one a GPU or one a share of the CPU cores: their start and end."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError

from zipbatch import __version__
from zipbatch.cluster.actor import WorkerActor
from zipbatch.cluster.connection import connected
from zipbatch.cluster.device import cpu_cores
from zipbatch.cluster.driver import Driver, Slot
from zipbatch.cluster.types import OnPartial, Outcome, Setup, Workers
from zipbatch.errors import UsageError
from zipbatch.logs import settings
from zipbatch.spelling import setting

log = logging.getLogger(__name__)
STOP_TIMEOUT_S = 10.0


def run_ray(
    setup: Setup, tasks: Iterable[Any], workers: Workers, *, files: Sequence[Path], on_partial: OnPartial
) -> Iterator[Outcome]:
    """See ``run_tasks``. Ray restarts dead actors; tries are counted by the driver, for each task."""
    with connected(workers):
        _check_resources(workers)
        slots = _slots(setup, workers, files)
        driver = Driver(
            slots,
            iter(tasks),
            in_flight=workers.in_flight,
            required=workers.required,
            stall_s=workers.stall_s,
            on_partial=on_partial,
        )
        try:
            yield from driver.outcomes()
        finally:
            _stop(slots)


def _stop(slots: list[Slot]) -> None:
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


def _check_resources(workers: Workers) -> None:
    """Nothing is left waiting for resources that do not exist."""
    kind = "GPU" if workers.gpus else "CPU"
    have = ray.cluster_resources().get(kind, 0)
    if workers.required > have:
        flag = setting("gpus", workers.gpus) if workers.gpus else setting("workers", workers.workers)
        least = "" if workers.at_least is None else f" {setting('at_least', workers.at_least)}"
        raise UsageError(f"{flag}{least}: the Ray cluster has {have:g} {kind}s; ask for {have:g} or fewer")


def _slots(setup: Setup, workers: Workers, files: Sequence[Path]) -> list[Slot]:
    """Start all actors and have them build their workers; those that find no room wait for it."""
    compute_threads = 1 if workers.gpus or workers.address else max(1, cpu_cores() // workers.count)
    sent = {path: ray.put(np.fromfile(path, np.uint8)) for path in files} if workers.address else {}
    options: dict[str, Any] = {
        "num_gpus": 1 if workers.gpus else 0,
        "num_cpus": 0 if workers.gpus else 1,
        "max_restarts": -1,
        "max_task_retries": 0,
        "max_concurrency": workers.in_flight + 3,  # beside its tasks it answers ready, heartbeats and stop
        "scheduling_strategy": "SPREAD",
    }
    remote = ray.remote(WorkerActor).options(**options)
    started = [
        remote.remote(
            setup,
            device=workers.device,
            compute_threads=compute_threads,
            version=__version__,
            logs=settings(),
            memory=workers.memory,
            in_flight=workers.in_flight,
        )
        for _ in range(workers.count)
    ]
    return [Slot(actor=actor, sent=sent) for actor in started]
