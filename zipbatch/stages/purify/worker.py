"""Purify one shard: what a worker does."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

import torch

from zipbatch import __version__, storage
from zipbatch.cluster import WorkerContext, pick_device
from zipbatch.errors import DataError
from zipbatch.logs import utc
from zipbatch.purifiers import Purifier
from zipbatch.shards import read_shard
from zipbatch.shards.digest import listed_digest
from zipbatch.stages.purify.acceptance import acceptable
from zipbatch.stages.purify.build import build_purifier
from zipbatch.stages.purify.busy import Busy
from zipbatch.stages.purify.computing import BatchComputer
from zipbatch.stages.purify.masks import keep_masks
from zipbatch.stages.purify.passes import Passes, begin_pass
from zipbatch.stages.purify.publish import despite_gc
from zipbatch.stages.purify.quarantine import Quarantine
from zipbatch.stages.purify.reading import CountedSamples, SampleReader
from zipbatch.stages.purify.redone import count_redone, done_again
from zipbatch.stages.purify.spec import PurifierSpec
from zipbatch.storage import Stamp, StoragePath
from zipbatch.store import SlotRun, Store, TaskRecord, task_key
from zipbatch.strays import Tally

log = logging.getLogger(__name__)


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


@dataclass(frozen=True, kw_only=True)
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


class PurifyWorker:
    """Owns a loaded purifier. Called from several threads: one reads or writes a shard while others compute.

    Args:
        setup: what is to be done.
        context: where it is done.
        purifier: taken in place of the one that ``setup`` describes.
    """

    def __init__(self, setup: PurifySetup, context: WorkerContext, purifier: Purifier | None = None) -> None:
        self._spec, self._context = setup.spec, context
        self._identity, self._quarantine, self._keep = setup.spec.identity, setup.quarantine, setup.keep
        self._store = Store(setup.store)
        self._device = pick_device(context.device)
        if purifier is None:
            purifier = build_purifier(
                setup.spec,
                self._device,
                heartbeat=context.heartbeat,
                begin_pass=begin_pass,
                keep_masks=keep_masks,
                done_again=done_again,
                local=context.local,
            )
        self._reader = SampleReader(setup.spec, keep_others=setup.keep, heartbeat=context.heartbeat)
        self._computer = BatchComputer(purifier, setup.spec, context, self._device, batch_rows=setup.batch_size)

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
        known = self._store.tasks.sound(key)
        fits = known is not None and known.input_sha256 == digest
        if known is not None and fits and acceptable(known, quarantine=self._quarantine, keep=self._keep):
            return PurifyResult(known, reused=True, stamp=stamp)
        record = self._made(task, digest, stamp)
        self._store.tasks.put(key, record)
        return PurifyResult(record, reused=False, stamp=stamp)

    def _made(self, task: PurifyTask, digest: str, stamp: Stamp) -> TaskRecord:
        """Purify a shard and publish its object."""
        started = time.monotonic()
        passed_over, kept, runs, busy = Tally(), Tally(), list[SlotRun](), Busy(self._device)
        source = CountedSamples(read_shard(task.path, sha256=digest, imageless=self._quarantine, strays=passed_over))
        redone = count_redone()
        with self._store.objects.new() as writer, Quarantine(self._store if self._quarantine else None) as quarantine:
            passes = Passes(self._context.progress, self._spec.passes)
            readable = self._reader.readable(source, quarantine, kept)
            for sample in self._computer.purified(readable, runs, passes, busy):
                self._context.heartbeat()
                writer.write(sample)
            info = writer.finish()
            if storage.stamp(task.path) != stamp:
                raise DataError(task.path, "changed while it was read; run again")
            if source.count != info.samples + len(quarantine.reasons):
                raise RuntimeError(f"{task.name}: {source.count} samples in, {info.samples} out")
            quarantined = quarantine.publish()
            self._store.objects.publish(writer, info)
        if passed_over.count:
            log.warning("%s: passed over members that are no samples: %s", task.name, passed_over)
        return TaskRecord(
            input_sha256=digest,
            output_sha256=info.sha256,
            samples_in=source.count,
            samples_out=info.samples,
            quarantined=list(quarantine.reasons),
            quarantine_sha256=quarantined,
            reasons=quarantine.reasons,
            slots=runs,
            other_images=kept.count,
            passed_over=passed_over.count,
            in_float32=redone.images,
            seconds=round(time.monotonic() - started, 3),
            device=torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else "cpu",
            worker=self._context.label,
            versions={"zipbatch": __version__, "torch": torch.__version__},
            calls=self._spec.calls,
            busy_s=round(busy.seconds, 6),
            made=utc(time.time()),
        )
