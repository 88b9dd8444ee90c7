"""Compiling a network: what it needs, and where compiled kernels are kept."""

from __future__ import annotations

import logging
import os
import warnings
from typing import TYPE_CHECKING

from zipbatch.errors import UsageError
from zipbatch.storage import cache

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
_KERNELS = "TORCHINDUCTOR_CACHE_DIR"


def prepare_to_compile(device: torch.device) -> None:
    """Hold this machine against what compiling needs, and keep kernels where later runs and other workers find them.

    Raises:
        UsageError: the device is a GPU, or there is no C++ compiler.
    """
    os.environ.setdefault(_KERNELS, str(cache.folder() / "kernels"))  # first: torch writes its own there on import
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    if device.type != "cpu":
        raise UsageError("‹compile='on'› is for CPUs: no GPU has tried it; leave it out, or add ‹device='cpu'›")
    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise UsageError(
            "‹compile='on'› needs a C++ compiler on each machine that works; install g++ there (or name one by CXX), "
            "or leave it out"
        ) from error
    warnings.filterwarnings("ignore", module=r"torch\._dynamo")  # of diffusers' own code, which is sound
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # that there is no CUDA
    log.info("compiling the network; a minute or so the first time, kernels are kept in %s", os.environ[_KERNELS])
