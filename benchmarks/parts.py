"""What a purify run spends beside its network, by part: python benchmarks/parts.py [--images 384]

Each part's share is of the network's own time, both in the CPU's time of all threads, which others on the machine do
not lengthen. ``whole`` is the whole run, with loading of the prior and all that is done once.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import torch

from zipbatch.diffusion import Prior
from zipbatch.purifiers import diffusion_sampler, jpeg
from zipbatch.stages.assets import embedded_prior
from zipbatch.stages.bench import run as stage
from zipbatch.stages.bench.pictures import Pictures
from zipbatch.stages.bench.request import BenchRequest
from zipbatch.stages.purify import batching, computing, reading
from zipbatch.stages.purify.precision import decided_on
from zipbatch.stages.purify.resolve import purifier_spec

RUNS: tuple[dict[str, Any], ...] = (
    {"preset": "paper", "steps": 10, "transforms": ("blur:2",), "precision": "float32"},
    {"preset": "fast", "precision": "float32"},
    {"preset": "fast", "precision": "bfloat16"},
    {"preset": "balanced", "precision": "bfloat16"},
)
PARTS: dict[str, tuple[Any, str]] = {
    "network": (Prior, "forward"),
    "compute": (computing.BatchComputer, "_compute"),
    "noise": (diffusion_sampler, "standard_normal"),
    "jpeg": (jpeg.Jpeg, "__call__"),
    "decode": (reading.SampleReader, "_read"),
    "encode": (batching.Sample, "with_image"),
}
spent: Counter[str] = Counter()
lock = threading.Lock()


def timed(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
    """The same work, its thread's time added up under a name."""

    @wraps(work)
    def measured(*args: Any, **kwargs: Any) -> Any:
        started = time.thread_time()
        try:
            return work(*args, **kwargs)
        finally:
            with lock:
                spent[name] += time.thread_time() - started  # type: ignore[assignment]

    return measured


def shares(asked: BenchRequest, images: int) -> dict[str, float]:
    """Of the network's time: each part's, and the whole run's."""
    spec = decided_on(purifier_spec(asked, embedded_prior()), torch.device("cpu"))
    with tempfile.TemporaryDirectory() as text:
        stage._timed(spec, asked, Pictures(None, 32), Path(text) / "warm", shards=1, samples=64)
        spent.clear()
        seconds = stage._timed(
            spec, asked, Pictures(None, 32), Path(text) / "run", shards=4, samples=images // 4
        ).seconds
    return {name: round(value / spent["network"], 3) for name, value in {**spent, "whole": seconds}.items()}


def main() -> None:
    """Measure, and print a line for each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=384)
    images = parser.parse_args().images
    stage.time.perf_counter = time.process_time  # type: ignore[assignment]
    for name, (owner, function) in PARTS.items():
        setattr(owner, function, timed(name, getattr(owner, function)))
    for run in RUNS:
        print(run, shares(BenchRequest(prior="embedded", **run), images), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
