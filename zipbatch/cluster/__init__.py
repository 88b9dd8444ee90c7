"""Run tasks on workers: in this process, or on Ray actors pinned to GPUs. Knows no stage."""

from zipbatch.cluster.device import pick_device
from zipbatch.cluster.dispatch import resolve_workers, run_tasks
from zipbatch.cluster.types import OnPartial, Outcome, Setup, Task, WorkerContext, Workers

__all__ = [
    "OnPartial",
    "Outcome",
    "Setup",
    "Task",
    "WorkerContext",
    "Workers",
    "pick_device",
    "resolve_workers",
    "run_tasks",
]
