"""What ``--compile on`` gives and takes here: seconds to compile, time of a purifier beside eager mode, pixels.

    python benchmarks/compiled.py --precision bfloat16 --preset balanced

Both take turns in this process, on the embedded sample, half of which gets a white corner, for ``repaint`` to work on.
Times are the CPU's own, so that neighbours on a busy machine hurt little.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
from torch import Tensor

import zipbatch
from zipbatch.datasets import open_dataset
from zipbatch.shards import read_shard
from zipbatch.stages.assets import sample_source


def pictures(count: int) -> Tensor:
    """The first images of the embedded sample, every other one with a white corner, uint8 [N, 3, 32, 32]."""
    shards = open_dataset([str(sample_source())]).split("test")
    found = [torch.from_numpy(sample.image()) for shard in shards for sample in read_shard(shard.path)][:count]
    pixels = torch.stack(found).permute(0, 3, 1, 2).contiguous()
    pixels[::2, :, -4:, -4:] = 255
    return pixels


def main() -> None:
    """Compile, take turns, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", default="bfloat16", choices=["float32", "bfloat16"])
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    pixels = pictures(asked.images)
    forms = {
        how: zipbatch.load_purifier(asked.preset, prior="embedded", precision=asked.precision, compile=how)
        for how in ("off", "on")
    }
    started = time.monotonic()
    forms["on"](pixels[:32])
    seconds = time.monotonic() - started
    made = {how: purify(pixels) for how, purify in forms.items()}
    apart = (made["off"].int() - made["on"].int()).abs()
    taken: dict[str, list[float]] = {how: [] for how in forms}
    for _ in range(asked.rounds):
        for how, purify in forms.items():
            started = time.process_time()
            purify(pixels)
            taken[how].append(time.process_time() - started)
    result = {
        "compiled_in_s": round(seconds, 1),
        "ratio": round(statistics.median(taken["on"]) / statistics.median(taken["off"]), 3),
        "eager_s_per_image": round(statistics.median(taken["off"]) / len(pixels), 5),
        "equal": round(float((apart == 0).double().mean()), 4),
        "within_1_level": round(float((apart <= 1).double().mean()), 4),
        "most_levels": int(apart.max()),
    }
    print(json.dumps(vars(asked) | result))  # noqa: T201


if __name__ == "__main__":
    main()
