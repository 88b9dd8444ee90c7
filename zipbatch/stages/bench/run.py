"""``zipbatch bench``: a machine's parts, the network alone, and purify from end to end."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from zipbatch.checkpoints import load_prior
from zipbatch.cluster import Workers, pick_device
from zipbatch.cluster.device import cpu_cores
from zipbatch.datasets import open_dataset
from zipbatch.diffusion import Prior
from zipbatch.memory import total
from zipbatch.purifiers import Resources, SamplerSettings
from zipbatch.purifiers.diffusion_sampler import DiffusionSampler
from zipbatch.results import Benchmark, Foretold
from zipbatch.shards import read_shard
from zipbatch.stages.assets import prior_path
from zipbatch.stages.bench.pictures import Pictures
from zipbatch.stages.bench.rates import best_rows, flop_of, matrix_rate, network_rates, picture_rates
from zipbatch.stages.bench.request import BenchRequest
from zipbatch.stages.purify.build import exact_on
from zipbatch.stages.purify.identity import describe
from zipbatch.stages.purify.job import PurifyJob
from zipbatch.stages.purify.measured import Speed, device_name, remember
from zipbatch.stages.purify.plan import plan_purify
from zipbatch.stages.purify.precision import decided_on
from zipbatch.stages.purify.quarantine import Quarantine
from zipbatch.stages.purify.reading import SampleReader
from zipbatch.stages.purify.request import PurifySettings
from zipbatch.stages.purify.resolve import purifier_spec
from zipbatch.stages.purify.run import purify
from zipbatch.stages.purify.spec import PurifierSpec
from zipbatch.stages.purify.threads import compute_threads
from zipbatch.store import Store
from zipbatch.strays import Tally

PARTS = 3
_USUAL_SIDE = 32
_SHARDS = 4
"""Of a measured run: neighbours overlap, as they do in a long one."""
_PART_S = 0.1
"""Of the time for a run, the time for each of a machine's parts."""


@dataclass(frozen=True, kw_only=True)
class _Network:
    """Of a network alone: operations a second that matrices reach, operations of a pass, passes a second by rows."""

    matrix: float
    flop: int
    rates: dict[int, float]


@dataclass(frozen=True, kw_only=True)
class _Run:
    """Purify from end to end, of one worker; ``calls`` of the network an image."""

    speed: Speed
    calls: float


def bench(asked: BenchRequest, *, tell: Callable[[str, int], None] = lambda _what, _done: None) -> Benchmark:
    """Measure, and remember what was measured.

    Args:
        asked: what is measured.
        tell: called with what is measured next, and how many of ``PARTS`` are.

    Raises:
        UsageError: a prior or preset that is not there or does not fit, or no images to measure with.
        DataError: an image that cannot be read.
        WorkFailed: images cannot be purified.
    """
    device = pick_device(asked.device)
    spec = decided_on(purifier_spec(asked, prior_path(asked.prior) if asked.prior else None), device)
    with tempfile.TemporaryDirectory(prefix="zipbatch-bench-") as folder:
        pictures = Pictures(asked.data, _USUAL_SIDE if spec.prior is None else spec.prior.image_size)
        tell("reading, decoding and encoding", 0)
        shards = pictures.write(Path(folder) / "few", shards=1, samples=64)
        side, per_row = _first(shards[0], spec)
        codec = picture_rates(shards, seconds=_PART_S * asked.seconds)
        tell("the network alone", 1)
        network = None if spec.prior is None else _network(spec, device, asked.seconds)
        tell("a run from shards to a store", 2)
        run = _purified(spec, asked, pictures, Path(folder), per_row=per_row)
    remember(run.speed, spec, device, batch_size=asked.batch_size, image_size=side)
    return _result(spec, asked, device, side=side, per_row=per_row, codec=codec, network=network, run=run)


def _first(shard: Path, spec: PurifierSpec) -> tuple[int, int]:
    """Side of the first image, and how many of its size share a row of the network's batch.

    Raises:
        DataError: it cannot be read, or cannot be purified.
    """
    sample = next(read_shard(shard))
    reader = SampleReader(spec, keep_others=True, heartbeat=lambda: None)
    (readable,) = reader.readable([sample], Quarantine(None), Tally())
    return sample.image().shape[0], readable.images_per_row


def _network(spec: PurifierSpec, device: torch.device, seconds: float) -> _Network:
    assert spec.prior is not None
    exact_on(device)
    threads = 1 if device.type == "cuda" else cpu_cores()
    prior = load_prior(spec.prior).to(device)
    flop = flop_of(prior, device)
    resources = Resources(device=device, prior=prior, precision=spec.precision)
    sampler = DiffusionSampler(SamplerSettings.model_validate({"steps": 1}), resources)
    room = total() // 2 // threads // spec.prior.canvas_bytes if device.type == "cpu" else 2**31
    rates = network_rates(
        sampler.predict,
        spec.prior.image_size,
        device=device,
        threads=threads,
        most_rows=room,
        seconds=_PART_S * seconds,
    )
    dtype = getattr(torch, spec.precision, torch.float32)  # of tf32, which torch has no type for
    matrix = matrix_rate(device, dtype, threads=threads, seconds=_PART_S * seconds)
    return _Network(matrix=matrix, flop=flop, rates=rates)


