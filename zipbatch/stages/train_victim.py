"""``zipbatch train victim``: train a classifier on a staged dataset, resumable, with its CA and ASR in the manifest."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from zipbatch import __version__, atomic
from zipbatch.checkpoints.tensors import read_json
from zipbatch.checkpoints.victim import CONFIG, VictimSpec, save_victim
from zipbatch.config import VictimConfig
from zipbatch.errors import UsageError
from zipbatch.metrics import Share, attack_success, clean_accuracy
from zipbatch.pixels import from_u8
from zipbatch.shards import ShardDataset
from zipbatch.stages.loading import LoadedSplit, load_split
from zipbatch.victims import Victim, build_victim, crop_and_flip, physical_transforms

log = logging.getLogger(__name__)
CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class TrainProgress:
    """What a progress bar shows. ``fraction`` is of the whole budget."""

    epoch: int
    fraction: float
    loss: float
    images_per_s: float


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
    identity: str
    transform: str | None
    device: torch.device
    checkpoint: Path
    victim: Victim
    optimizer: torch.optim.Optimizer
    on_progress: Callable[[TrainProgress], None]
    epoch: int = 0
    seconds: float = 0.0
    loss: float = math.nan

    def fraction(self, of_epoch: float = 0.0) -> float:
        """Share of the budget that is spent: of the epochs, or of the minutes where those run out first."""
        by_epochs = (self.epoch + of_epoch) / self.config.epochs
        by_time = self.seconds / 60 / self.config.minutes if self.config.minutes else 0.0
        return max(by_epochs, by_time)


def train_victim(
    dataset: ShardDataset,
    out: Path,
    config: VictimConfig,
    *,
    device: torch.device,
    on_progress: Callable[[TrainProgress], None] = lambda _: None,
) -> TrainedVictim:
    """Train on the split ``train`` of a staged dataset (``label`` is what it learns) and write a victim folder.

    A checkpoint is kept in ``out`` after every epoch; a rerun with the same settings goes on from it, and a finished
    folder is left as it is.

    Raises:
        UsageError: not a staged dataset with a train split, an unknown architecture, or ``out`` holds another victim.
    """
    manifest = dataset.manifest
    if manifest is None or not dataset.split("train"):
        raise UsageError(f"{dataset.name}: training needs a staged dataset with a split train (zipbatch poison)")
    identity = atomic.sha256_json(
        {"config": config.model_dump(mode="json"), "data": [shard.sha256 for shard in dataset.shards]}
    )
    if (out / CONFIG).is_file():
        return _finished(out, identity)
    spec = VictimSpec(
        arch=config.arch,
        num_classes=len(manifest.classes),
        image_size=manifest.image_size,
        mean=config.mean,
        std=config.std,
        classes=tuple(manifest.classes),
    )
    victim = _fresh_victim(spec, config.seed).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(
        victim.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, nesterov=True
    )
    transform = manifest.attack.train_transform
    run = _Run(config, identity, transform, device, out / CHECKPOINT, victim, optimizer, on_progress)
    _resume(run)
    _fit(load_split(dataset.split("train")), run)
    ca, asr = _measure(dataset, victim, device)
    save_victim(out, spec, victim.network, _manifest(dataset, run, ca, asr))
    run.checkpoint.unlink(missing_ok=True)
    return TrainedVictim(out, run.epoch, ca, asr, reused=False)


def _fresh_victim(spec: VictimSpec, seed: int) -> Victim:
    """Initial weights that depend on the seed alone; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return build_victim(spec.arch, num_classes=spec.num_classes, mean=spec.mean, std=spec.std)
        except ValueError as error:
            raise UsageError(str(error)) from error


def _fit(data: LoadedSplit, run: _Run) -> None:
    while run.fraction() < 1:
        _epoch(data, run)
        if not math.isfinite(run.loss):
            raise UsageError(f"training diverged in epoch {run.epoch} (loss {run.loss}); lower --lr")
        log.info("epoch %d: loss %.4f after %.0f s", run.epoch, run.loss, run.seconds)
        _save_checkpoint(run)


def _learning_rate(config: VictimConfig, fraction: float) -> float:
    """Linear warm-up over the first share ``warmup`` of the budget, then half a cosine down to 0."""
    if fraction < config.warmup:
        return config.lr * max(fraction, 1e-3) / config.warmup
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, (fraction - config.warmup) / (1 - config.warmup))))


