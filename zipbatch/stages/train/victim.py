"""``zipbatch train victim``: train a classifier on a staged dataset, resumable, with its CA and ASR in the manifest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from zipbatch import __version__
from zipbatch.checkpoints.victim import CONFIG, ONNX, VictimFolder, VictimSpec, load_victim, open_victim, save_victim
from zipbatch.config import VictimConfig
from zipbatch.datasets import ShardDataset, ShardRef, StagedManifest
from zipbatch.errors import UsageError
from zipbatch.memory import check_fits
from zipbatch.metrics import Share
from zipbatch.report.progress import Progress
from zipbatch.spelling import setting
from zipbatch.stages.resizing import ResizedRequest
from zipbatch.stages.train.data import AS_THEY_ARE, LoadedSplit, load_split
from zipbatch.stages.train.run import finished_manifest, prepare_out, training_identity
from zipbatch.stages.train.victim_run import CHECKPOINT, MEASURED, VictimRun, begun, fit, measured
from zipbatch.victims import TRAIN_TRANSFORMS, TrainTransform, Victim, build_victim

_LEARNING_BYTES = 4 * 4 * 64
"""Of memory, the least that learning takes for a pixel: a few maps of 64 channels in float32."""


@dataclass(frozen=True, kw_only=True)
class TrainedVictim:
    """The result: the folder and its measures. None where the staged dataset lacks the split."""

    path: Path
    epochs: int
    ca: Share | None
    asr: Share | None
    reused: bool


def train_victim(
    dataset: ShardDataset,
    out: Path,
    config: VictimConfig,
    *,
    device: torch.device,
    resized: ResizedRequest = AS_THEY_ARE,
    start: VictimFolder | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> TrainedVictim:
    """Train on the split ``train`` of a staged dataset (``label`` is what it learns) and write a victim folder.

    It begins with the weights of ``start``, as an attacker does who poisons a model that is in use, or with new ones. A
    checkpoint is kept in ``out`` after every epoch; a rerun with the same settings goes on from it, and a finished
    folder is left as it is. Where a size is asked for, all images are ``resized`` to it, those that measure it too, and
    it is the victim's own.

    Raises:
        UsageError: not a staged dataset with a train split, an unknown architecture or training transform, a ``start``
            of another form, or ``out`` holds another victim.
    """
    staged = _staged(dataset)
    transform = _train_transform(dataset.name, staged.attack.train_transform)
    start = None if start is None else start.pinned()
    identity = _identity(config, dataset, start, resized)
    if (done := finished_manifest(out, CONFIG, identity, opened=open_victim)) is not None:
        (out / CHECKPOINT).unlink(missing_ok=True)  # of a run that was killed right after its last file
        return TrainedVictim(
            path=out, epochs=done["epochs"], ca=_read_share(done["ca"]), asr=_read_share(done["asr"]), reused=True
        )
    spec = _spec(config, staged, resized)
    data = _loaded(dataset, spec.image_size, config, device=device, resized=resized)
    victim = _fresh_victim(spec, config.seed) if start is None else _as_started(start, spec)
    run = begun(victim, config, data, checkpoint=out / CHECKPOINT, identity=identity, device=device)
    run.transform, run.on_progress, run.resized = transform, on_progress, resized
    run.held_out = sum(_samples(dataset.split(split)) for split in MEASURED)
    prepare_out(out)
    fit(run)
    ca, asr = measured(dataset, run)
    manifest = _manifest(run, dataset.name, staged, start, identity=identity, ca=ca, asr=asr)
    save_victim(out, spec, run.victim.network, manifest)
    run.checkpoint.remove()
    return TrainedVictim(path=out, epochs=run.epoch, ca=ca, asr=asr, reused=False)


def _staged(dataset: ShardDataset) -> StagedManifest:
    if dataset.manifest is None or not dataset.split("train"):
        raise UsageError(f"{dataset.name}: training needs a staged dataset with a split train (zipbatch poison)")
    return dataset.manifest


def _identity(config: VictimConfig, dataset: ShardDataset, start: VictimFolder | None, resized: ResizedRequest) -> str:
    shards = [shard.sha256 for shard in dataset.shards]
    more = {**({} if start is None else {"start": start.sha256}), **resized.resized}
    return training_identity(config, {"shards": shards, **more} if more else shards)


def _spec(config: VictimConfig, staged: StagedManifest, resized: ResizedRequest) -> VictimSpec:
    return VictimSpec(
        arch=config.arch,
        num_classes=len(staged.classes),
        image_size=resized.image_size or staged.image_size,
        mean=config.mean,
        std=config.std,
        classes=tuple(staged.classes),
    )


def _loaded(
    dataset: ShardDataset, side: int, config: VictimConfig, *, device: torch.device, resized: ResizedRequest
) -> LoadedSplit:
    """The split ``train``, of whose images there are two or more, with that side."""
    shards = dataset.split("train")
    batch = min(config.batch_size, _samples(shards))
    if device.type == "cpu":
        what = f"{dataset.name}: learning from batches of {batch} images of {side} px"
        check_fits(batch * side**2 * _LEARNING_BYTES, what, smaller="a smaller ‹batch_size›")
    data = load_split(shards, resized)
    if data.images.shape[-2:] != (side, side):
        height, width = data.images.shape[-2:]
        raise UsageError(
            f"{shards[0].path}: images are {width}x{height}, {dataset.name} has {side} px, which the "
            f"victim is to take; {setting('image_size', side)} resizes them, or purify with ‹resize='stretch'› "
            "‹output_size='input'›"
        )
    if len(data.labels) < 2:
        raise UsageError(f"{dataset.name}: the split train has a single image; training needs two or more")
    return data


def _samples(shards: Sequence[ShardRef]) -> int:
    return sum(shard.samples or 0 for shard in shards)


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


def _fresh_victim(spec: VictimSpec, seed: int) -> Victim:
    """Initial weights that depend on the seed alone; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            size = spec.image_size
            return build_victim(spec.arch, num_classes=spec.num_classes, mean=spec.mean, std=spec.std, image_size=size)
        except ValueError as error:
            raise UsageError(str(error)) from error


def _read_share(value: dict[str, Any] | None) -> Share | None:
    return None if value is None else Share(value["hits"], value["n"])


def _told(share: Share | None) -> dict[str, Any] | None:
    return None if share is None else {"value": share.value, "hits": share.hits, "n": share.n}


def _manifest(
    run: VictimRun,
    dataset: str,
    staged: StagedManifest,
    start: VictimFolder | None,
    *,
    identity: str,
    ca: Share | None,
    asr: Share | None,
) -> dict[str, Any]:
    return {
        "format_version": 1,
        "identity": identity,
        "trained_on": {
            "dataset": dataset,
            "attack": staged.attack.model_dump(mode="json"),
            "seed": staged.seed,
            "source_sha256": staged.source_sha256,
            **run.resized.resized,
        },
        "training": run.config.model_dump(mode="json"),
        "epochs": run.epoch,
        "seconds": round(run.budget.seconds, 1),
        "loss": run.loss,
        "ca": _told(ca),
        "asr": _told(asr),
        "device": str(run.device),
        "versions": {"zipbatch": __version__, "torch": torch.__version__},
        **({} if start is None else {"start": {"name": start.name, "sha256": start.sha256}}),
    }
