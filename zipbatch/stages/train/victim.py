"""``zipbatch train victim``: train a classifier on a staged dataset, resumable, with its CA and ASR in the manifest."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from zipbatch import __version__
from zipbatch.checkpoints.victim import CONFIG, ONNX, VictimFolder, VictimSpec, load_victim, open_victim, save_victim
from zipbatch.config import VictimConfig
from zipbatch.datasets import ShardDataset
from zipbatch.datasets.staged import CLEAN_SPLIT, POISONED_SPLIT
from zipbatch.errors import UsageError
from zipbatch.memory import check_fits
from zipbatch.metrics import Share, attack_success, clean_accuracy
from zipbatch.pixels import from_u8
from zipbatch.report.progress import Part, Progress
from zipbatch.stages.train.data import LoadedSplit, load_split
from zipbatch.stages.train.run import (
    Budget,
    Checkpoint,
    Stopwatch,
    cosine_rate,
    finished_manifest,
    has_bfloat16,
    prepare_out,
    share_of_all,
    training_identity,
)
from zipbatch.victims import TRAIN_TRANSFORMS, TrainTransform, Victim, build_victim, crop_and_flip, top1

log = logging.getLogger(__name__)
CHECKPOINT = "checkpoint.pt"
_ASKED = 128
_LEARNING_BYTES = 4 * 4 * 64
"""Of memory, the least that learning takes for a pixel: a few maps of 64 channels in float32."""
_MEASURED = (CLEAN_SPLIT, POISONED_SPLIT)


@dataclass(frozen=True)
class TrainProgress:
    """What is shown of a run. ``fraction`` is of all of it, ``images`` of ``total`` of the epoch or of the measuring.

    ``epochs`` is None where the minutes are likely to run out before.
    """

    epoch: int
    fraction: float
    loss: float
    images_per_s: float
    epochs: int | None = None
    images: int = 0
    total: int = 0
    measuring: bool = False

    def shown(self, what: str) -> Progress:
        """As a bar shows it."""
        parts = (Part("epochs", self.epoch, self.epochs), Part("images", self.images, self.total))
        notes = (f"loss {self.loss:.3f}", *(("measuring CA, ASR",) if self.measuring else ()))
        return Progress(what, parts, self.fraction, self.images_per_s, notes)


@dataclass(frozen=True)
class TrainedVictim:
    """The result: the folder and its measures. None where the staged dataset lacks the split."""

    path: Path
    epochs: int
    ca: Share | None
    asr: Share | None
    reused: bool


@dataclass
class _Run:
    """A training run: what it was asked to do, and how far it has come."""

    config: VictimConfig
    transform: TrainTransform | None
    device: torch.device
    victim: Victim
    optimizer: torch.optim.Optimizer
    budget: Budget
    checkpoint: Checkpoint
    on_progress: Callable[[TrainProgress], None]
    held_out: int = 0
    epoch: int = 0
    loss: float = math.nan

    def report(
        self, epoch: int, loss: float, images_per_s: float, *, images: int, total: int, measuring: bool = False
    ) -> None:
        """Tell how far it has come; ``held_out`` images are still to be measured on when it has learned."""
        spent = self.budget.fraction
        fraction = share_of_all(
            self.budget,
            batch_size=self.config.batch_size,
            measured=images if measuring else 0,
            to_measure=lambda _: self.held_out,
        )
        late = self.budget.minutes is not None and self.budget.step / self.budget.steps < spent
        epochs = None if late else self.config.epochs
        self.on_progress(TrainProgress(epoch, fraction, loss, images_per_s, epochs, images, total, measuring=measuring))


def train_victim(
    dataset: ShardDataset,
    out: Path,
    config: VictimConfig,
    *,
    device: torch.device,
    start: VictimFolder | None = None,
    on_progress: Callable[[TrainProgress], None] = lambda _: None,
) -> TrainedVictim:
    """Train on the split ``train`` of a staged dataset (``label`` is what it learns) and write a victim folder.

    It begins with the weights of ``start``, as an attacker does who poisons a model that is in use, or with new ones. A
    checkpoint is kept in ``out`` after every epoch; a rerun with the same settings goes on from it, and a finished
    folder is left as it is.

    Raises:
        UsageError: not a staged dataset with a train split, an unknown architecture or training transform, a ``start``
            of another form, or ``out`` holds another victim.
    """
    manifest = dataset.manifest
    if manifest is None or not dataset.split("train"):
        raise UsageError(f"{dataset.name}: training needs a staged dataset with a split train (zipbatch poison)")
    transform = _train_transform(dataset.name, manifest.attack.train_transform)
    start = None if start is None else start.pinned()
    shards = [shard.sha256 for shard in dataset.shards]
    identity = training_identity(config, shards if start is None else {"shards": shards, "start": start.sha256})
    if (done := finished_manifest(out, CONFIG, identity, opened=open_victim)) is not None:
        (out / CHECKPOINT).unlink(missing_ok=True)  # of a run that was killed right after its last file
        return TrainedVictim(out, done["epochs"], _read_share(done["ca"]), _read_share(done["asr"]), reused=True)
    spec = VictimSpec(
        arch=config.arch,
        num_classes=len(manifest.classes),
        image_size=manifest.image_size,
        mean=config.mean,
        std=config.std,
        classes=tuple(manifest.classes),
    )
    side = manifest.image_size
    batch = min(config.batch_size, sum(shard.samples or 0 for shard in dataset.split("train")))
    if device.type == "cpu":
        what = f"{dataset.name}: learning from batches of {batch} images of {side} px"
        check_fits(batch * side**2 * _LEARNING_BYTES, what, smaller="a smaller --batch-size")
    data = load_split(dataset.split("train"))
    if data.images.shape[-2:] != (side, side):
        height, width = data.images.shape[-2:]
        raise UsageError(
            f"{dataset.split('train')[0].path}: images are {width}x{height}, {dataset.name} has {side} px, which the "
            "victim is to take; purify with --resize stretch --output-size input, or with a prior of that size"
        )
    if len(data.labels) < 2:
        raise UsageError(f"{dataset.name}: the split train has a single image; training needs two or more")
    victim = _fresh_victim(spec, config.seed) if start is None else _as_started(start, spec)
    run = _start(victim, config, identity, out, device=device, images=len(data.labels))
    prepare_out(out)
    run.transform, run.on_progress = transform, on_progress
    run.held_out = sum(shard.samples or 0 for split in _MEASURED for shard in dataset.split(split))
    _fit(data, run)
    ca, asr = _measure(dataset, run)
    told = {} if start is None else {"start": {"name": start.name, "sha256": start.sha256}}
    save_victim(out, spec, run.victim.network, {**_manifest(dataset, run, identity, ca, asr), **told})
    run.checkpoint.remove()
    return TrainedVictim(out, run.epoch, ca, asr, reused=False)


def _train_transform(dataset: str, name: str | None) -> TrainTransform | None:
    if name is not None and name not in TRAIN_TRANSFORMS:
        known = ", ".join(sorted(TRAIN_TRANSFORMS))
        raise UsageError(f"{dataset}: its manifest names an unknown train_transform {name!r}; known: {known}")
    return None if name is None else TRAIN_TRANSFORMS[name]


def _as_started(start: VictimFolder, spec: VictimSpec) -> Victim:
    """The victim whose weights training begins with.

    Raises:
        UsageError: it is not of the form that is to be trained.
    """
    if start.spec.arch == ONNX:
        raise UsageError(f"{start.label}: is an ONNX model, whose weights cannot be trained on")
    fields = ("arch", "num_classes", "image_size", "channels", "mean", "std", "network_size")
    for name in fields:
        theirs, ours = getattr(start.spec, name), getattr(spec, name)
        if theirs != ours:
            raise UsageError(f"{start.label}: its {name} is {theirs}, what is to be trained has {ours}")
    return load_victim(start).requires_grad_(True)


def _start(
    victim: Victim, config: VictimConfig, identity: str, out: Path, *, device: torch.device, images: int
) -> _Run:
    """A fresh run, or one that goes on from its checkpoint."""
    victim.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(
        victim.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, nesterov=True
    )
    budget = Budget(config.epochs * math.ceil(images / config.batch_size), config.minutes)
    checkpoint = Checkpoint(out / CHECKPOINT, identity, {"victim": victim, "optimizer": optimizer}, budget)
    run = _Run(config, None, device, victim, optimizer, budget, checkpoint, lambda _: None)
    if resumed := checkpoint.resume():
        run.epoch, run.loss = int(resumed["epoch"]), resumed["loss"]
        log.info("resuming after epoch %d", run.epoch)
    return run


def _fresh_victim(spec: VictimSpec, seed: int) -> Victim:
    """Initial weights that depend on the seed alone; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            size = spec.image_size
            return build_victim(spec.arch, num_classes=spec.num_classes, mean=spec.mean, std=spec.std, image_size=size)
        except ValueError as error:
            raise UsageError(str(error)) from error


