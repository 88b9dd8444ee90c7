"""What a purify run costs, beside the published loop and the bare network: same prior, images and machine.

    python benchmarks/purify.py --images 128 --rounds 3

Three contestants take turns, each in a process of its own, and each round's ratios are printed, so that neighbours on a
busy machine hurt all alike. ``floor``: nothing but the network's forward passes, at the best of several batch sizes and
thread layouts. ``zipbatch``: ``zipbatch purify`` in this process, from a shard on disk to a verified object in a store.
``published``: the reference loop restated from its description: float32, eager, default threads, a round trip through
host memory at every step, and three more PNGs an image (input, degraded, result) beside the result.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from zipbatch import images
from zipbatch.checkpoints import load_prior, open_prior
from zipbatch.cluster import Workers
from zipbatch.cluster.device import cpu_cores
from zipbatch.datasets import open_dataset
from zipbatch.diffusion import Prior, guided_sample, mean_projection, parse_projector, timesteps
from zipbatch.pixels import from_u8, to_u8
from zipbatch.shards import read_shard
from zipbatch.shards.writer import ShardWriter
from zipbatch.stages.assets import embedded_prior, sample_source
from zipbatch.stages.purify.job import PurifyJob
from zipbatch.stages.purify.plan import plan_purify
from zipbatch.stages.purify.request import PurifierRequest
from zipbatch.stages.purify.resolve import purifier_spec
from zipbatch.stages.purify.run import purify
from zipbatch.store import Store

STEPS, TRANSFORMS = 10, ("blur:2",)


def pixels_of(count: int) -> Tensor:
    """The first images of the embedded sample, uint8 [N, 3, 32, 32]."""
    shards = open_dataset([str(sample_source())]).split("test")
    found = [sample.image() for shard in shards for sample in read_shard(shard.path)][:count]
    return torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image in found]).contiguous()


def floor(count: int) -> float:
    """Images a second if only the network ran, at the best of several layouts."""
    prior = load_prior(open_prior(embedded_prior())).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    cores, best = cpu_cores(), 0.0
    calls = len(timesteps(len(prior.alpha_bar), STEPS, len(prior.alpha_bar)))
    for batch in (16, 32, 64):
        for compute_threads, threads in {(1, cores), (cores, 1)}:
            x = torch.randn(batch, 3, prior.image_size, prior.image_size)

            def work(_: int, x: Tensor = x, threads: int = threads) -> None:
                torch.set_num_threads(threads)
                with torch.inference_mode():
                    for _ in range(calls):
                        prior(x.contiguous(memory_format=torch.channels_last), 500)

            with ThreadPoolExecutor(compute_threads) as pool:
                pool.submit(work, 0).result()
                started = time.perf_counter()
                list(pool.map(work, range(max(compute_threads, count // batch))))
                seconds = time.perf_counter() - started
            best = max(best, max(compute_threads, count // batch) * batch / seconds)
    return best


def ours(count: int) -> float:
    """Images a second of a whole purify run: shard on disk to version in the store, loading of the prior included."""
    load_prior(open_prior(embedded_prior()))  # imports diffusers, which the others have done before their clock starts
    with tempfile.TemporaryDirectory() as folder:
        source, written = Path(folder) / "in", 0
        for shard in open_dataset([str(sample_source())]).split("test"):
            with ShardWriter(source) as writer:
                for sample in read_shard(shard.path):
                    if written < count:
                        writer.write(sample)
                        written += 1
                if writer.finish().samples:
                    writer.publish(source / shard.name)
        request = PurifierRequest(preset="paper", transforms=TRANSFORMS, steps=STEPS)
        spec = purifier_spec(request, embedded_prior())
        plan = plan_purify(
            PurifyJob(
                dataset=open_dataset([str(source)]), spec=spec, store=Store(Path(folder) / "pur"), workers=Workers()
            )
        )
        started = time.perf_counter()
        purify(plan)
        return count / (time.perf_counter() - started)


def published(count: int, batch: int = 32) -> float:
    """Images a second of the reference loop, restated."""
    prior = load_prior(open_prior(embedded_prior()))
    suspects = pixels_of(count)
    project = mean_projection([parse_projector(text) for text in TRANSFORMS])
    started = time.perf_counter()
    for rows in suspects.split(batch):  # type: ignore[no-untyped-call]
        y = from_u8(rows, "model")
        with torch.no_grad():
            x = _restated(prior, y, project)
        for stage in (y, project(y), x, x):
            for image in to_u8(stage, "model").permute(0, 2, 3, 1).numpy():
                images.encode_png(image)
    return count / (time.perf_counter() - started)


def _restated(prior: Prior, y: Tensor, project: Callable[[Tensor], Tensor]) -> Tensor:
    def predict(x_t: Tensor, t: int) -> Tensor:
        return prior(torch.from_numpy(x_t.numpy().copy()), t)  # type: ignore[no-any-return]

    return guided_sample(
        predict,
        y,
        alpha_bar=prior.alpha_bar,
        project=project,
        guidance_exponent=1.0,
        steps=STEPS,
        start_step=len(prior.alpha_bar),
        eta=1.0,
        noise_at=lambda _: torch.randn_like(y),
    )


CONTESTANTS = {"floor": floor, "zipbatch": ours, "published": published}


def _alone(name: str, count: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--only", name, "--images", str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 (ourselves)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Run the rounds, print each and the medians as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=CONTESTANTS)
    arguments = parser.parse_args()
    if arguments.only:
        rate = CONTESTANTS[arguments.only](arguments.images)
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"images_per_s": rate, "peak_mib": peak_mib}))  # noqa: T201
        return
    rounds = []
    for number in range(arguments.rounds):
        results = {name: _alone(name, arguments.images) for name in CONTESTANTS}
        rates = {name: result["images_per_s"] for name, result in results.items()}
        rounds.append(
            {"over_floor": rates["floor"] / rates["zipbatch"], "vs_published": rates["zipbatch"] / rates["published"]}
        )
        print(number, {name: round(rate, 2) for name, rate in rates.items()}, rounds[-1], flush=True)  # noqa: T201
        memory = {name: round(result["peak_mib"]) for name, result in results.items()}
    medians = {key: round(statistics.median(row[key] for row in rounds), 3) for key in rounds[0]}
    print(json.dumps({"steps": STEPS, **medians, "peak_mib": memory}))  # noqa: T201


if __name__ == "__main__":
    main()
