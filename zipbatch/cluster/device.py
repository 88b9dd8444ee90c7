"""Which device a worker computes on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from zipbatch.errors import UsageError

if TYPE_CHECKING:
    import torch


def pick_device(name: str) -> torch.device:
    """``auto``, ``cpu`` or ``cuda`` -> a torch device; ``auto`` takes CUDA when it is there.

    Raises:
        UsageError: ``cuda`` where there is none.
    """
    import torch

    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UsageError("--device cuda: this machine has no CUDA device that torch can use; try --device cpu")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and available) else "cpu")


def cpu_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))
