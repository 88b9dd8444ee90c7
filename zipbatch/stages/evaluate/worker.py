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
from zipbatch.datasets.labels import Labelling
from zipbatch.errors import DataError
from zipbatch.images import U8
from zipbatch.metrics import Fidelity, fidelity
from zipbatch.shards.digest import listed_digest
from zipbatch.stages.evaluate.kept import KeptAnswers, victim_digest
from zipbatch.stages.evaluate.pieces import EvaluateTask, FormImages, Piece, read_pieces
from zipbatch.stages.evaluate.shard_result import EvaluateResult, all_known, joined, nothing_asked
from zipbatch.stages.evaluate.tally import tallies_of
from zipbatch.stages.evaluate.victims import KnownVictim, Replies, ask
from zipbatch.stages.purify.quarantine import quarantined_keys
from zipbatch.storage import StoragePath
from zipbatch.store import ShardAnswers, Store


@dataclass(frozen=True, kw_only=True)
class EvaluateSetup:
    """Builds an ``EvaluateWorker`` wherever it is called; picklable.

    Attributes:
        victims: whom to ask.
        keep_answers: return each image's answer.
        store: the store that keeps answers, where images are not asked about that were before; None without. What is
            known is not even read: such shards have no tallies.
        wanted: class -> the class that the attacker wants for its images; None where nobody knows.
        labelling: how labels are read.
    """

    victims: tuple[KnownVictim, ...]
    keep_answers: bool = False
    wanted: tuple[int, ...] | None = None
    labelling: Labelling = Labelling()
    store: StoragePath | None = None

    def __call__(self, context: WorkerContext) -> EvaluateWorker:
        return EvaluateWorker(self, context)


def by_size(images: Sequence[U8]) -> Iterator[tuple[npt.NDArray[np.int64], Tensor]]:
    """The images of each size [H, W, 3]: their places [M] in the order given, and their pixels uint8 [M, 3, H, W]."""
    shapes = [image.shape for image in images]
    for shape in dict.fromkeys(shapes):
        where = np.array([i for i, other in enumerate(shapes) if other == shape], np.int64)
        yield where, torch.from_numpy(np.stack([images[i].transpose(2, 0, 1) for i in where]))


Ask = Callable[[Tensor], Replies]


class _Asked:
    """Knows what needs no asking about a shard in hand, and tells the driver how many answers there are of it.

    ``kept[v][f]`` is what is kept of victim v on form f, ``reused`` how many of these answers were taken.
    """

    def __init__(self, context: WorkerContext, kept: Sequence[Sequence[ShardAnswers | None]]) -> None:
        self._context, self._count, self.reused = context, 0, 0
        self._known = [[None if form is None else form.by_key for form in forms] for forms in kept]

    def counting(self, ask_about: Ask) -> Ask:
        """The same question, counted when it is answered."""

        def counted(pixels: Tensor) -> Replies:
            replies = ask_about(pixels)
            self._count += len(replies.answers)
            self._context.progress(self._count)
            return replies

        return counted

    def known(self, victim: int, form: int, keys: Sequence[str]) -> Replies | None:
        """What is kept of these images, None unless of all."""
        known = self._known[victim][form] if self._known[victim] else None
        if known is None or not known.keys() >= set(keys):
            return None
        self.reused += len(keys)
        answers, shares = zip(*(known[key] for key in keys), strict=True)
        return Replies(np.array(answers, np.int64), np.array(shares, np.float64))


