"""What victims answer on one shard: asked piece by piece, or known from before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from zipbatch.datasets.labels import Unlabelled
from zipbatch.metrics import Fidelity
from zipbatch.stages.evaluate.pieces import EvaluateTask
from zipbatch.stages.evaluate.tally import Tally, add_tallies
from zipbatch.stages.evaluate.victims import KnownVictim, Replies
from zipbatch.store import ShardAnswers

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
T = TypeVar("T", bound=np.generic)
_Forms = list[list[npt.NDArray[T] | None]]


@dataclass(frozen=True, kw_only=True)
class EvaluateResult:
    """What the victims answer on a shard.

    Attributes:
        name, split: the shard's.
        tallies: ``[v][f]`` of victim v on form f (0: as it came, 1…: purified); None where a form is missing.
        fidelity: ``[f - 1]`` of purified forms.
        answers: ``[v][f]`` int64 [N], in the shard's order; empty unless the setup asks for them. So are the ``shares``
            of 1 that they are given, float64 [N], the ``keys``, and the ``truth``: what the images show, ``UNLABELLED``
            where nobody knows.
        quarantined: how many samples of the shard were left out of all this.
        unlabelled: images that only flips are measured on.
        images: how many each victim was asked about in each form.
        reused: answers that were kept from before.
        digest: of the shard as it came.
    """

    name: str
    split: str
    tallies: list[list[Tally | None]]
    fidelity: list[Fidelity | None]
    answers: list[list[Ints | None]]
    shares: list[list[Floats | None]]
    quarantined: int = 0
    unlabelled: Unlabelled = Unlabelled()
    images: int = 0
    keys: tuple[str, ...] = ()
    truth: tuple[int, ...] = ()
    reused: int = 0
    digest: str = ""

    def replies(self, victim: int) -> list[Replies | None]:
        """What that victim says of each form."""
        both = zip(self.answers[victim], self.shares[victim], strict=True)
        return [None if answers is None or shares is None else Replies(answers, shares) for answers, shares in both]


def all_known(task: EvaluateTask, kept: Sequence[Sequence[ShardAnswers | None]]) -> EvaluateResult | None:
    """What every victim answered on every form, where all of it is kept, and is on the same images."""
    forms = [form for of_victim in kept for form in of_victim if form is not None]
    if len(forms) < len(kept) * (1 + len(task.purified)) or len({form.keys for form in forms}) != 1:
        return None
    nothing: list[list[Tally | None]] = [[None for _ in of_victim] for of_victim in kept]
    fidelity: list[Fidelity | None] = [None for _ in task.purified]
    images = len(forms[0].keys)
    return EvaluateResult(
        name=task.name,
        split=task.split,
        tallies=nothing,
        fidelity=fidelity,
        answers=[[None if form is None else np.array(form.answers, np.int64) for form in given] for given in kept],
        shares=[[None if form is None else np.array(form.shares, np.float64) for form in given] for given in kept],
        images=images,
        keys=forms[0].keys,
        reused=images * len(forms),
    )


def nothing_asked(task: EvaluateTask, victims: Sequence[KnownVictim]) -> EvaluateResult:
    """The result of a shard without samples."""
    forms = 1 + len(task.purified)
    tallies: list[list[Tally | None]] = [
        [Tally(classes=victim.num_classes) for _ in range(forms)] for victim in victims
    ]
    return EvaluateResult(
        name=task.name,
        split=task.split,
        tallies=tallies,
        fidelity=[None for _ in task.purified],
        answers=[[np.empty(0, np.int64) for _ in range(forms)] for _ in victims],
        shares=[[np.empty(0) for _ in range(forms)] for _ in victims],
    )


def joined(one: EvaluateResult, other: EvaluateResult) -> EvaluateResult:
    """What the victims answer on two pieces of a shard."""
    for totals, parts in zip(one.tallies, other.tallies, strict=True):
        add_tallies(totals, parts)
    return replace(
        one,
        fidelity=[None if a is None or b is None else a + b for a, b in zip(one.fidelity, other.fidelity, strict=True)],
        answers=_end_to_end(one.answers, other.answers),
        shares=_end_to_end(one.shares, other.shares),
        unlabelled=one.unlabelled + other.unlabelled,
        images=one.images + other.images,
        keys=one.keys + other.keys,
        truth=one.truth + other.truth,
    )


def _end_to_end(one: _Forms[T], other: _Forms[T]) -> _Forms[T]:
    return [
        [None if a is None or b is None else np.concatenate([a, b]) for a, b in zip(first, second, strict=True)]
        for first, second in zip(one, other, strict=True)
    ]
