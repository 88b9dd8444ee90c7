"""Purify one shard: what a worker does."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from zipbatch import __version__, images, storage
from zipbatch.cluster import WorkerContext, pick_device
from zipbatch.diffusion.tiling import DoesNotTileError
from zipbatch.errors import DataError
from zipbatch.logs import utc
from zipbatch.memory import Room, total
from zipbatch.purifiers import Purifier
from zipbatch.purifiers.base import NonFiniteError
from zipbatch.shards import Sample, read_shard
from zipbatch.shards.digest import listed_digest
from zipbatch.stages.purify.build import build_purifier
from zipbatch.stages.purify.busy import Busy
from zipbatch.stages.purify.halving import Halving
from zipbatch.stages.purify.masks import MASK, encoded, forget_masks, keep_masks, kept_masks
from zipbatch.stages.purify.passes import Passes, begin_pass
from zipbatch.stages.purify.publish import despite_gc
from zipbatch.stages.purify.quarantine import Quarantine
from zipbatch.stages.purify.spec import PurifierSpec
from zipbatch.storage import Stamp, StoragePath
from zipbatch.store import SlotRun, Store, TaskRecord, task_key
from zipbatch.strays import Tally

log = logging.getLogger(__name__)
_OTHER_IMAGES = "holds other images"
BATCH_BYTES = 256 * 1024**2
"""Of the samples of a batch for a prior; what they hold beside their images is hardly ever so much."""


@dataclass(frozen=True)
class PurifyTask:
    """One shard to purify. ``sha256`` is what a manifest says of it, None when nobody knows yet."""

    name: str
    path: StoragePath
    sha256: str | None


@dataclass(frozen=True)
class PurifyResult:
    """The record in the store, whether it was there already, and the shard's stamp before it was read."""

    record: TaskRecord
    reused: bool
    stamp: Stamp


@dataclass(frozen=True)
class PurifySetup:
    """Builds a ``PurifyWorker`` wherever it is called; picklable. ``quarantine``: go on without unreadable samples.
    ``keep``: pass images beside a sample's own on as they are.
    """

    spec: PurifierSpec
    store: StoragePath
    batch_size: int
    quarantine: bool = False
    keep: bool = False

    def __call__(self, context: WorkerContext) -> PurifyWorker:
        return PurifyWorker(self, context)


def acceptable(record: TaskRecord, *, quarantine: bool, keep: bool) -> bool:
    """Whether what a record tells of is what a run with these settings would make, or comes as near as it can."""
    if record.quarantined and not quarantine:
        return False
    if keep:
        return not any(reason.startswith(_OTHER_IMAGES) for reason in record.reasons.values())
    return not record.other_images


@dataclass(frozen=True)
class _Readable:
    """A sample without its image, and that decoded: uint8 [H, W, 3], resized where it was to be.

    ``unit`` images of that size go to a row, ``out`` is the height and width that it comes out with.
    """

    sample: Sample
    image: images.U8
    unit: int
    out: tuple[int, int]

    @property
    def size(self) -> int:
        """Bytes that it takes while it is in hand: what else it holds, its image decoded, in a batch, and purified."""
        return self.sample.size + 3 * self.image.nbytes


@dataclass(frozen=True)
class _Batch:
    """Consecutive samples of one size; ``pixels`` uint8 [N, 3, H, W], ``unit`` images to a row of the network.

    ``out`` are the heights and widths that they come out with, ``size`` the bytes that all of it takes.
    """

    samples: list[Sample]
    pixels: torch.Tensor
    unit: int
    out: list[tuple[int, int]]
    size: int


@dataclass(frozen=True)
class _Purified:
    """What became of a batch: pixels uint8 [N, 3, H, W], and masks by key, bool [H, W], where they are kept."""

    pixels: torch.Tensor
    masks: Mapping[str, torch.Tensor]


class _Counted:
    """Counts what passes: the samples that went in, independent of those that came out."""

    def __init__(self, samples: Iterator[Sample]) -> None:
        self._samples, self.count = samples, 0

    def __iter__(self) -> Iterator[Sample]:
        for sample in self._samples:
            self.count += 1
            yield sample


