"""Measure victims on one shard, before and after purification: what a worker does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zipbatch.cluster import WorkerContext, pick_device
from zipbatch.datasets.labels import Labelling, Unlabelled
from zipbatch.errors import DataError
from zipbatch.images import U8
from zipbatch.metrics import Fidelity, fidelity
from zipbatch.shards.digest import listed_digest
from zipbatch.stages.evaluate.pieces import EvaluateTask, FormImages, Piece, read_pieces
from zipbatch.stages.evaluate.tally import Tally, add_tallies, tallies_of
from zipbatch.stages.evaluate.victims import KnownVictim, ask
from zipbatch.stages.purify.quarantine import quarantined_keys
from zipbatch.victims import Classifier


@dataclass(frozen=True, kw_only=True)
class EvaluateResult:
    """What the victims answer on a shard.

    Attributes:
        name, split: the shard's.
        tallies: ``[v][f]`` of victim v on form f (0: as it came, 1…: purified); None where a form is missing.
        fidelity: ``[f - 1]`` of purified forms.
        answers: ``[v][f]`` int64 [N], in the shard's order; empty unless the setup asks for them. So are the ``keys``,
            and the ``truth``: what the images show, ``UNLABELLED`` where nobody knows.
        quarantined: how many samples of the shard were left out of all this.
        unlabelled: images that only flips are measured on.
        images: how many each victim was asked about in each form.
    """

    name: str
    split: str
    tallies: list[list[Tally | None]]
    fidelity: list[Fidelity | None]
    answers: list[list[npt.NDArray[np.int64] | None]]
    quarantined: int = 0
    unlabelled: Unlabelled = Unlabelled()
    images: int = 0
    keys: tuple[str, ...] = ()
    truth: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class EvaluateSetup:
    """Builds an ``EvaluateWorker`` wherever it is called; picklable.

    Attributes:
        victims: whom to ask.
        keep_answers: return each image's answer.
        wanted: class -> the class that the attacker wants for its images; None where nobody knows.
        labelling: how labels are read.
    """

    victims: tuple[KnownVictim, ...]
    keep_answers: bool = False
    wanted: tuple[int, ...] | None = None
    labelling: Labelling = Labelling()

    def __call__(self, context: WorkerContext) -> EvaluateWorker:
        return EvaluateWorker(self, context)


def by_size(images: Sequence[U8]) -> Iterator[tuple[npt.NDArray[np.int64], Tensor]]:
    """The images of each size [H, W, 3]: their places [M] in the order given, and their pixels uint8 [M, 3, H, W]."""
    shapes = [image.shape for image in images]
    for shape in dict.fromkeys(shapes):
        where = np.array([i for i, other in enumerate(shapes) if other == shape], np.int64)
        yield where, torch.from_numpy(np.stack([images[i].transpose(2, 0, 1) for i in where]))


Ask = Callable[[Tensor], npt.NDArray[np.int64]]


class _Asked:
    """Tells the driver how many answers there are of a shard that is in hand."""

    def __init__(self, context: WorkerContext) -> None:
        self._context, self._count = context, 0

    def counting(self, ask_about: Ask) -> Ask:
        """The same question, counted when it is answered."""

        def counted(pixels: Tensor) -> npt.NDArray[np.int64]:
            answers = ask_about(pixels)
            self._count += len(answers)
            self._context.progress(self._count)
            return answers

        return counted


class EvaluateWorker:
    """Owns loaded victims."""

    def __init__(self, setup: EvaluateSetup, context: WorkerContext) -> None:
        self._context = context
        self._device = pick_device(context.device)
        self._victims, self._keep_answers, self._labelling = setup.victims, setup.keep_answers, setup.labelling
        self._wanted = None if setup.wanted is None else np.array(setup.wanted, np.int64)
        self._classifiers = [victim.source.load(self._device) for victim in setup.victims]

    def __call__(self, task: EvaluateTask) -> EvaluateResult:
        """Tally every victim on every form of the shard, a piece of it at a time.

        Raises:
            DataError: a form is not what is known of it, they do not hold the same samples, or sizes or classes do not
                fit the victims.
        """
        torch.set_num_threads(self._context.compute_threads)
        asked, aside = _Asked(self._context), quarantined_keys(task.quarantine)
        digest = listed_digest(task.data, task.sha256)
        if any(expected not in {None, digest} for expected in task.made_from):
            raise DataError(task.data, "is not what the purified version was made from; purify this data first")
        pieces = read_pieces(task, digest, aside, self._labelling)
        measured = [self._measured(task, piece, asked) for piece in pieces] or [_nothing(task, self._victims)]
        return replace(reduce(_joined, measured), quarantined=len(aside))

    def _measured(self, task: EvaluateTask, piece: Piece, asked: _Asked) -> EvaluateResult:
        forms = piece.forms
        answers = [
            self._answers(task, victim, classifier, forms, asked)
            for victim, classifier in zip(self._victims, self._classifiers, strict=True)
        ]
        tallies = [
            tallies_of(task, given, forms, victim, wanted=self._wanted, promised=self._labelling.promised)
            for victim, given in zip(self._victims, answers, strict=True)
        ]
        fidelity = [
            None if form is None or piece.clean is None else _fidelity(form.pixels, piece.clean) for form in forms[1:]
        ]
        kept = answers if self._keep_answers else []
        return EvaluateResult(
            name=task.name,
            split=task.split,
            tallies=tallies,
            fidelity=fidelity,
            answers=kept,
            unlabelled=piece.unlabelled,
            images=len(piece.suspect.keys),
            keys=tuple(piece.suspect.keys) if self._keep_answers else (),
            truth=tuple(piece.suspect.originals.tolist()) if self._keep_answers else (),
        )

    def _answers(
        self,
        task: EvaluateTask,
        victim: KnownVictim,
        classifier: Classifier,
        forms: Sequence[FormImages | None],
        asked: _Asked,
    ) -> list[npt.NDArray[np.int64] | None]:
        for form in forms:
            if form is not None:
                _check_fit(task, victim, form)
        ask_it = partial(
            ask, victim.source, classifier, classes=victim.num_classes, before_batch=self._context.heartbeat
        )
        ask_about = asked.counting(ask_it)
        return [None if form is None else answers_by_size(ask_about, form.pixels) for form in forms]


def _nothing(task: EvaluateTask, victims: Sequence[KnownVictim]) -> EvaluateResult:
    """The result of a shard without samples."""
    forms = 1 + len(task.purified)
    tallies: list[list[Tally | None]] = [
        [Tally(classes=victim.num_classes) for _ in range(forms)] for victim in victims
    ]
    none = np.empty(0, np.int64)
    answers: list[list[npt.NDArray[np.int64] | None]] = [[none for _ in range(forms)] for _ in victims]
    return EvaluateResult(
        name=task.name, split=task.split, tallies=tallies, fidelity=[None for _ in task.purified], answers=answers
    )


def _joined(one: EvaluateResult, other: EvaluateResult) -> EvaluateResult:
    """What the victims answer on two pieces of a shard."""
    for totals, parts in zip(one.tallies, other.tallies, strict=True):
        add_tallies(totals, parts)
    return replace(
        one,
        fidelity=[None if a is None or b is None else a + b for a, b in zip(one.fidelity, other.fidelity, strict=True)],
        answers=[
            [None if a is None or b is None else np.concatenate([a, b]) for a, b in zip(first, second, strict=True)]
            for first, second in zip(one.answers, other.answers, strict=True)
        ],
        unlabelled=one.unlabelled + other.unlabelled,
        images=one.images + other.images,
        keys=one.keys + other.keys,
        truth=one.truth + other.truth,
    )


def answers_by_size(
    ask_about: Callable[[Tensor], npt.NDArray[np.int64]], images: Sequence[U8]
) -> npt.NDArray[np.int64]:
    """The answers on images [H, W, 3] of any sizes, int64 [N], asked about those of one size at a time."""
    answers = np.empty(len(images), np.int64)
    for where, pixels in by_size(images):
        answers[where] = ask_about(pixels)
    return answers


def _fidelity(images: Sequence[U8], clean: Sequence[U8]) -> Fidelity | None:
    """Over images of one size; None where some differ in size from their clean ones, or are too small to measure."""
    if any(one.shape != other.shape or min(one.shape[:2]) < 11 for one, other in zip(images, clean, strict=True)):
        return None
    parts = (fidelity(one, other) for (_, one), (_, other) in zip(by_size(images), by_size(clean), strict=True))
    return sum(parts, Fidelity())


def _check_fit(task: EvaluateTask, victim: KnownVictim, form: FormImages) -> None:
    size, name = victim.source.image_size, victim.source.name
    for key, image in zip(form.keys, form.pixels, strict=True):
        if size is None or image.shape[:2] == (size, size):
            continue
        way_out = "bring them to that size, or take a victim of theirs"
        if form.path != task.data:
            way_out = (
                f"purify {task.name} with a prior of the victim's size, or with --resize stretch and without "
                "--output-size prior"
            )
        reason = f"image is {image.shape[1]}x{image.shape[0]}, the victim {name} takes {size} px; {way_out}"
        raise DataError(form.path, reason, key=key)