class EvaluateWorker:
    """Owns loaded victims."""

    def __init__(self, setup: EvaluateSetup, context: WorkerContext) -> None:
        self._context = context
        self._device = pick_device(context.device)
        self._victims, self._keep_answers, self._labelling = setup.victims, setup.keep_answers, setup.labelling
        self._wanted = None if setup.wanted is None else np.array(setup.wanted, np.int64)
        self._classifiers = [victim.source.load(self._device) for victim in setup.victims]
        self._kept = [None if setup.store is None else self._keeper(Store(setup.store), v) for v in setup.victims]

    def _keeper(self, store: Store, victim: KnownVictim) -> KeptAnswers | None:
        digest = victim_digest(victim.source, self._device)
        return None if digest is None else KeptAnswers(store, digest, victim.num_classes)

    def __call__(self, task: EvaluateTask) -> EvaluateResult:
        """Tally every victim on every form of the shard, a piece of it at a time.

        Raises:
            DataError: a form is not what is known of it, they do not hold the same samples, or sizes or classes do not
                fit the victims.
        """
        torch.set_num_threads(self._context.compute_threads)
        aside = quarantined_keys(task.quarantine)
        digest = listed_digest(task.data, task.sha256)
        if any(expected not in {None, digest} for expected in task.made_from):
            raise DataError(task.data, "is not what the purified version was made from; purify this data first")
        kept = [[] if keeper is None else keeper.of(task, digest) for keeper in self._kept]
        if (known := all_known(task, kept)) is not None:
            return replace(known, quarantined=len(aside), digest=digest)
        asked = _Asked(self._context, kept)
        pieces = read_pieces(task, digest, aside, self._labelling)
        measured = [self._measured(task, piece, asked) for piece in pieces] or [nothing_asked(task, self._victims)]
        result = replace(reduce(joined, measured), quarantined=len(aside), digest=digest, reused=asked.reused)
        for number, keeper in enumerate(self._kept):
            if keeper is not None:
                keeper.keep(task, digest, result.keys, result.replies(number), besides=kept[number])
        return result

    def _measured(self, task: EvaluateTask, piece: Piece, asked: _Asked) -> EvaluateResult:
        forms = piece.forms
        replies = [self._replies(task, number, forms, asked) for number in range(len(self._victims))]
        answers = [[None if reply is None else reply.answers for reply in of_victim] for of_victim in replies]
        shares = [[None if reply is None else reply.shares for reply in of_victim] for of_victim in replies]
        tallies = [
            tallies_of(task, given, forms, victim, wanted=self._wanted, promised=self._labelling.promised)
            for victim, given in zip(self._victims, answers, strict=True)
        ]
        fidelity = [
            None if form is None or piece.clean is None else _fidelity(form.pixels, piece.clean) for form in forms[1:]
        ]
        return EvaluateResult(
            name=task.name,
            split=task.split,
            tallies=tallies,
            fidelity=fidelity,
            answers=answers if self._keep_answers else [],
            shares=shares if self._keep_answers else [],
            unlabelled=piece.unlabelled,
            images=len(piece.suspect.keys),
            keys=tuple(piece.suspect.keys) if self._keep_answers else (),
            truth=tuple(piece.suspect.originals.tolist()) if self._keep_answers else (),
        )

    def _replies(
        self, task: EvaluateTask, number: int, forms: Sequence[FormImages | None], asked: _Asked
    ) -> list[Replies | None]:
        """Of victim ``number``; those that are kept it is not asked for."""
        victim, classifier = self._victims[number], self._classifiers[number]
        for form in forms:
            if form is not None:
                _check_fit(task, victim, form)
        ask_it = partial(
            ask, victim.source, classifier, classes=victim.num_classes, before_batch=self._context.heartbeat
        )
        ask_about = asked.counting(ask_it)
        replies: list[Replies | None] = []
        for place, form in enumerate(forms):
            known = None if form is None else asked.known(number, place, form.keys)
            replies.append(replies_by_size(ask_about, form.pixels) if known is None and form is not None else known)
        return replies


def replies_by_size(ask_about: Ask, images: Sequence[U8]) -> Replies:
    """What is said of images [H, W, 3] of any sizes, asked about those of one size at a time."""
    replies = Replies(np.empty(len(images), np.int64), np.empty(len(images)))
    for where, pixels in by_size(images):
        replies.answers[where], replies.shares[where] = ask_about(pixels)
    return replies


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
                f"purify {task.name} with a prior of the victim's size, or with ‹resize='stretch'› and without "
                "‹output_size='prior'›"
            )
        reason = f"image is {image.shape[1]}x{image.shape[0]}, the victim {name} takes {size} px; {way_out}"
        raise DataError(form.path, reason, key=key)