class PurifyWorker:
    """Owns a loaded purifier. Called from several threads: one reads or writes a shard while others compute.

    Each computation runs on a compute thread of its own, with a single intra-op thread, so that its result does not
    depend on how many cores there are or how many workers share them.
    """

    def __init__(self, setup: PurifySetup, context: WorkerContext) -> None:
        self._spec, self._context = setup.spec, context
        self._identity, self._quarantine, self._keep = setup.spec.identity, setup.quarantine, setup.keep
        self._store = Store(setup.store)
        self._device = pick_device(context.device)
        self._purifier: Purifier = build_purifier(
            setup.spec,
            self._device,
            heartbeat=context.heartbeat,
            begin_pass=begin_pass,
            keep_masks=keep_masks,
            local=context.local,
        )
        self._compute_threads = 1 if self._device.type == "cuda" else context.compute_threads
        self._held = context.memory // 2 // context.in_flight
        self._room = Room(context.memory // 2 if setup.spec.prior is None else total() // 2)
        self._batch_rows, self._halving = setup.batch_size, Halving(setup.batch_size)
        self._pool = ThreadPoolExecutor(
            self._compute_threads, "compute", initializer=torch.set_num_threads, initargs=(1,)
        )

    def __call__(self, task: PurifyTask) -> PurifyResult:
        """Purify a shard into the store, or find it there.

        Raises:
            DataError: the shard is not what it claims to be, a sample cannot be read and there is no quarantine for
                it, or one cannot be purified; nothing is published.
        """
        return despite_gc(lambda: self._purified_shard(task))

    def _purified_shard(self, task: PurifyTask) -> PurifyResult:
        stamp = storage.stamp(task.path)
        digest = listed_digest(task.path, task.sha256)
        key = task_key(digest, self._identity)
        known = self._store.sound_task(key)
        fits = known is not None and known.input_sha256 == digest
        if known is not None and fits and acceptable(known, quarantine=self._quarantine, keep=self._keep):
            return PurifyResult(known, reused=True, stamp=stamp)
        started = time.monotonic()
        passed_over, kept, runs, busy = Tally(), Tally(), list[SlotRun](), Busy(self._device)
        source = _Counted(read_shard(task.path, sha256=digest, imageless=self._quarantine, strays=passed_over))
        with self._store.new_object() as writer, Quarantine(self._store if self._quarantine else None) as aside:
            passes = Passes(self._context.progress, self._spec.passes)
            for sample in self._purified(self._readable(source, aside, kept), runs, passes, busy):
                self._context.heartbeat()
                writer.write(sample)
            info = writer.finish()
            if storage.stamp(task.path) != stamp:
                raise DataError(task.path, "changed while it was read; run again")
            if source.count != info.samples + len(aside.reasons):
                raise RuntimeError(f"{task.name}: {source.count} samples in, {info.samples} out")
            quarantine = aside.publish()
            self._store.publish_object(writer, info)
        record = TaskRecord(
            input_sha256=digest,
            output_sha256=info.sha256,
            samples_in=source.count,
            samples_out=info.samples,
            quarantined=list(aside.reasons),
            quarantine_sha256=quarantine,
            reasons=aside.reasons,
            slots=runs,
            other_images=kept.count,
            passed_over=passed_over.count,
            seconds=round(time.monotonic() - started, 3),
            device=self._device_name(),
            worker=self._context.label,
            versions={"zipbatch": __version__, "torch": torch.__version__},
            calls=self._spec.calls,
            busy_s=round(busy.seconds, 6),
            made=utc(time.time()),
        )
        self._store.put_task(key, record)
        if passed_over.count:
            log.warning("%s: passed over members that are no samples: %s", task.name, passed_over)
        return PurifyResult(record, reused=False, stamp=stamp)

    def _readable(self, samples: Iterable[Sample], aside: Quarantine, kept: Tally) -> Iterator[_Readable]:
        """Samples that can be read, in order, as if the others, which go into quarantine, had never been there.

        ``kept`` gains their other images.
        """
        for sample in samples:
            self._context.heartbeat()
            try:
                readable = self._read(sample)
            except DataError as error:
                aside.take(sample, error)
            else:
                for extension in sample.other_images if self._keep else ():  # else they were refused
                    kept.add(f"{sample.key}.{extension}")
                yield readable

    def _read(self, sample: Sample) -> _Readable:
        if not self._keep and (others := sample.other_images):
            raise DataError(sample.shard, _refusal(sample, others), key=sample.key)
        if self._spec.asked.keep_masks and MASK in sample.members:
            reason = f"has a member {MASK} of its own, where --keep-masks puts the mask; purify it without"
            raise DataError(sample.shard, reason, key=sample.key)
        image = original = sample.image()
        try:
            if self._spec.asked.resize is not None and self._spec.prior is not None:
                image = self._fitting(image, self._spec.prior.image_size, self._spec.asked.resize)
            height, width = (original if self._spec.output_size == "input" else image).shape[:2]
            return _Readable(sample.without_image(), image, self._spec.row_of(*image.shape[:2]), (height, width))
        except ValueError as error:
            raise DataError(sample.shard, str(error), key=sample.key) from error

    def _fitting(self, image: images.U8, size: int, policy: str) -> images.U8:
        try:
            self._spec.row_of(*image.shape[:2])
        except DoesNotTileError:
            return images.resize(image, size, policy=policy)
        return image

    def _purified(
        self, samples: Iterable[_Readable], runs: list[SlotRun], passes: Passes, busy: Busy
    ) -> Iterator[Sample]:
        """Purified samples in order, with at most one batch a compute thread waiting, fewer where images are large.

        ``runs`` gains where each one was, ``busy`` what they took.
        """
        window: deque[tuple[_Batch, Future[_Purified]]] = deque()
        try:
            for batch in self._batches(samples):
                while window and sum(one.size for one, _ in window) + batch.size > self._held:
                    yield from _results(*window.popleft())
                _note(batch, runs)
                window.append((batch, self._pool.submit(copy_context().run, self._compute, batch, passes, busy)))
                if len(window) > self._compute_threads:
                    yield from _results(*window.popleft())
            while window:
                yield from _results(*window.popleft())
        finally:
            for _, future in window:
                future.cancel()

    def _batches(self, samples: Iterable[_Readable]) -> Iterator[_Batch]:
        """Whole rows of images of one size, as many as were asked for or as memory takes.

        With a prior that is a fixed size, whatever memory there is: its pixels may depend on what shares a batch.
        """
        held: list[_Readable] = []
        size, limit = 0, BATCH_BYTES
        if self._spec.prior is None:  # every compute thread has room for one
            room = 3 * (self._context.memory // 2) // self._compute_threads // self._spec.working_bytes
            limit = min(self._held // (self._compute_threads + 1), room)
        for one in samples:
            full = held and (len(held) == self._batch_rows * one.unit or (size >= limit and len(held) % one.unit == 0))
            if held and (full or one.image.shape != held[0].image.shape):
                batch, held, size = _batch(held), [], 0
                yield batch
            held.append(one)
            size += one.size
        if held:
            yield _batch(held)

    def _compute(self, batch: _Batch, passes: Passes, busy: Busy) -> _Purified:
        with kept_masks() as masks, busy.working():
            pixels = self._compute_pixels(batch, passes, forget=partial(forget_masks, masks))
        return _Purified(pixels, masks if self._spec.asked.keep_masks else {})

    def _compute_pixels(
        self, batch: _Batch, passes: Passes, *, forget: Callable[[Sequence[str]], None]
    ) -> torch.Tensor:
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

        return torch.cat(list(self._halving.pieces(len(keys), purified, unit=batch.unit, undo=undo)))

    def _cost(self, batch: _Batch, rows: slice) -> int:
        """About what purifying these rows takes in this machine's memory."""
        if self._device.type == "cuda":
            return 0
        if self._spec.prior is not None:
            return len(batch.samples[rows]) * self._spec.prior.canvas_bytes // batch.unit
        return batch.pixels[rows].nbytes * self._spec.working_bytes

    def _device_name(self) -> str:
        return torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else "cpu"


def _refusal(sample: Sample, others: Sequence[str]) -> str:
    named = ", ".join(f".{extension}" for extension in others[:5]) + (", …" if len(others) > 5 else "")
    return (
        f"{_OTHER_IMAGES} than .{sample.image_extension}, which is purified: {named}. A key ends at its first dot: "
        "rename what are samples of their own (1_5.jpg for 1.5.jpg); --other-images keep passes masks and the like on "
        "as they are; --quarantine sets such samples aside"
    )


def _batch(held: list[_Readable]) -> _Batch:
    pixels = torch.from_numpy(np.stack([one.image.transpose(2, 0, 1) for one in held]))
    samples, out = [one.sample for one in held], [one.out for one in held]
    return _Batch(samples, pixels, held[0].unit, out, sum(one.size for one in held))


def _note(batch: _Batch, runs: list[SlotRun]) -> None:
    """Lengthen the last run by a batch, or begin the next: only a whole number of canvases is followed by its like."""
    samples, (height, width) = len(batch.samples), batch.pixels.shape[-2:]
    if runs and (runs[-1].height, runs[-1].width) == (height, width):
        samples += runs.pop().samples
    runs.append(SlotRun(samples=samples, width=width, height=height, slots=batch.unit))


def _results(batch: _Batch, future: Future[_Purified]) -> Iterator[Sample]:
    """The samples of a finished batch, their image replaced by the purified one as PNG, all else untouched."""
    purified = future.result()
    pixels = purified.pixels.permute(0, 2, 3, 1).numpy()
    for sample, image, (height, width) in zip(batch.samples, pixels, batch.out, strict=True):
        done = sample.with_image(images.stretch(np.ascontiguousarray(image), height, width))
        mask = purified.masks.get(sample.key)
        yield done if mask is None else done.with_member(MASK, encoded(mask, height, width))
