"""Rates of a machine's parts: matrix products, a network alone, decoding and encoding."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from zipbatch import images
from zipbatch.diffusion import Prior
from zipbatch.shards import read_shard

_MOST_ROWS = 1024
_GAIN, _PATIENCE = 1.03, 2
"""A batch is better that is so many times as fast; after so many doublings without one there is none."""
_STEP = 500


def per_s(work: Callable[[], object], *, device: torch.device, threads: int, seconds: float) -> float:
    """How often a second ``work`` is done on so many threads at once, each with one core of its own, or by a GPU.

    Args:
        work: what is done; at least once on each thread, after once to warm up.
        device: where; of a GPU all that was launched is waited for.
        threads: at once; on a GPU one.
        seconds: after which none is begun any more.
    """

    def worked() -> int:
        done = 0
        while done == 0 or time.perf_counter() < until:
            work()
            done += 1
            if device.type == "cuda" and done % 8 == 0:
                torch.cuda.synchronize(device)
        return done

    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        list(pool.map(lambda _: work(), range(threads)))
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        started = time.perf_counter()
        until = started + seconds
        done = sum(pool.map(lambda _: worked(), range(threads)))
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return done / (time.perf_counter() - started)


def matrix_rate(device: torch.device, dtype: torch.dtype, *, threads: int, seconds: float) -> float:
    """Floating-point operations a second of products of square matrices."""
    side = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 * per_s(lambda: a @ b, device=device, threads=threads, seconds=seconds)


def flop_of(prior: Prior, device: torch.device) -> int:
    """Floating-point operations of a forward pass of one canvas."""
    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode():
        prior(torch.zeros(1, 3, prior.image_size, prior.image_size, device=device), _STEP)
    return counter.get_total_flops()


def network_rates(
    predict: Callable[[torch.Tensor, int], torch.Tensor],
    side: int,
    *,
    device: torch.device,
    threads: int,
    most_rows: int,
    seconds: float,
) -> dict[int, float]:
    """Canvases a second that go once through a network, by rows of a batch: 1, 2, 4, … until more are no faster, or
    take longer than there is time.

    Args:
        predict: (canvases [B, 3, side, side], t) -> the network's estimate.
        side: of the canvases, pixels.
        device: where it computes.
        threads: batches at once.
        most_rows: that memory has room for.
        seconds: for each size of a batch.
    """
    rates: dict[int, float] = {}
    rows = 1
    while rows <= min(_MOST_ROWS, max(1, most_rows)) and not _settled(list(rates.values())):
        x = torch.randn(rows, 3, side, side, device=device)

        @torch.inference_mode()
        def once(x: torch.Tensor = x) -> torch.Tensor:
            return predict(x, _STEP)

        try:
            rates[rows] = rows * per_s(once, device=device, threads=threads, seconds=seconds)
        except torch.OutOfMemoryError:
            break
        if rows * threads / rates[rows] > seconds:
            break
        rows *= 2
    return rates


def _settled(rates: Sequence[float]) -> bool:
    """Whether the last doublings have brought nothing."""
    return len(rates) > _PATIENCE and max(rates[-_PATIENCE:]) < _GAIN * max(rates[:-_PATIENCE])


def best_rows(rates: dict[int, float]) -> int:
    """The fewest rows of a batch that are about as fast as any."""
    return next(rows for rows, rate in rates.items() if rate * _GAIN >= max(rates.values()))


def picture_rates(shards: Sequence[Path], *, seconds: float) -> tuple[float, float, float]:
    """Images a second that one core reads, as bytes, that it decodes, and that it encodes as PNG."""
    samples = [sample for shard in shards for sample in read_shard(shard)]
    pixels = [sample.image() for sample in samples]

    def reading() -> Iterator[object]:
        for shard in shards:
            yield from read_shard(shard)

    def rate(work: Callable[[], Iterator[object]]) -> float:
        started, done = time.perf_counter(), 0
        while done == 0 or time.perf_counter() < started + seconds:
            for _ in work():
                done += 1
                if time.perf_counter() > started + seconds:
                    break
        return done / (time.perf_counter() - started)

    return (
        rate(reading),
        rate(lambda: (sample.image() for sample in samples)),
        rate(lambda: (images.encode_png(image) for image in pixels)),
    )
