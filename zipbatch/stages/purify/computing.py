"""Batches of a shard, purified on compute threads within the memory there is."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextvars import copy_context
from functools import partial

import torch

from zipbatch.cluster import WorkerContext
from zipbatch.errors import DataError
from zipbatch.memory import Room, total
from zipbatch.purifiers import Purifier
from zipbatch.purifiers.base import NonFiniteError
from zipbatch.shards import Sample
from zipbatch.stages.purify.batching import Batch, Purified, batches, note_slots, results
from zipbatch.stages.purify.busy import Busy
from zipbatch.stages.purify.halving import Halving
from zipbatch.stages.purify.masks import forget_masks, kept_masks
from zipbatch.stages.purify.passes import Passes
from zipbatch.stages.purify.reading import Readable
from zipbatch.stages.purify.spec import PurifierSpec
from zipbatch.stages.purify.threads import compute_pool, compute_threads
from zipbatch.store import SlotRun

BATCH_BYTES = 256 * 1024**2
"""Of the samples of a batch for a prior; what they hold beside their images is hardly ever so much."""


class BatchComputer:
    """Purifies batches, several at once. Shared by the threads of a worker, each of which has a shard in hand.

    Each computation runs on a compute thread of its own, with a single intra-op thread, so that its result does not
    depend on how many cores there are or how many workers share them.

    Args:
        purifier: what is done to the pixels.
        spec: what it was built from.
        context: threads, memory and heartbeat of the worker.
        device: where the purifier computes.
        batch_rows: the most rows of a batch.
    """

    def __init__(
        self, purifier: Purifier, spec: PurifierSpec, context: WorkerContext, device: torch.device, *, batch_rows: int
    ) -> None:
        self._purifier, self._spec, self._context, self._device = purifier, spec, context, device
        self._threads = compute_threads(device, context.compute_threads)
        self._held = context.memory // 2 // context.in_flight
        self._room = Room(context.memory // 2 if spec.prior is None else total() // 2)
        self._batch_rows, self._halving = batch_rows, Halving(batch_rows)
        self._pool = compute_pool(device, self._threads)

    def purified(
        self, samples: Iterable[Readable], runs: list[SlotRun], passes: Passes, busy: Busy
    ) -> Iterator[Sample]:
        """Purified samples in order, with at most one batch a compute thread waiting, fewer where images are large.

        ``runs`` gains where each one was, ``busy`` what they took.
        """
        window: deque[tuple[Batch, Future[Purified]]] = deque()
        try:
            for batch in batches(samples, rows=self._batch_rows, max_bytes=self._max_bytes):
                while window and sum(one.size for one, _ in window) + batch.size > self._held:
                    yield from _finished(*window.popleft())
                note_slots(batch, runs)
                window.append((batch, self._pool.submit(copy_context().run, self._compute, batch, passes, busy)))
                if len(window) > self._threads:
                    yield from _finished(*window.popleft())
            while window:
                yield from _finished(*window.popleft())
        finally:
            for _, future in window:
                future.cancel()

    @property
    def _max_bytes(self) -> int:
        """Of a batch. With a prior that is fixed, whatever memory there is: what shares a batch may decide pixels."""
        if self._spec.prior is not None:
            return BATCH_BYTES
        room = 3 * (self._context.memory // 2) // self._threads // self._spec.working_bytes
        return min(self._held // (self._threads + 1), room)  # every compute thread has room for one

    def _compute(self, batch: Batch, passes: Passes, busy: Busy) -> Purified:
        with kept_masks() as masks, busy.working():
            pixels = self._compute_pixels(batch, passes, forget=partial(forget_masks, masks))
        return Purified(pixels, masks if self._spec.asked.keep_masks else {})

    def _compute_pixels(self, batch: Batch, passes: Passes, *, forget: Callable[[Sequence[str]], None]) -> torch.Tensor:
        """Purify a batch, in pieces that fit."""
        keys = [sample.key for sample in batch.samples]

        def purified(rows: slice) -> torch.Tensor:
            self._context.heartbeat()
            try:
                with (
                    self._room.take(self._cost(batch, rows), heartbeat=self._context.heartbeat),
                    passes.piece(len(keys[rows])),
                ):
                    return self._purifier(batch.pixels[rows], keys[rows])
            except NonFiniteError as error:
                raise DataError(batch.samples[0].shard, str(error), key=error.key) from error

        def undo(rows: slice) -> None:
            forget(keys[rows])

        return torch.cat(
            list(self._halving.pieces(len(keys), purified, images_per_row=batch.images_per_row, undo=undo))
        )

    def _cost(self, batch: Batch, rows: slice) -> int:
        """About what purifying these rows takes in this machine's memory."""
        if self._device.type == "cuda":
            return 0
        if self._spec.prior is not None:
            return len(batch.samples[rows]) * self._spec.prior.canvas_bytes // batch.images_per_row
        return batch.pixels[rows].nbytes * self._spec.working_bytes


def _finished(batch: Batch, future: Future[Purified]) -> Iterator[Sample]:
    return results(batch, future.result())