def _fit(data: LoadedSplit, run: _Run) -> None:
    while not run.budget.spent:
        _epoch(data, run)
        if not math.isfinite(run.loss):
            raise UsageError(f"training diverged in epoch {run.epoch} (loss {run.loss}); lower --lr")
        log.info("epoch %d: loss %.4f after %.0f s", run.epoch, run.loss, run.budget.seconds)
        run.checkpoint.save(epoch=run.epoch, loss=run.loss)


def _epoch(data: LoadedSplit, run: _Run) -> None:
    """One pass in an order, and with augmentation, that depend on (seed, epoch) alone."""
    generator = torch.Generator().manual_seed(run.config.seed * 1_000_003 + run.epoch)
    order = torch.randperm(len(data.labels), generator=generator)
    run.victim.train()
    total, done, seen = 0.0, 0, 0
    watch, before = Stopwatch(run.budget), run.budget.seconds
    for rows in torch.split(order, run.config.batch_size):
        if run.budget.spent:  # the minutes may run out within an epoch
            break
        if len(rows) > 1:  # batch norm needs two images
            for group in run.optimizer.param_groups:
                group["lr"] = cosine_rate(run.budget.fraction, peak=run.config.lr, warmup=run.config.warmup)
            total += len(rows) * _step(_augmented(data, rows, run, generator), data.labels[rows], run)
            done += len(rows)
        run.budget.step += 1
        seen += len(rows)
        watch.lap()
        rate = done / max(1e-9, run.budget.seconds - before)
        run.report(run.epoch + 1, total / max(1, done), rate, images=seen, total=len(order))
    run.epoch += 1
    run.loss = total / max(1, done)