def _epoch(data: LoadedSplit, run: _Run) -> None:
    """One pass in an order, and with augmentation, that depend on (seed, epoch) alone."""
    generator = torch.Generator().manual_seed(run.config.seed * 1_000_003 + run.epoch)
    batches = torch.split(torch.randperm(len(data.labels), generator=generator), run.config.batch_size)
    run.victim.train()
    total, done, fraction = 0.0, 0, run.fraction()
    started, seconds = time.monotonic(), run.seconds
    for number, rows in enumerate(batches):
        if len(rows) < 2 or fraction >= 1:  # batch norm needs two images; the minutes may run out within an epoch
            break
        for group in run.optimizer.param_groups:
            group["lr"] = _learning_rate(run.config, fraction)
        total += len(rows) * _step(_augmented(data, rows, run, generator), data.labels[rows], run)
        done += len(rows)
        run.seconds = seconds + time.monotonic() - started
        fraction = run.fraction((number + 1) / len(batches))
        rate = done / max(1e-9, run.seconds - seconds)
        run.on_progress(TrainProgress(run.epoch + 1, min(1.0, fraction), total / done, rate))
    run.epoch += 1
    run.loss = total / max(1, done)


def _augmented(data: LoadedSplit, rows: Tensor, run: _Run, generator: torch.Generator) -> Tensor:
    unit = from_u8(data.images[rows], "unit")
    if run.transform == "physicalba":
        return physical_transforms(unit, generator=generator)
    return crop_and_flip(unit, generator=generator) if run.config.augment else unit


def _step(unit: Tensor, labels: Tensor, run: _Run) -> float:
    device = run.device
    x = unit.to(device, memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16, enabled=_has_bfloat16(device)):
        scores = run.victim(x)
    loss = F.cross_entropy(scores.float(), labels.to(device))
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    run.optimizer.step()
    return loss.item()


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _save_checkpoint(run: _Run) -> None:
    content = {
        "identity": run.identity,
        "victim": run.victim.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "epoch": run.epoch,
        "seconds": run.seconds,
        "loss": run.loss,
    }
    atomic.write_with(run.checkpoint, lambda stream: torch.save(content, stream))


def _resume(run: _Run) -> None:
    if not run.checkpoint.is_file():
        return
    try:
        content = torch.load(run.checkpoint, map_location="cpu", weights_only=True)
        identity = content["identity"]
        if identity == run.identity:
            run.victim.load_state_dict(content["victim"])
            run.optimizer.load_state_dict(content["optimizer"])
            run.epoch, run.seconds, run.loss = content["epoch"], content["seconds"], content["loss"]
    except Exception as error:
        raise UsageError(
            f"{run.checkpoint}: not a checkpoint of this tool ({error}); remove it to start over"
        ) from error
    if identity != run.identity:
        raise UsageError(f"{run.checkpoint}: belongs to other settings or data; choose another --out or remove it")
    log.info("resuming after epoch %d", run.epoch)


def _finished(out: Path, identity: str) -> TrainedVictim:
    manifest = read_json(out / "manifest.json")
    if manifest.get("identity") != identity:
        raise UsageError(f"{out}: holds a victim of other settings or data; choose another --out or remove it")
    ca, asr = _read_share(manifest["ca"]), _read_share(manifest["asr"])
    return TrainedVictim(out, manifest["epochs"], ca, asr, reused=True)


def _read_share(value: dict[str, Any] | None) -> Share | None:
    return None if value is None else Share(value["hits"], value["n"])


def _measure(dataset: ShardDataset, victim: Victim, device: torch.device) -> tuple[Share | None, Share | None]:
    ca = asr = None
    if clean := dataset.split("test"):
        data = load_split(clean)
        ca = clean_accuracy(_predict(victim, data.images, device).numpy(), data.labels.numpy())
    if poisoned := dataset.split("test_poisoned"):
        data = load_split(poisoned)
        predicted = _predict(victim, data.images, device).numpy()
        asr = attack_success(predicted, data.labels.numpy(), data.original_labels.numpy())
    return ca, asr


def _predict(victim: Victim, pixels: Tensor, device: torch.device) -> Tensor:
    victim.eval()
    with torch.inference_mode():
        answers = [victim(from_u8(rows.to(device), "unit")).argmax(dim=1).cpu() for rows in torch.split(pixels, 256)]
    return torch.cat(answers)


def _manifest(dataset: ShardDataset, run: _Run, ca: Share | None, asr: Share | None) -> dict[str, Any]:
    assert dataset.manifest is not None  # checked at the door
    staged = dataset.manifest

    def share(value: Share | None) -> dict[str, Any] | None:
        return None if value is None else {"value": value.value, "hits": value.hits, "n": value.n}

    return {
        "format_version": 1,
        "identity": run.identity,
        "trained_on": {
            "dataset": dataset.name,
            "attack": staged.attack.model_dump(mode="json"),
            "seed": staged.seed,
            "source_sha256": staged.source_sha256,
        },
        "training": run.config.model_dump(mode="json"),
        "epochs": run.epoch,
        "seconds": round(run.seconds, 1),
        "loss": run.loss,
        "ca": share(ca),
        "asr": share(asr),
        "device": str(run.device),
        "versions": {"zipbatch": __version__, "torch": torch.__version__},
    }
