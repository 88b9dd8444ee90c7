"""Run tasks on workers: in this process, or on Ray actors pinned to GPUs. Knows no stage."""

from zipbatch.cluster.device import pick_device
from zipbatch.cluster.dispatch import cluster_nodes, run_tasks
from zipbatch.cluster.request import WorkerRequest
from zipbatch.cluster.types import Node, OnPartial, Outcome, Setup, Task, WorkerContext, Workers

__all__ = [
    "Node",
    "OnPartial",
    "Outcome",
    "Setup",
    "Task",
    "WorkerContext",
    "WorkerRequest",
    "Workers",
    "cluster_nodes",
    "pick_device",
    "run_tasks",
]
