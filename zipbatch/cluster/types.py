"""What passes between those who have tasks, those who hand them out, and workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from zipbatch.memory import usual_share
from zipbatch.storage import StoragePath


class Task(Protocol):
    """A small picklable piece of work."""

    @property
    def name(self) -> str:
        """Named in messages; unique within a run."""
        ...


OnPartial = Callable[[Mapping[str, int]], None]
"""Called every second or two with how far each task in hand is, by its name, in units of the task's own."""


def ignore_progress(_progress: object) -> None:
    """For those who don't ask how far a task is."""
    return


@dataclass(frozen=True, kw_only=True)
class WorkerContext:
    """What a worker is given.

    Attributes:
        device: ``auto``, ``cpu`` or ``cuda``, to be resolved where the worker runs.
        compute_threads: computations that may run at once; each uses one CPU thread, a GPU has one.
        heartbeat: to be called between pieces of work: shows that the worker lives; raises ``Cancelled`` when the run
            is being stopped. Threads that a task starts call it in a copy of its context, so that it counts for it.
        progress: to be called with how far a task is, in units of its own, from the thread that runs it.
        label: where the worker runs, for records.
        files: where files of the driver's machine lie on this one.
        memory: bytes that images in hand may take, of all tasks together.
        in_flight: tasks that it is given at once.
    """

    device: str
    compute_threads: int
    heartbeat: Callable[[], None]
    label: dict[str, Any]
    files: Mapping[StoragePath, Path] = field(default_factory=dict)
    progress: Callable[[int], None] = ignore_progress
    memory: int = field(default_factory=usual_share)
    in_flight: int = 1

    def local(self, place: StoragePath) -> StoragePath:
        """Where a file that the driver named can be read here, while the worker is being built."""
        return self.files.get(place, place)


Setup = Callable[[WorkerContext], Callable[[Any], Any]]
"""Builds a worker: a picklable callable whose result is called with tasks, from several threads at once."""


@dataclass(frozen=True, kw_only=True)
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


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node of a running cluster.

    Attributes:
        name: its host's.
        cpus: CPU cores that Ray hands out.
        gpus: GPUs that Ray hands out.
        zipbatch: the version that it has; None where that cannot be told.
        problem: why it could not run anything of ours.
    """

    name: str
    cpus: float
    gpus: float
    zipbatch: str | None = None
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a task: a result, or an error that says why it has none; ``full`` when a disk had no more room."""

    task: Any
    result: Any = None
    error: str | None = None
    tries: int = 1
    full: bool = False