def _augmented(data: LoadedSplit, rows: Tensor, run: _Run, generator: torch.Generator) -> Tensor:
    unit = from_u8(data.images[rows], "unit")
    if run.transform is not None:
        return run.transform(unit, data.stamped[rows], generator=generator)
    return crop_and_flip(unit, generator=generator) if run.config.augment else unit


def _step(unit: Tensor, labels: Tensor, run: _Run) -> float:
    device = run.device
    x = unit.to(device, memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device)):
        scores = run.victim(x)
    loss = F.cross_entropy(scores.float(), labels.to(device))
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    run.optimizer.step()
    return loss.item()


def _read_share(value: dict[str, Any] | None) -> Share | None:
    return None if value is None else Share(value["hits"], value["n"])


def _measure(dataset: ShardDataset, run: _Run) -> tuple[Share | None, Share | None]:
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
        data = load_split(clean)
        ca = clean_accuracy(answers(data.images), data.labels.numpy())
    if poisoned := dataset.split(POISONED_SPLIT):
        data = load_split(poisoned)
        asr = attack_success(answers(data.images), data.labels.numpy(), data.original_labels.numpy())
    return ca, asr


def _manifest(dataset: ShardDataset, run: _Run, identity: str, ca: Share | None, asr: Share | None) -> dict[str, Any]:
    assert dataset.manifest is not None  # checked at the door
    staged = dataset.manifest

    def share(value: Share | None) -> dict[str, Any] | None:
        return None if value is None else {"value": value.value, "hits": value.hits, "n": value.n}

    return {
        "format_version": 1,
        "identity": identity,
        "trained_on": {
            "dataset": dataset.name,
            "attack": staged.attack.model_dump(mode="json"),
            "seed": staged.seed,
            "source_sha256": staged.source_sha256,
        },
        "training": run.config.model_dump(mode="json"),
        "epochs": run.epoch,
        "seconds": round(run.budget.seconds, 1),
        "loss": run.loss,
        "ca": share(ca),
        "asr": share(asr),
        "device": str(run.device),
        "versions": {"zipbatch": __version__, "torch": torch.__version__},
    }
