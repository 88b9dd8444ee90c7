"""Run tasks on workers: in this process, or on Ray actors pinned to GPUs. Knows no stage."""

from zipbatch.cluster.device import pick_device
from zipbatch.cluster.dispatch import cluster_nodes, resolve_workers, run_tasks
from zipbatch.cluster.types import Node, OnPartial, Outcome, Setup, Task, WorkerContext, Workers

__all__ = [
    "Node",
    "OnPartial",
    "Outcome",
    "Setup",
    "Task",
    "WorkerContext",
    "Workers",
    "cluster_nodes",
    "pick_device",
    "resolve_workers",
    "run_tasks",
]
