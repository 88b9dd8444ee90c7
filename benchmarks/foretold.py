"""What ``zipbatch bench`` foretells beside the runs that it foretells: python benchmarks/foretold.py [--rounds 3]

Both take turns in one process, and both are told in the CPU's own time, which others on the machine do not lengthen.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import torch

from zipbatch.stages.assets import embedded_prior
from zipbatch.stages.bench import run as stage
from zipbatch.stages.bench.pictures import Pictures
from zipbatch.stages.bench.request import BenchRequest
from zipbatch.stages.purify.precision import decided_on
from zipbatch.stages.purify.resolve import purifier_spec

RUNS = {"fast": 1500, "balanced": 600, "paper": 240}
SHARDS, SECONDS = 6, 15


def ratio(preset: str, images: int) -> float:
    """Seconds that are foretold, of those that the run took."""
    asked = BenchRequest(prior="embedded", preset=preset, seconds=SECONDS)
    spec = decided_on(purifier_spec(asked, embedded_prior()), torch.device("cpu"))
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        speed = stage._purified(spec, asked, Pictures(None, 32), folder, per_row=1).speed
        real = stage._timed(
            spec, asked, Pictures(None, 32), folder / "real", shards=SHARDS, samples=images // SHARDS
        ).seconds
    return speed.seconds(images, workers=1) / real


def main() -> None:
    """Run the rounds, print each and the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    stage.time = SimpleNamespace(perf_counter=time.process_time)  # type: ignore[assignment]
    for preset, images in RUNS.items():
        found = [round(ratio(preset, images), 3) for _ in range(rounds)]
        print(preset, images, "images:", found, "median", statistics.median(found), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
