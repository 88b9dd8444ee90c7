"""The threads that compute batches."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch

GPU_BATCHES = 2
"""In flight on a GPU: while one waits for the host, which hashes keys or goes through a codec, it has another."""


def compute_threads(device: torch.device, cores: int) -> int:
    """How many compute at once."""
    return GPU_BATCHES if device.type == "cuda" else cores


def compute_pool(device: torch.device, threads: int) -> ThreadPoolExecutor:
    """Threads with a single intra-op thread each, so that a result does not depend on how many cores there are; on a
    GPU each with a stream of its own.
    """

    def begin() -> None:
        torch.set_num_threads(1)
        if device.type == "cuda":
            torch.cuda.set_stream(torch.cuda.Stream(device))  # type: ignore[no-untyped-call]

    return ThreadPoolExecutor(threads, "compute", initializer=begin)
