"""Measure victims on one shard, before and after purification: what a worker does."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zipbatch import places
from zipbatch.cluster import WorkerContext, pick_device
from zipbatch.errors import DataError
from zipbatch.metrics import (
    Fidelity,
    Share,
    attack_success,
    clean_accuracy,
    false_positives,
    fidelity,
    flips,
    poisoned_accuracy,
    robust_accuracy,
)
from zipbatch.places import Place
from zipbatch.shards import Sample, read_shard
from zipbatch.shards.dataset import POISONED_SPLIT
from zipbatch.stages.quarantine import quarantined_keys
from zipbatch.stages.victim import ask
from zipbatch.victims import Classifier, VictimSource


@dataclass(frozen=True)
class EvaluateTask:
    """One shard: suspect images, their clean twins where there are any, and their purified forms (None: missing).

    ``made_from`` is the digest that the data must have for its purified forms to be of it. ``quarantine`` are the
    quarantine shards of the purified forms: a sample in any of them is measured on none, so that forms compare.
    """

    name: str
    split: str
    data: Place
    clean: Place | None
    purified: tuple[Place | None, ...]
    made_from: tuple[str | None, ...]
    quarantine: tuple[Place, ...] = ()


SHARES = ("ca", "asr", "fpr", "pa", "ra")


@dataclass
class Tally:
    """What one victim answers on one form of the images; tallies of shards add up."""

    classes: int
    ca: Share = Share()
    asr: Share = Share()
    fpr: Share = Share()
    pa: Share = Share()
    ra: Share = Share()
    flips: npt.NDArray[np.int64] | None = None

    @property
    def shares(self) -> dict[str, Share]:
        """The measures that are shares of images, by name."""
        return {name: getattr(self, name) for name in SHARES}

    def add(self, other: Tally) -> None:
        """Add another shard's counts to these."""
        for name, share in other.shares.items():
            setattr(self, name, getattr(self, name) + share)
        if other.flips is not None:
            self.flips = other.flips if self.flips is None else self.flips + other.flips


@dataclass(frozen=True)
class EvaluateResult:
    """What the victims answer on a shard.

    Attributes:
        name, split: the shard's.
        tallies: ``[v][f]`` of victim v on form f (0: as it came, 1…: purified); None where a form is missing.
        fidelity: ``[f - 1]`` of purified forms.
        answers: ``[v][f]`` int64 [N], in the shard's order; empty unless the setup asks for them.
        quarantined: how many samples of the shard were left out of all this.
    """

    name: str
    split: str
    tallies: list[list[Tally | None]]
    fidelity: list[Fidelity | None]
    answers: list[list[npt.NDArray[np.int64] | None]]
    quarantined: int = 0


@dataclass(frozen=True)
class KnownVictim:
    """A victim and the width of its scores, which is known by now."""

    source: VictimSource
    num_classes: int


@dataclass(frozen=True)
class EvaluateSetup:
    """Builds an ``EvaluateWorker`` wherever it is called; picklable.

    Attributes:
        victims: whom to ask.
        keep_answers: return each image's answer.
        wanted: class -> the class that the attacker wants for its images; None where nobody knows.
    """

    victims: tuple[KnownVictim, ...]
    keep_answers: bool = False
    wanted: tuple[int, ...] | None = None

    def __call__(self, context: WorkerContext) -> EvaluateWorker:
        return EvaluateWorker(self, context)


@dataclass(frozen=True)
class _Images:
    path: Place
    keys: list[str]
    pixels: Tensor
    labels: npt.NDArray[np.int64] | None
    originals: npt.NDArray[np.int64] | None


class EvaluateWorker:
    """Owns loaded victims."""

    def __init__(self, setup: EvaluateSetup, context: WorkerContext) -> None:
        self._context = context
        self._device = pick_device(context.device)
        self._victims, self._keep_answers = setup.victims, setup.keep_answers
        self._wanted = None if setup.wanted is None else np.array(setup.wanted, np.int64)
        self._classifiers = [victim.source.load(self._device) for victim in setup.victims]

    def __call__(self, task: EvaluateTask) -> EvaluateResult:
        """Tally every victim on every form of the shard.

        Raises:
            DataError: the forms do not hold the same samples, sizes or classes that do not fit the victims.
        """
        torch.set_num_threads(self._context.lanes)
        digest = places.sha256(task.data)
        if any(expected not in {None, digest} for expected in task.made_from):
            raise DataError(task.data, "is not what the purified version was made from; purify this data first")
        aside = quarantined_keys(task.quarantine)
        original = _read(task.data, aside)
        if not original.keys:
            return replace(_nothing(task, self._victims), quarantined=len(aside))
        forms = [
            original,
            *(None if path is None else _read_purified(path, original, task, aside) for path in task.purified),
        ]
        answers = [
            self._answers(task, victim, classifier, forms)
            for victim, classifier in zip(self._victims, self._classifiers, strict=True)
        ]
        tallies = [
            _tallies(task.split, given, forms, victim.num_classes, self._wanted)
            for victim, given in zip(self._victims, answers, strict=True)
        ]
        fidelity = self._fidelity(task, original, forms[1:], aside)
        kept = answers if self._keep_answers else []
        return EvaluateResult(task.name, task.split, tallies, fidelity, kept, len(aside))

    def _answers(
        self, task: EvaluateTask, victim: KnownVictim, classifier: Classifier, forms: Sequence[_Images | None]
    ) -> list[npt.NDArray[np.int64] | None]:
        for form in forms:
            if form is not None:
                _check_fit(task, victim, form)
        ask_about = partial(ask, victim.source, classifier, classes=victim.num_classes, before_batch=self._context.tick)
        return [None if form is None else ask_about(form.pixels) for form in forms]

    def _fidelity(
        self, task: EvaluateTask, original: _Images, purified: Sequence[_Images | None], aside: AbstractSet[str]
    ) -> list[Fidelity | None]:
        if task.clean is None:
            return [None for _ in purified]
        clean = original if task.clean == task.data else _read(task.clean, aside)
        if clean.keys != original.keys:
            raise DataError(task.data, f"does not hold the samples of its clean twin {task.clean.name} in their order")
        return [
            fidelity(form.pixels, clean.pixels)
            if form is not None and form.pixels.shape == clean.pixels.shape and min(form.pixels.shape[-2:]) >= 11
            else None
            for form in purified
        ]