def _purified(spec: PurifierSpec, asked: BenchRequest, pictures: Pictures, folder: Path, *, per_row: int) -> _Run:
    """Three runs: one to warm up, in which the network's calls are counted, a short and a long one."""
    threads = compute_threads(pick_device(asked.device), cpu_cores())
    least = asked.batch_size * per_row * threads
    with _CountedRows() as rows:
        warm = _timed(spec, asked, pictures, folder / "warm", shards=1, samples=least)
    short = _timed(spec, asked, pictures, folder / "short", shards=1, samples=least)
    batches = max(1, math.ceil(asked.seconds / max(short.seconds, 1e-3)))
    long = _timed(spec, asked, pictures, folder / "long", shards=_SHARDS, samples=least * math.ceil(batches / _SHARDS))
    per_s = (long.images - short.images) / max(long.seconds - short.seconds, 1e-6)
    if long.seconds <= short.seconds:  # a machine that others use may do anything
        per_s = long.images / long.seconds
    return _Run(
        speed=Speed(
            start_s=max(0.0, short.seconds - short.images / per_s),
            images_per_s=per_s,
            store_bytes_per_image=long.stored / long.images,
        ),
        calls=rows.count * per_row / warm.images or float(spec.calls[1]),
    )


@dataclass(frozen=True, kw_only=True)
class _Timed:
    """A run: how many images, seconds, and bytes in the store."""

    images: int
    seconds: float
    stored: int


def _timed(
    spec: PurifierSpec, asked: BenchRequest, pictures: Pictures, folder: Path, *, shards: int, samples: int
) -> _Timed:
    pictures.write(folder / "in", shards=shards, samples=samples)
    store = Store(folder / "pur")
    job = PurifyJob(
        dataset=open_dataset([str(folder / "in")]),
        spec=spec,
        store=store,
        workers=Workers(device=asked.device),
        settings=PurifySettings(batch_size=asked.batch_size, other_images="keep"),
    )
    started = time.perf_counter()
    done = purify(plan_purify(job))
    seconds = time.perf_counter() - started
    stored = sum(file.stat().st_size for file in (folder / "pur").rglob("*") if file.is_file())
    return _Timed(images=done.samples, seconds=seconds, stored=stored)


class _CountedRows:
    """Within, counts the rows that go through priors."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> _CountedRows:
        self._hook = nn.modules.module.register_module_forward_pre_hook(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()

    def _note(self, module: nn.Module, given: tuple[object, ...]) -> None:
        if isinstance(module, Prior):
            self.count += len(given[0])  # type: ignore[arg-type]


def _result(
    spec: PurifierSpec,
    asked: BenchRequest,
    device: torch.device,
    *,
    side: int,
    per_row: int,
    codec: tuple[float, float, float],
    network: _Network | None,
    run: _Run,
) -> Benchmark:
    speed = run.speed
    read, decode, encode = codec
    floor = None if network is None else max(network.rates.values()) * per_row / run.calls
    used = None if network is None else speed.images_per_s * run.calls * network.flop / per_row / network.matrix
    return Benchmark(
        device=device_name(device),
        purifier=describe(spec.identity),
        precision=None if network is None else spec.precision,
        image_size=side,
        batch_size=asked.batch_size,
        matrix_tflop_per_s=None if network is None else network.matrix / 1e12,
        gflop_per_pass=None if network is None else network.flop / per_row / 1e9,
        calls=None if network is None else run.calls,
        passes_per_s={} if network is None else {rows: rate * per_row for rows, rate in network.rates.items()},
        best_batch=None if network is None else best_rows(network.rates),
        floor_images_per_s=floor,
        images_per_s=speed.images_per_s,
        start_s=speed.start_s,
        efficiency=None if floor is None else speed.images_per_s / floor,
        mfu=used,
        read_images_per_s=read,
        decode_images_per_s=decode,
        encode_images_per_s=encode,
        store_bytes_per_image=speed.store_bytes_per_image,
        foretold=None if asked.images is None else _foretold(speed, asked.images, asked.gpus),
    )


def _foretold(speed: Speed, images: int, gpus: int) -> Foretold:
    return Foretold(
        images=images,
        gpus=gpus,
        hours=speed.seconds(images, workers=gpus) / 3600,
        store_gb=images * speed.store_bytes_per_image / 1e9,
    )
