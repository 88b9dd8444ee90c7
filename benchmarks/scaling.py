"""What many workers and many shards cost: python benchmarks/scaling.py [--shards 10000]

1. Purify with a network that only waits, half a second a shard, on one and on eight logical GPUs of one Ray cluster;
   start-up is left out: the clock runs from the moment when every worker has answered.
2. Purify that many tiny shards on two workers: CPU time and memory of the driver.
"""

from __future__ import annotations

import os
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import click
import numpy as np
from torch import Tensor

from zipbatch import images
from zipbatch.cluster import WorkerContext, Workers, run_tasks
from zipbatch.config.models import Settings
from zipbatch.datasets import open_dataset
from zipbatch.purifiers import PURIFIERS, Purifier, Resources
from zipbatch.report.progress import Progress
from zipbatch.shards import Sample, ShardWriter
from zipbatch.stages.purify.job import PurifyJob
from zipbatch.stages.purify.plan import plan_purify
from zipbatch.stages.purify.request import PurifierRequest
from zipbatch.stages.purify.resolve import purifier_spec
from zipbatch.stages.purify.run import purify
from zipbatch.stages.purify.worker import PurifySetup
from zipbatch.store import Store

WAIT_S = 0.5


class WaitSettings(Settings):
    """None."""


class Wait(Purifier):
    """Leaves images as they are, after a while."""

    settings_type: ClassVar[type[Settings]] = WaitSettings
    source: ClassVar[str] = "a network that takes its time and no core"

    def __init__(self, settings: WaitSettings, resources: Resources) -> None:
        pass

    def __call__(self, images: Tensor, keys: Sequence[str]) -> Tensor:  # noqa: ARG002
        time.sleep(WAIT_S)
        return images


@dataclass(frozen=True)
class Registered:
    """Builds a purify worker where ``wait`` is known."""

    setup: PurifySetup

    def __call__(self, context: WorkerContext) -> Callable[[Any], Any]:
        from zipbatch import purifiers  # the worker's own, not a copy that travelled with this class

        purifiers.PURIFIERS["wait"] = Wait
        return self.setup(context)


def write_shards(folder: Path, count: int, *, size: int, samples: int) -> Path:
    """``count`` shards of small random images."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        with ShardWriter(folder) as writer:
            for i in range(samples):
                pixels = rng.integers(0, 256, (size, size, 3)).astype(np.uint8)
                writer.write(Sample(f"{number:06d}-{i}", {"png": images.encode_png(pixels)}))
            writer.finish()
            writer.publish(folder / f"test-{number:06d}.tar")
    return folder


def shards_per_s(address: str, gpus: int, source: Path, store: Store) -> float:
    """Steady rate of a purify on so many logical GPUs."""
    workers = Workers(gpus=gpus, address=address, device="cpu")
    plan = plan_purify(
        PurifyJob(
            dataset=open_dataset([str(source)]),
            spec=purifier_spec(PurifierRequest(purifier="wait")),
            store=store,
            workers=workers,
        )
    )
    store.prepare()
    setup = Registered(PurifySetup(spec=plan.job.spec, store=store.root, batch_size=64))
    seen: set[int] = set()
    times: list[float] = []
    with closing(run_tasks(setup, plan.tasks, workers)) as outcomes:
        for outcome in outcomes:
            assert outcome.error is None, outcome.error
            if len(seen) == gpus:
                times.append(time.monotonic())
            seen.add(outcome.result.record.worker["pid"])
    return (len(times) - 1) / (times[-1] - times[0])


def memory_mib() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


@click.command()
@click.option("--shards", type=click.IntRange(10), default=10_000, show_default=True, metavar="N")
@click.option("--gpus", type=click.IntRange(2), default=8, show_default=True, metavar="N")
def main(shards: int, gpus: int) -> None:
    """Measure, and print a line for each figure."""
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")

    from ray.cluster_utils import Cluster

    PURIFIERS["wait"] = Wait
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        few = write_shards(folder / "few", 40, size=8, samples=8)
        many = write_shards(folder / "many", 40 * gpus, size=8, samples=8)
        node = {"num_cpus": 2, "num_gpus": gpus, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=node)
        one = shards_per_s(cluster.address, 1, few, Store(folder / "one"))
        all_ = shards_per_s(cluster.address, gpus, many, Store(folder / "all"))
        cluster.shutdown()
        click.echo(f"{WAIT_S} s a shard: 1 worker {one:.3f}, {gpus} workers {all_:.3f} shards/s, x {all_ / one:.2f}")

        tiny = write_shards(folder / "tiny", shards, size=8, samples=1)
        spec, workers = purifier_spec(PurifierRequest(purifier="blur")), Workers(workers=2, device="cpu")
        marks: list[tuple[int, float, float]] = []

        def mark(progress: Progress) -> None:
            done = progress.part("shards").done
            if done % (shards // 10) == 0:
                marks.append((done, time.process_time(), memory_mib()))

        began, cpu = time.monotonic(), time.process_time()
        plan = plan_purify(
            PurifyJob(dataset=open_dataset([str(tiny)]), spec=spec, store=Store(folder / "pur"), workers=workers)
        )
        planned = time.process_time() - cpu
        summary = purify(plan, on_progress=mark)
        used, wall = time.process_time() - cpu, time.monotonic() - began
        assert summary.computed == shards
        (first, cpu_first, memory_first), (last, cpu_last, memory_last) = marks[0], marks[-1]
        running = (cpu_last - cpu_first) / (last - first)
        click.echo(f"{shards} shards in {wall:.0f} s: driver {1000 * used / shards:.2f} ms of CPU a shard in all,")
        click.echo(f"  {1000 * planned / shards:.2f} ms of it to plan, {1000 * running:.2f} ms while running;")
        click.echo(f"  memory {memory_first:.0f} MiB after {first} shards, {memory_last:.0f} MiB after {last}")


if __name__ == "__main__":
    main()
