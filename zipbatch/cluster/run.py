"""Tasks in, outcomes out, on whichever workers were asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from zipbatch.cluster.device import pick_device
from zipbatch.errors import UsageError
from zipbatch.memory import GB, usual_share
from zipbatch.places import Place


class Task(Protocol):
    """A small picklable piece of work."""

    @property
    def name(self) -> str:
        """Named in messages; unique within a run."""
        ...


OnPartial = Callable[[Mapping[str, int]], None]
"""Called every second or two with how far each task in hand is, by its name, in units of the task's own."""


def _ignore(_progress: object) -> None:
    return None


@dataclass(frozen=True)
class WorkerContext:
    """What a worker is given.

    Attributes:
        device: ``auto``, ``cpu`` or ``cuda``, to be resolved where the worker runs.
        lanes: computations that may run at once; each uses one CPU thread, a GPU has one lane.
        tick: to be called between pieces of work: shows that the worker lives, raises ``Cancelled`` when the run is
            being stopped. Threads that a task starts call it in a copy of its context, so that it counts for that task.
        progress: to be called with how far a task is, in units of its own, from the thread that runs it.
        label: where the worker runs, for records.
        files: where files of the driver's machine lie on this one.
        memory: bytes that images in hand may take, of all tasks together.
        in_flight: tasks that it is given at once.
    """

    device: str
    lanes: int
    tick: Callable[[], None]
    label: dict[str, Any]
    files: Mapping[Place, Path] = field(default_factory=dict)
    progress: Callable[[int], None] = _ignore
    memory: int = field(default_factory=usual_share)
    in_flight: int = 1

    def local(self, place: Place) -> Place:
        """Where a file that the driver named can be read here, while the worker is being built."""
        return self.files.get(place, place)


Setup = Callable[[WorkerContext], Callable[[Any], Any]]
"""Builds a worker: a picklable callable whose result is called with tasks, from several threads at once."""


@dataclass(frozen=True)
class Workers:
    """Who does the work.

    Attributes:
        gpus: Ray actors with a GPU each, or None.
        workers: Ray actors on CPU cores; 0 works in this process.
        address: a running Ray cluster, or None for an embedded one.
        device: ``auto``, ``cpu`` or ``cuda``.
        in_flight: tasks a worker holds at once, so that reading, computing and writing of neighbours overlap.
        at_least: workers without which the run fails; None means all. It goes on with fewer, and more may come later.
        stall_s: a worker whose task shows no progress for so long is taken for hung, and replaced.
        memory: bytes that the images in a worker's hands may take; None for the usual share of its machine's.
    """

    gpus: int | None = None
    workers: int = 0
    address: str | None = None
    device: str = "auto"
    in_flight: int = 2
    at_least: int | None = None
    stall_s: float = 3600.0
    memory: int | None = None

    @property
    def uses_ray(self) -> bool:
        """False when this process does the work itself."""
        return self.gpus is not None or self.workers > 0

    @property
    def count(self) -> int:
        """How many workers there will be."""
        return self.gpus or max(1, self.workers)

    @property
    def required(self) -> int:
        """How many of them there must be."""
        return self.count if self.at_least is None else self.at_least


@dataclass(frozen=True)
class Outcome:
    """What became of a task: a result, or an error that says why it has none; ``full`` when a disk had no more room."""

    task: Any
    result: Any = None
    error: str | None = None
    tries: int = 1
    full: bool = False


def resolve_workers(
    gpus: int | None,
    workers: int | None,
    address: str | None,
    device: str,
    *,
    at_least: int | None = None,
    stall_minutes: float = 60.0,
    memory_gb: float | None = None,
) -> Workers:
    """Check a request for workers against what this machine has.

    Without an address, actors join the cluster that the environment variable RAY_ADDRESS names, as within a job that
    was submitted to it.

    Raises:
        UsageError: flags that contradict each other, more GPUs than there are, no CUDA for ``--device cuda``.
    """
    if gpus is not None and workers is not None:
        raise UsageError("--gpus and --workers exclude each other: a worker has a GPU or it has not")
    if address is not None and gpus is None and not workers:
        raise UsageError("--address needs --gpus N or --workers N: how many actors should the cluster run?")
    if at_least is not None and not at_least <= (gpus or workers or 0):
        raise UsageError(f"--at-least {at_least}: that is more workers than --gpus or --workers asks for")
    if address is None and (gpus or workers):
        address = os.environ.get("RAY_ADDRESS") or None
    if workers and device == "cuda":
        raise UsageError("--workers N shares the CPU cores; --device cuda goes with --gpus N, or with --workers 0")
    if workers:
        device = "cpu"
    if address is None and gpus is not None:
        import torch

        if gpus > torch.cuda.device_count():
            raise UsageError(
                f"--gpus {gpus}: this machine has {torch.cuda.device_count()} CUDA devices; "
                "ask for fewer, use --workers N on CPU cores, or --address of a cluster that has them"
            )
    if address is None and (gpus is None or device == "cuda"):
        pick_device(device)
    memory = None if memory_gb is None else int(memory_gb * GB)
    return Workers(gpus, workers or 0, address, device, at_least=at_least, stall_s=60 * stall_minutes, memory=memory)


def run_tasks(
    setup: Setup,
    tasks: Iterable[Any],
    workers: Workers,
    *,
    files: Sequence[Path] = (),
    on_partial: OnPartial = _ignore,
) -> Iterator[Outcome]:
    """Run every task once, in no fixed order; a bounded number is in flight, the rest is not even read.

    Workers on a cluster that was joined get ``files`` of this machine, once a node, as ``WorkerContext.local`` says.

    Close the iterator (or leave it by an exception) to stop: what runs is stopped at its next safe point.

    Raises:
        UsageError: the cluster cannot give what is asked, or a worker cannot be set up; says why.
    """
    if not workers.uses_ray:
        from zipbatch.cluster.local import run_local

        return run_local(setup, tasks, workers, on_partial=on_partial)
    _set_ray_environment(joining=workers.address is not None)
    from zipbatch.cluster.rays import run_ray

    return run_ray(setup, tasks, workers, files=files, on_partial=on_partial)


def _set_ray_environment(*, joining: bool) -> None:
    """What Ray reads once, when it is imported: no usage reports, and the token of clusters started on this machine.

    ``ray start`` asks for a token as soon as one exists, but ``ray.init`` does not present it of its own accord.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    named = os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")
    token = Path(os.path.expanduser(named))  # noqa: PTH111  pathlib's raises for a user without a home
    if joining and (token.is_file() or "RAY_AUTH_TOKEN" in os.environ):
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def cpu_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))