def _nothing(task: EvaluateTask, victims: Sequence[KnownVictim]) -> EvaluateResult:
    """The result of a shard without samples."""
    forms = 1 + len(task.purified)
    tallies: list[list[Tally | None]] = [[Tally(victim.num_classes) for _ in range(forms)] for victim in victims]
    none = np.empty(0, np.int64)
    answers: list[list[npt.NDArray[np.int64] | None]] = [[none for _ in range(forms)] for _ in victims]
    return EvaluateResult(task.name, task.split, tallies, [None for _ in task.purified], answers)


def _read(path: Place, aside: AbstractSet[str]) -> _Images:
    """All samples but those that are set aside, which are not even decoded."""
    keys: list[str] = []
    pixels: list[npt.NDArray[np.uint8]] = []
    labels: list[int | None] = []
    originals: list[int | None] = []
    for sample in read_shard(path, imageless=bool(aside)):
        if sample.key in aside:
            continue
        keys.append(sample.key)
        pixels.append(_same_size(sample, pixels))
        labels.append(sample.label())
        originals.append(sample.original_label())
    if not keys:
        return _Images(path, [], torch.empty(0, 3, 0, 0, dtype=torch.uint8), None, None)
    stacked = torch.from_numpy(np.stack(pixels).transpose(0, 3, 1, 2).copy())
    return _Images(path, keys, stacked, _all_or_none(path, keys, labels), _all_or_none(path, keys, originals))


def _read_purified(path: Place, original: _Images, task: EvaluateTask, aside: AbstractSet[str]) -> _Images:
    """A purified object, its bytes checked; labels are those of the data that it was made from."""
    if places.sha256(path) != path.stem:
        raise DataError(path, "its bytes are not those its name says; see 'zipbatch store verify'")
    purified = _read(path, aside)
    if purified.keys != original.keys:
        raise DataError(path, f"does not hold the samples of {task.data.name} in their order")
    return replace(purified, labels=original.labels, originals=original.originals)


def _same_size(sample: Sample, others: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    image = sample.image()
    if others and others[0].shape != image.shape:
        raise DataError(sample.shard, f"image is {image.shape[:2]}, others are {others[0].shape[:2]}", key=sample.key)
    return image


def _all_or_none(path: Place, keys: Sequence[str], labels: Sequence[int | None]) -> npt.NDArray[np.int64] | None:
    known = [label for label in labels if label is not None]
    if known and len(known) < len(labels):
        raise DataError(path, "has no label, others in its shard have", key=keys[labels.index(None)])
    return np.array(known, np.int64) if known else None


def _check_fit(task: EvaluateTask, victim: KnownVictim, form: _Images) -> None:
    size, classes, name = victim.source.image_size, victim.num_classes, victim.source.name
    height, width = form.pixels.shape[-2:]
    if size is not None and (height, width) != (size, size):
        way_out = "bring them to that size, or take a victim of theirs"
        if form.path != task.data:
            way_out = (
                f"purify {task.name} with a prior of the victim's size, or with --resize stretch and without "
                "--output-size prior"
            )
        raise DataError(form.path, f"images are {width}x{height}, the victim {name} takes {size} px; {way_out}")
    for labels in (form.labels, form.originals):
        if labels is not None and labels.max() >= classes:
            worst = int(labels.argmax())
            raise DataError(
                task.data,
                f"label {labels[worst]} is not one of the {classes} classes of {name}",
                key=form.keys[worst],
            )


def _tallies(
    split: str,
    answers: Sequence[npt.NDArray[np.int64] | None],
    forms: Sequence[_Images | None],
    classes: int,
    wanted: npt.NDArray[np.int64] | None,
) -> list[Tally | None]:
    """One victim's tallies of each form; the first form is the data as it came."""
    tallies: list[Tally | None] = []
    for number, (given, form) in enumerate(zip(answers, forms, strict=True)):
        if given is None or form is None:
            tallies.append(None)
            continue
        tally = _tally(split, given, form, classes, wanted)
        if number and answers[0] is not None:
            tally.flips = flips(answers[0], given, classes)
        tallies.append(tally)
    return tallies


def _tally(
    split: str,
    predicted: npt.NDArray[np.int64],
    form: _Images,
    classes: int,
    wanted: npt.NDArray[np.int64] | None,
) -> Tally:
    tally = Tally(classes)
    if form.labels is None or form.originals is None:
        return tally
    if split == POISONED_SPLIT:
        tally.asr = attack_success(predicted, form.labels, form.originals)
        tally.pa = poisoned_accuracy(predicted, form.originals)
        tally.ra = robust_accuracy(predicted, form.labels, form.originals)
    else:
        tally.ca = clean_accuracy(predicted, form.labels)
        if wanted is not None and form.labels.max(initial=-1) < len(wanted):
            tally.fpr = false_positives(predicted, wanted[form.labels], form.labels)
    return tally
