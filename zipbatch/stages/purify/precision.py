"""What a prior's network computes with: decided once, when work is planned, and held to by every worker."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from zipbatch.cluster import Workers, pick_device
from zipbatch.cluster.device import TENSOR_CORES, has_bfloat16
from zipbatch.errors import UsageError
from zipbatch.spelling import setting
from zipbatch.stages.purify.request import AUTO
from zipbatch.stages.purify.spec import PurifierSpec

if TYPE_CHECKING:
    import torch


def decided(spec: PurifierSpec, workers: Workers) -> PurifierSpec:
    """The spec with what ``auto`` is to these workers; bfloat16 where the hardware has it, float32 elsewhere.

    Of a cluster that is joined nobody knows which machines will be there: GPUs are taken for some with tensor cores,
    CPUs for some without bfloat16, whatever is up today. So the same command has the same identity every night.

    Raises:
        UsageError: the workers are on this machine, and it does not have the precision that is asked for.
    """
    if workers.address is None:
        return decided_on(spec, pick_device(workers.device))
    gpus = workers.gpus is not None and workers.device != "cpu"
    return replace(spec, auto="bfloat16" if gpus else "float32")


def decided_on(spec: PurifierSpec, device: torch.device) -> PurifierSpec:
    """``decided`` for one device of this machine."""
    chosen = replace(spec, auto="bfloat16" if has_bfloat16(device) else "float32")
    check_precision(chosen, device)
    return chosen


def check_precision(spec: PurifierSpec, device: torch.device) -> None:
    """Hold a precision against the device that is to have it, where the work is done.

    Raises:
        UsageError: it does not have it. bfloat16 that was asked for by name may be emulated.
    """
    if not spec.needs_prior:
        return
    asked, precision = spec.asked.precision, spec.precision
    if asked == AUTO and precision == "bfloat16" and not has_bfloat16(device):
        raise UsageError(
            f"‹precision='auto'› is bfloat16 for these workers, and this one's {_named(device)} has none in hardware; "
            "where machines differ, say which: ‹precision='float32'›, or bfloat16 for what is emulated there"
        )
    if precision in {"tf32", "float16"} and device.type != "cuda":
        raise UsageError(f"{setting('precision', precision)} is for GPUs; on a CPU take float32 or bfloat16")
    if precision == "tf32" and not has_bfloat16(device):
        major, minor = TENSOR_CORES
        raise UsageError(f"‹precision='tf32'›: needs compute capability {major}.{minor}, not a {_named(device)}")


def _named(device: torch.device) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
