"""How a victim learns: epochs, steps, checkpoints, and the measuring of what it has learned."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from zipbatch.config import VictimConfig
from zipbatch.datasets import ShardDataset
from zipbatch.datasets.staged import CLEAN_SPLIT, POISONED_SPLIT
from zipbatch.errors import UsageError
from zipbatch.metrics import Share, attack_success, clean_accuracy
from zipbatch.pixels import from_u8
from zipbatch.report.progress import Part, Progress, finite
from zipbatch.stages.resizing import ResizedRequest
from zipbatch.stages.train.data import AS_THEY_ARE, LoadedSplit, load_split
from zipbatch.stages.train.run import Budget, Checkpoint, Stopwatch, cosine_rate, has_bfloat16, share_of_all
from zipbatch.victims import TrainTransform, Victim, crop_and_flip, top1

log = logging.getLogger(__name__)
CHECKPOINT = "checkpoint.pt"
MEASURED = (CLEAN_SPLIT, POISONED_SPLIT)
"""Splits that a victim is measured on, for its CA and its ASR."""
_ASKED = 128


@dataclass(kw_only=True)
class VictimRun:
    """A training run: what it was asked to do, and how far it has come. ``held_out`` images measure it.

    All images are ``resized``, where that is asked.
    """

    config: VictimConfig
    data: LoadedSplit
    device: torch.device
    victim: Victim
    optimizer: torch.optim.Optimizer
    budget: Budget
    checkpoint: Checkpoint
    transform: TrainTransform | None = None
    resized: ResizedRequest = AS_THEY_ARE
    held_out: int = 0
    on_progress: Callable[[Progress], None] = lambda _: None
    epoch: int = 0
    loss: float = math.nan

    def report(
        self, epoch: int, loss: float, images_per_s: float, *, images: int, total: int, measuring: bool = False
    ) -> None:
        """Report how far it has come: ``images`` of ``total`` of the epoch or of the measuring.

        ``held_out`` images are still to be measured on when it has learned. Where the minutes are likely to run out
        before the epochs, nobody knows how many there will be.
        """
        spent = self.budget.fraction
        fraction = share_of_all(
            self.budget,
            batch_size=self.config.batch_size,
            measured=images if measuring else 0,
            to_measure=lambda _: self.held_out,
        )
        late = self.budget.minutes is not None and self.budget.step / self.budget.steps < spent
        parts = (Part("epochs", epoch, None if late else self.config.epochs), Part("images", images, total))
        notes = ("measuring CA, ASR",) if measuring else ()
        measures = finite({"loss": loss})
        self.on_progress(Progress(parts=parts, fraction=fraction, per_s=images_per_s, measures=measures, notes=notes))


def begun(
    victim: Victim, config: VictimConfig, data: LoadedSplit, *, checkpoint: Path, identity: str, device: torch.device
) -> VictimRun:
    """A fresh run, or one that goes on from its checkpoint.

    Raises:
        UsageError: the checkpoint is of another run.
    """
    victim.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(
        victim.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, nesterov=True
    )
    budget = Budget(steps=config.epochs * math.ceil(len(data.labels) / config.batch_size), minutes=config.minutes)
    kept = Checkpoint(checkpoint, identity, {"victim": victim, "optimizer": optimizer}, budget)
    run = VictimRun(
        config=config, data=data, device=device, victim=victim, optimizer=optimizer, budget=budget, checkpoint=kept
    )
    if resumed := kept.resume():
        run.epoch, run.loss = int(resumed["epoch"]), resumed["loss"]
        log.info("resuming after epoch %d", run.epoch)
    return run


def fit(run: VictimRun) -> None:
    """Learn until the budget is spent, with a checkpoint after every epoch.

    Raises:
        UsageError: the loss is not finite.
    """
    while not run.budget.spent:
        _epoch(run)
        if not math.isfinite(run.loss):
            raise UsageError(f"training diverged in epoch {run.epoch} (loss {run.loss}); lower ‹lr›")
        log.info("epoch %d: loss %.4f after %.0f s", run.epoch, run.loss, run.budget.seconds)
        run.checkpoint.save(epoch=run.epoch, loss=run.loss)


def _epoch(run: VictimRun) -> None:
    """One pass in an order, and with augmentation, that depend on (seed, epoch) alone."""
    data, generator = run.data, torch.Generator().manual_seed(run.config.seed * 1_000_003 + run.epoch)
    order = torch.randperm(len(data.labels), generator=generator)
    run.victim.train()
    losses, done, seen = _Losses(), 0, 0
    watch, before = Stopwatch(run.budget), run.budget.seconds
    for rows in torch.split(order, run.config.batch_size):
        if run.budget.spent:  # the minutes may run out within an epoch
            break
        if len(rows) > 1:  # batch norm needs two images
            for group in run.optimizer.param_groups:
                group["lr"] = cosine_rate(run.budget.fraction, peak=run.config.lr, warmup=run.config.warmup)
            losses.take(_step(_augmented(run, rows, generator), data.labels[rows], run), images=len(rows))
            done += len(rows)
        run.budget.step += 1
        seen += len(rows)
        watch.lap()
        rate = done / max(1e-9, run.budget.seconds - before)
        loss = losses.mean if seen == len(order) else losses.lately
        run.report(run.epoch + 1, loss, rate, images=seen, total=len(order))
    run.epoch += 1
    run.loss = losses.mean


class _Losses:
    """Adds up an epoch's. They are asked for now and then: each question makes the host wait for a GPU."""

    ASKED_EVERY = 16

    def __init__(self) -> None:
        self._total, self._images, self.lately = 0.0, 0, 0.0
        self._waiting: list[tuple[int, Tensor]] = []

    def take(self, loss: Tensor, *, images: int) -> None:
        """Take in a step's mean loss [] over so many images; ``lately`` is the mean as far as was asked."""
        self._waiting.append((images, loss))
        if len(self._waiting) == self.ASKED_EVERY or not self._images:
            self.lately = self.mean

    @property
    def mean(self) -> float:
        """Over all images so far; 0 while there is none."""
        for images, loss in self._waiting:
            self._total += images * loss.item()
            self._images += images
        self._waiting.clear()
        return self._total / max(1, self._images)


