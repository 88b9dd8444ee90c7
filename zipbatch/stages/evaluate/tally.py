"""What one victim's answers on the forms of a shard come to, counted, so that shards add up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from zipbatch.datasets.labels import Unlabelled
from zipbatch.datasets.staged import POISONED_SPLIT
from zipbatch.errors import DataError
from zipbatch.metrics import (
    Paired,
    Share,
    attack_success,
    clean_accuracy,
    collapsed,
    disrupted,
    false_positives,
    flips,
    paired,
    poisoned_accuracy,
    robust_accuracy,
)
from zipbatch.stages.evaluate.pieces import EvaluateTask, FormImages
from zipbatch.stages.evaluate.victims import KnownVictim

SHARES = ("ca", "asr", "fpr", "pa", "ra", "disrupted", "collapsed")
"""Measures that are shares of images."""
CLEAN, TRIGGERED = "clean", "triggered"


@dataclass(kw_only=True)
class Tally:
    """What one victim answers on one form of the images; tallies of shards add up. ``beyond`` images have a label that
    is none of the victim's ``classes``. ``confusion`` counts images by (true class, answer), those with a trigger under
    ``TRIGGERED`` and all others under ``CLEAN``.
    """

    classes: int
    ca: Share = Share()
    asr: Share = Share()
    fpr: Share = Share()
    pa: Share = Share()
    ra: Share = Share()
    disrupted: Share = Share()
    collapsed: Share = Share()
    paired: dict[str, Paired] = field(default_factory=dict)
    flips: Counter[tuple[int, int]] | None = None
    beyond: Unlabelled = Unlabelled()
    confusion: dict[str, Counter[tuple[int, int]]] = field(default_factory=dict)

    @property
    def shares(self) -> dict[str, Share]:
        """The measures that are shares of images, by name; of none where the labels are not the victim's classes."""
        return {name: Share() if self.beyond.count else getattr(self, name) for name in SHARES}

    def add(self, other: Tally) -> None:
        """Add another shard's counts to these."""
        self.beyond += other.beyond
        for name in SHARES:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name, counts in other.paired.items():
            self.paired[name] = self.paired.get(name, Paired()) + counts
        for name, pairs in other.confusion.items():
            self.confusion[name] = self.confusion.get(name, Counter()) + pairs
        if other.flips is not None:
            self.flips = other.flips if self.flips is None else self.flips + other.flips


def add_tallies(totals: Sequence[Tally | None], parts: Sequence[Tally | None]) -> None:
    """Add tallies of one victim's forms to the totals; a form that is missing adds nothing."""
    for total, part in zip(totals, parts, strict=True):
        if total is not None and part is not None:
            total.add(part)


def tallies_of(
    task: EvaluateTask,
    answers: Sequence[npt.NDArray[np.int64] | None],
    forms: Sequence[FormImages | None],
    victim: KnownVictim,
    *,
    wanted: npt.NDArray[np.int64] | None,
    promised: bool,
) -> list[Tally | None]:
    """One victim's tallies of each form; the first form is the data as it came.

    Raises:
        DataError: labels that the victim does not know, where they are ``promised``.
    """
    tallies: list[Tally | None] = []
    for number, (given, form) in enumerate(zip(answers, forms, strict=True)):
        if given is None or form is None:
            tallies.append(None)
            continue
        tally = _tally(task.split, given, form, victim.num_classes, wanted)
        tally.beyond = _beyond(task, victim, form, promised=promised)
        if number and answers[0] is not None:
            tally.flips = flips(answers[0], given)
            if task.split != POISONED_SPLIT:
                known = form.originals >= 0
                tally.collapsed = collapsed(answers[0][known], given[known], form.labels[known])
        if number > 1 and answers[1] is not None:
            tally.paired = _held_against(answers[1], given, form, stamped=task.split == POISONED_SPLIT)
        tallies.append(tally)
    return tallies


def _held_against(
    first: npt.NDArray[np.int64], given: npt.NDArray[np.int64], form: FormImages, *, stamped: bool
) -> dict[str, Paired]:
    """The answers of a purified form beside those of the first purified one, on images that have a label."""
    counted = (form.originals >= 0) & (~np.bool_(stamped) | (form.originals != form.labels))
    wanted = form.labels[counted]
    return {"asr" if stamped else "ca": paired(given[counted] == wanted, first[counted] == wanted)}


def _beyond(task: EvaluateTask, victim: KnownVictim, form: FormImages, *, promised: bool) -> Unlabelled:
    """Labels that are none of the victim's classes."""
    labels = np.maximum(form.labels, form.originals)
    if labels.max(initial=-1) < victim.num_classes:
        return Unlabelled()
    worst = int(labels.argmax())
    reason = f"label {labels[worst]} is not one of the {victim.num_classes} classes of {victim.source.name}"
    error = DataError(task.data, reason, key=form.keys[worst])
    if promised:
        raise error
    return Unlabelled(int((labels >= victim.num_classes).sum()), str(error))


def _tally(
    split: str,
    predicted: npt.NDArray[np.int64],
    form: FormImages,
    classes: int,
    wanted: npt.NDArray[np.int64] | None,
) -> Tally:
    """Of the images that have a label."""
    known = form.originals >= 0
    predicted, labels, originals = predicted[known], form.labels[known], form.originals[known]
    tally = Tally(classes=classes)
    tally.confusion = {TRIGGERED if split == POISONED_SPLIT else CLEAN: flips(originals, predicted)}
    if split == POISONED_SPLIT:
        tally.asr = attack_success(predicted, labels, originals)
        tally.pa = poisoned_accuracy(predicted, originals)
        tally.ra = robust_accuracy(predicted, labels, originals)
        tally.disrupted = disrupted(predicted, labels, originals)
    else:
        tally.ca = clean_accuracy(predicted, labels)
        if wanted is not None and labels.max(initial=-1) < len(wanted):
            tally.fpr = false_positives(predicted, wanted[labels], labels)
    return tally
