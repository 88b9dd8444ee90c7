"""Which device a worker computes on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from zipbatch.errors import UsageError

if TYPE_CHECKING:
    import torch

TENSOR_CORES = (8, 0)
"""Compute capability from which GPUs have tensor cores for bfloat16 and TF32."""
_CPU_INFO = Path("/proc/cpuinfo")
_BFLOAT16 = {"amx_bf16", "avx512_bf16", "bf16"}
_CAPS_WITH_BFLOAT16 = ("ALL", "DEFAULT", "BF16", "FP16", "AMX", "AVX10")


def pick_device(name: str) -> torch.device:
    """``auto``, ``cpu`` or ``cuda`` -> a torch device; ``auto`` takes CUDA when it is there.

    Raises:
        UsageError: ``cuda`` where there is none.
    """
    import torch

    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UsageError("‹device='cuda'›: this machine has no CUDA device that torch can use; try ‹device='cpu'›")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and available) else "cpu")


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies in bfloat16 by itself: a GPU with tensor cores that know it, a CPU with AMX-BF16,
    AVX512-BF16 or Arm's BF16, as Linux lists them, unless oneDNN is told not to use it (``ONEDNN_MAX_CPU_ISA``).
    Elsewhere it is emulated, and slow.
    """
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= TENSOR_CORES
    cap = os.environ.get("ONEDNN_MAX_CPU_ISA", "ALL").upper()
    if not any(part in cap for part in _CAPS_WITH_BFLOAT16) or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return not _BFLOAT16.isdisjoint(_cpu_flags())


def _cpu_flags() -> set[str]:
    try:
        lines = _CPU_INFO.read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.split()) for line in lines if line.startswith(("flags", "Features"))), set())


def cpu_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))
