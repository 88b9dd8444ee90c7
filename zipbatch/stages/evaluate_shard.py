"""Measure victims on one shard, before and after purification: what a worker does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zipbatch.atomic import sha256_file
from zipbatch.checkpoints import VictimFolder, load_victim
from zipbatch.cluster import WorkerContext, pick_device
from zipbatch.errors import Cancelled, DataError
from zipbatch.metrics import (
    Fidelity,
    Share,
    attack_success,
    clean_accuracy,
    fidelity,
    flips,
    poisoned_accuracy,
    robust_accuracy,
)
from zipbatch.pixels import from_u8
from zipbatch.shards import Sample, read_shard
from zipbatch.victims import Victim

POISONED_SPLIT = "test_poisoned"
_BATCH = 128


@dataclass(frozen=True)
class EvaluateTask:
    """One shard: suspect images, their clean twins where there are any, and their purified forms (None: missing).

    ``made_from`` is the digest that the data must have for its purified forms to be of it.
    """

    name: str
    split: str
    data: Path
    clean: Path | None
    purified: tuple[Path | None, ...]
    made_from: tuple[str | None, ...]


@dataclass
class Tally:
    """What one victim answers on one form of the images; tallies of shards add up."""

    classes: int
    ca: Share = Share()
    asr: Share = Share()
    pa: Share = Share()
    ra: Share = Share()
    flips: npt.NDArray[np.int64] | None = None

    def add(self, other: Tally) -> None:
        """Add another shard's counts to these."""
        self.ca, self.asr, self.pa, self.ra = (
            self.ca + other.ca,
            self.asr + other.asr,
            self.pa + other.pa,
            self.ra + other.ra,
        )
        if other.flips is not None:
            self.flips = other.flips if self.flips is None else self.flips + other.flips


@dataclass(frozen=True)
class EvaluateResult:
    """``tallies[v][f]`` of victim v on form f (0: as it came, 1…: purified); ``fidelity[f - 1]`` of purified forms."""

    split: str
    tallies: list[list[Tally | None]]
    fidelity: list[Fidelity | None]


@dataclass(frozen=True)
class EvaluateSetup:
    """Builds an ``EvaluateWorker`` wherever it is called; picklable."""

    victims: tuple[VictimFolder, ...]

    def __call__(self, context: WorkerContext) -> EvaluateWorker:
        return EvaluateWorker(self, context)


@dataclass(frozen=True)
class _Images:
    keys: list[str]
    pixels: Tensor
    labels: npt.NDArray[np.int64] | None
    originals: npt.NDArray[np.int64] | None


class EvaluateWorker:
    """Owns loaded victims."""

    def __init__(self, setup: EvaluateSetup, context: WorkerContext) -> None:
        self._context = context
        self._device = pick_device(context.device)
        self._folders = setup.victims
        self._victims = [load_victim(folder).to(self._device) for folder in setup.victims]

    def __call__(self, task: EvaluateTask) -> EvaluateResult:
        """Tally every victim on every form of the shard.

        Raises:
            DataError: the forms do not hold the same samples, sizes or classes that do not fit the victims.
        """
        digest = sha256_file(task.data)
        if any(expected not in {None, digest} for expected in task.made_from):
            raise DataError(task.data, "is not what the purified version was made from; purify this data first")
        original = _read(task.data)
        if not original.keys:
            return _nothing(task, self._folders)
        forms = [original, *(None if path is None else _read_purified(path, original, task) for path in task.purified)]
        tallies = [
            self._tallies(task, folder, victim, forms)
            for folder, victim in zip(self._folders, self._victims, strict=True)
        ]
        return EvaluateResult(task.split, tallies, self._fidelity(task, original, forms[1:]))

    def _tallies(
        self, task: EvaluateTask, folder: VictimFolder, victim: Victim, forms: Sequence[_Images | None]
    ) -> list[Tally | None]:
        before: npt.NDArray[np.int64] | None = None
        tallies: list[Tally | None] = []
        for number, form in enumerate(forms):
            if form is None:
                tallies.append(None)
                continue
            _check_fit(task, folder, form)
            predicted = self._predict(victim, form.pixels)
            tally = _tally(task.split, predicted, form, folder.spec.num_classes)
            if number == 0:
                before = predicted
            elif before is not None:
                tally.flips = flips(before, predicted, folder.spec.num_classes)
            tallies.append(tally)
        return tallies

    @torch.inference_mode()
    def _predict(self, victim: Victim, pixels: Tensor) -> npt.NDArray[np.int64]:
        torch.set_num_threads(self._context.lanes)
        answers = []
        for rows in torch.split(pixels, _BATCH):
            if self._context.cancelled():
                raise Cancelled("stopped between two batches")
            answers.append(victim(from_u8(rows.to(self._device), "unit")).argmax(dim=1).cpu())
        predicted: npt.NDArray[np.int64] = torch.cat(answers).numpy()
        return predicted

    def _fidelity(
        self, task: EvaluateTask, original: _Images, purified: Sequence[_Images | None]
    ) -> list[Fidelity | None]:
        if task.clean is None:
            return [None for _ in purified]
        clean = original if task.clean == task.data else _read(task.clean)
        if clean.keys != original.keys:
            raise DataError(task.data, f"does not hold the samples of its clean twin {task.clean.name} in their order")
        return [
            fidelity(form.pixels, clean.pixels)
            if form is not None and form.pixels.shape == clean.pixels.shape and min(form.pixels.shape[-2:]) >= 11
            else None
            for form in purified
        ]


