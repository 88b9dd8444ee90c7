"""Workers as Ray actors, one a GPU or one a share of the CPU cores: the cluster they live on, their start and end."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError

from zipbatch import __version__
from zipbatch.cluster.actor import WorkerActor
from zipbatch.cluster.drive import Driver, Slot
from zipbatch.cluster.run import OnPartial, Outcome, Setup, Workers, cpu_cores
from zipbatch.errors import UsageError, WorkFailed
from zipbatch.logs import settings

log = logging.getLogger(__name__)
STOP_TIMEOUT_S = 10.0
_OBJECT_STORE_BYTES = 100 * 1024**2


def run_ray(
    setup: Setup, tasks: Iterable[Any], workers: Workers, *, files: Sequence[Path], on_partial: OnPartial
) -> Iterator[Outcome]:
    """See ``run_tasks``. Ray restarts dead actors; tries are counted by the driver, for each task."""
    with _cluster(workers):
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
    with redirect_stdout(sys.stderr):
        try:
            yield
        finally:
            ray.shutdown()


def _check_resources(workers: Workers) -> None:
    """Nothing is left waiting for resources that do not exist."""
    kind = "GPU" if workers.gpus else "CPU"
    have = ray.cluster_resources().get(kind, 0)
    if workers.required > have:
        flag = f"--gpus {workers.gpus}" if workers.gpus else f"--workers {workers.workers}"
        least = "" if workers.at_least is None else f" --at-least {workers.at_least}"
        raise UsageError(f"{flag}{least}: the Ray cluster has {have:g} {kind}s; ask for {have:g} or fewer")


def _slots(setup: Setup, workers: Workers, files: Sequence[Path]) -> list[Slot]:
    """Start all actors and have them build their workers; those that find no room wait for it."""
    lanes = 1 if workers.gpus or workers.address else max(1, cpu_cores() // workers.count)
    sent = {path: ray.put(np.fromfile(path, np.uint8)) for path in files} if workers.address else {}
    options: dict[str, Any] = {
        "num_gpus": 1 if workers.gpus else 0,
        "num_cpus": 0 if workers.gpus else 1,
        "max_restarts": -1,
        "max_task_retries": 0,
        "max_concurrency": workers.in_flight + 3,  # beside its tasks it answers ready, pulse and stop
        "scheduling_strategy": "SPREAD",
    }
    remote = ray.remote(WorkerActor).options(**options)
    started = [
        remote.remote(setup, device=workers.device, lanes=lanes, version=__version__, logs=settings())
        for _ in range(workers.count)
    ]
    return [Slot(actor, sent) for actor in started]
