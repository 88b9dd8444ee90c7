"""Run tasks on workers: in this process, or on Ray actors pinned to GPUs. Knows no stage."""

from zipbatch.cluster.device import pick_device
from zipbatch.cluster.run import OnPartial, Outcome, Setup, Task, WorkerContext, Workers, resolve_workers, run_tasks

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