def _nothing(task: EvaluateTask, victims: Sequence[VictimFolder]) -> EvaluateResult:
    """The result of a shard without samples."""
    forms = 1 + len(task.purified)
    tallies: list[list[Tally | None]] = [[Tally(victim.spec.num_classes) for _ in range(forms)] for victim in victims]
    return EvaluateResult(task.split, tallies, [None for _ in task.purified])


def _read(path: Path) -> _Images:
    keys: list[str] = []
    pixels: list[npt.NDArray[np.uint8]] = []
    labels: list[int | None] = []
    originals: list[int | None] = []
    for sample in read_shard(path):
        keys.append(sample.key)
        pixels.append(_same_size(sample, pixels))
        labels.append(sample.label())
        originals.append(sample.original_label())
    if not keys:
        return _Images([], torch.empty(0, 3, 0, 0, dtype=torch.uint8), None, None)
    stacked = torch.from_numpy(np.stack(pixels).transpose(0, 3, 1, 2).copy())
    return _Images(keys, stacked, _all_or_none(path, keys, labels), _all_or_none(path, keys, originals))


def _read_purified(path: Path, original: _Images, task: EvaluateTask) -> _Images:
    """A purified object, its bytes checked; labels are those of the data that it was made from."""
    if sha256_file(path) != path.stem:
        raise DataError(path, "its bytes are not those its name says; see 'zipbatch store verify'")
    purified = _read(path)
    if purified.keys != original.keys:
        raise DataError(path, f"does not hold the samples of {task.data.name} in their order")
    return replace(purified, labels=original.labels, originals=original.originals)


def _same_size(sample: Sample, others: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    image = sample.image()
    if others and others[0].shape != image.shape:
        raise DataError(sample.shard, f"image is {image.shape[:2]}, others are {others[0].shape[:2]}", key=sample.key)
    return image


def _all_or_none(path: Path, keys: Sequence[str], labels: Sequence[int | None]) -> npt.NDArray[np.int64] | None:
    known = [label for label in labels if label is not None]
    if known and len(known) < len(labels):
        raise DataError(path, "has no label, others in its shard have", key=keys[labels.index(None)])
    return np.array(known, np.int64) if known else None


def _check_fit(task: EvaluateTask, folder: VictimFolder, form: _Images) -> None:
    size, classes = folder.spec.image_size, folder.spec.num_classes
    if form.pixels.shape[-2:] != (size, size):
        raise DataError(
            task.data, f"images are {tuple(form.pixels.shape[-2:])}, the victim {folder.name} takes {size} px"
        )
    for labels in (form.labels, form.originals):
        if labels is not None and labels.max() >= classes:
            worst = int(labels.argmax())
            raise DataError(
                task.data,
                f"label {labels[worst]} is not one of the {classes} classes of {folder.name}",
                key=form.keys[worst],
            )


def _tally(split: str, predicted: npt.NDArray[np.int64], form: _Images, classes: int) -> Tally:
    tally = Tally(classes)
    if form.labels is None or form.originals is None:
        return tally
    if split == POISONED_SPLIT:
        tally.asr = attack_success(predicted, form.labels, form.originals)
        tally.pa = poisoned_accuracy(predicted, form.originals)
        tally.ra = robust_accuracy(predicted, form.labels, form.originals)
    else:
        tally.ca = clean_accuracy(predicted, form.labels)
    return tally