def _augmented(run: VictimRun, rows: Tensor, generator: torch.Generator) -> Tensor:
    unit = from_u8(run.data.images[rows], "unit")
    if run.transform is not None:
        return run.transform(unit, run.data.stamped[rows], generator=generator)
    return crop_and_flip(unit, generator=generator) if run.config.augment else unit


def _step(unit: Tensor, labels: Tensor, run: VictimRun) -> Tensor:
    device = run.device
    x = unit.to(device, memory_format=torch.channels_last, non_blocking=True)
    with torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device)):
        scores = run.victim(x)
    loss = F.cross_entropy(scores.float(), labels.to(device, non_blocking=True))
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    run.optimizer.step()
    return loss.detach()


def measured(dataset: ShardDataset, run: VictimRun) -> tuple[Share | None, Share | None]:
    """CA and ASR, with news before each batch."""
    ca = asr = None
    began, told = time.monotonic(), 0

    def answers(images: Tensor) -> npt.NDArray[np.int64]:
        nonlocal told
        found = [np.empty(0, np.int64)]
        for rows in torch.split(images, _ASKED):
            found.append(top1(run.victim, rows))
            told += len(rows)
            rate = told / max(1e-9, time.monotonic() - began)
            run.report(run.epoch, run.loss, rate, images=told, total=run.held_out, measuring=True)
        return np.concatenate(found)

    if clean := dataset.split(CLEAN_SPLIT):
        data = load_split(clean, run.resized)
        ca = clean_accuracy(answers(data.images), data.labels.numpy())
    if poisoned := dataset.split(POISONED_SPLIT):
        data = load_split(poisoned, run.resized)
        asr = attack_success(answers(data.images), data.labels.numpy(), data.original_labels.numpy())
    return ca, asr
