"""How strong must purification be? Answered from a victim's answers alone, without labels or trigger.

A backdoor shows itself in what purification undoes. Images with the trigger are answered with one class, the target,
until the trigger is washed out, and with their own classes, whatever these are, afterwards. Images without it drift:
from every class a few, most of them to the one or two classes that it is easily taken for. So a class that loses far
more images than the others do, to many classes at once, is the suspect; and the share of the images it has lost that a
weaker purification still leaves in it estimates that strength's attack success rate.

A pattern all over an image drives clean classifiers, too, to a class that purification takes the image out of. But
they are not sure of it. A backdoored one was trained to answer the trigger with the target, and is as sure of these
images as of any.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from zipbatch.metrics.classification import wilson_interval

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
MIN_TRIGGERED = 8.0
"""Fewer images than this are no evidence."""
OUTLIER = 5.0
"""Standard deviations, of counting and of how classes differ among themselves, by which a suspect must stand out."""
NEIGHBOURS = 2
"""Classes to which drift goes first of all: what a class loses to so many is not held against it."""

SURE = 0.45
"""How sure a victim must be of its answers on the images that a suspect loses: the share of pairs, of such an image and
another one, in which it is surer of the first (docs/results.md)."""
HELD_AGAINST = 0.1
"""Where a smaller share of the images is answered with another class, there is nothing to hold the sureness against."""

ASSUMED_DRIFT, ASSUMED_IMAGES = 0.2, 20.0
"""What the other classes lose is not known where there are hardly any: so much is assumed, worth so many images."""


@dataclass(frozen=True)
class Candidate:
    """One strength, judged.

    Attributes:
        agreement: share of the unsuspected images whose answer is that without a defence, 0 to 1.
        residual: estimated share of the images with the trigger that are still taken for the target, 0 to 1; None when
            no class stands out.
        residual_upper: upper end of its 95 % Wilson interval.
    """

    agreement: float
    residual: float | None = None
    residual_upper: float | None = None


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What the answers say.

    Attributes:
        suspect: the class that images flee, None when no class stands out.
        triggered: estimated number of images with the trigger, 0 when no class stands out.
        candidates: as given, weakest first.
        sigmas: by how much a class stands out at most, in standard deviations.
        driven: a class that stands out and is no suspect: the victim is not sure of the images that flee it.
        sureness: of the class that stands out, what ``SURE`` asks for; None where none does or nobody knows.
    """

    suspect: int | None
    triggered: float
    candidates: tuple[Candidate, ...]
    sigmas: float = 0.0
    driven: int | None = None
    sureness: float | None = None


@dataclass(frozen=True, kw_only=True)
class Departure:
    """What a class loses at one strength beside what the others lose.

    Attributes:
        index: of the class.
        leaves: images that it loses, but for those to its nearest neighbours.
        excess: how many of them are beyond drift; below 0 where it loses less.
        deviation: standard deviation of that where there is drift alone, in images.
    """

    index: int
    leaves: int
    excess: float
    deviation: float

    @property
    def sigmas(self) -> float:
        """How far the class stands out, in standard deviations."""
        return self.excess / self.deviation

    @property
    def needed(self) -> float:
        """The least excess by which it would be a suspect."""
        return max(MIN_TRIGGERED, OUTLIER * self.deviation)


def judge(undefended: Ints, candidates: Ints, *, classes: int, shares: Floats | None = None) -> Judgement:
    """Judge strengths by a victim's answers on the same N images.

    A suspect may stand out at any strength; what is left of the attack is measured by the strongest, which is the
    yardstick: what it cannot wash out is not seen here.

    Args:
        undefended: answers on the images as they came, int64 [N].
        candidates: answers after purification, int64 [R, N], weakest first.
        classes: number of classes, 2 or more.
        shares: of 1, what the victim gives its answers on the images as they came, float64 [N], or whatever else says
            of which it is surer; None where nobody knows: then sure or not, a class that stands out is the suspect.

    Raises:
        ValueError: shapes that do not fit, no candidate, or fewer than two classes.
    """
    found, strength = max(
        ((one, r) for r, of_one in enumerate(departures(undefended, candidates, classes=classes)) for one in of_one),
        key=lambda each: each[0].sigmas,
    )
    if shares is not None and shares.shape != undefended.shape:
        raise ValueError(f"need a share for each of {undefended.shape} answers, got {shares.shape}")
    stands_out = found.sigmas >= OUTLIER and found.excess >= MIN_TRIGGERED
    measured = _measured(undefended, candidates, found) if stands_out else _unsuspected(undefended, candidates, found)
    if not stands_out or shares is None or _share(undefended != found.index) < HELD_AGAINST:
        return measured
    sureness = _sureness(shares, *_fleeing(undefended, candidates[strength], found))
    if sureness >= SURE:
        return replace(measured, sureness=sureness)
    return replace(_unsuspected(undefended, candidates, found), driven=found.index, sureness=sureness)


def _unsuspected(undefended: Ints, candidates: Ints, found: Departure) -> Judgement:
    shares = tuple(Candidate(_share(answers == undefended)) for answers in candidates)
    return Judgement(suspect=None, triggered=0.0, candidates=shares, sigmas=found.sigmas)


def _sureness(shares: Floats, fleeing: npt.NDArray[np.bool_], triggered: float) -> float:
    """How often the victim is surer of one of the images that flee than of one that does not; equal ones count half. Of
    those that flee, as many as are thought to carry the trigger are looked at, the surest: the others drift.
    """
    surest, others = np.sort(shares[fleeing])[::-1][: math.ceil(triggered)], np.sort(shares[~fleeing])
    below = np.searchsorted(others, surest, "left") + np.searchsorted(others, surest, "right")
    return float(below.mean() / 2 / len(others)) if len(others) else 1.0


def departures(undefended: Ints, candidates: Ints, *, classes: int) -> tuple[tuple[Departure, ...], ...]:
    """What each class loses at each strength, ``[r][c]``: what a judgement goes by. Arguments and errors as there."""
    if candidates.ndim != 2 or not len(candidates) or candidates.shape[1:] != undefended.shape:
        raise ValueError(f"need answers [R, N] after purification, got {candidates.shape} for {undefended.shape}")
    if classes < 2:
        raise ValueError(f"need two classes or more, got {classes}")
    return tuple(_departures(undefended, answers, classes) for answers in candidates)


def neighbours(classes: int) -> int:
    """How many classes are left aside among those that a class loses images to: two, or fewer where there are few."""
    return min(NEIGHBOURS, (classes - 1) // 3)


def choose_candidate(judgement: Judgement, *, own: int, limit: float) -> int:
    """Index of the candidate to take, where ``own`` is the one to take without evidence.

    Stronger than ``own`` if that leaves more than ``limit`` of the attack: the weakest from which on no candidate does.
    Weaker only on good evidence: as long as the upper end of the interval is within ``limit``.
    """
    candidates = judgement.candidates
    if judgement.suspect is None:
        return own
    enough = [all((candidate.residual or 0.0) <= limit for candidate in candidates[i:]) for i in range(len(candidates))]
    chosen = next(i for i in range(own, len(candidates)) if enough[i] or i == len(candidates) - 1)
    while chosen <= own and chosen > 0 and _within(candidates[chosen - 1], limit):
        chosen -= 1
    return chosen


def _within(candidate: Candidate, limit: float) -> bool:
    return candidate.residual_upper is not None and candidate.residual_upper <= limit


def _departures(undefended: Ints, answers: Ints, classes: int) -> tuple[Departure, ...]:
    """What each class loses at one strength; losses to its nearest neighbours are left aside."""
    flow = np.zeros((classes, classes), np.int64)
    np.add.at(flow, (undefended, answers), 1)
    answered, stays = flow.sum(axis=1), flow.sum(axis=0)
    np.fill_diagonal(flow, 0)
    leaves = np.sort(flow, axis=1)[:, : classes - neighbours(classes)].sum(axis=1)
    return tuple(_beside_others(c, leaves, answered, int(stays[c])) for c in range(classes))


def _beside_others(index: int, leaves: Ints, answered: Ints, stays: int) -> Departure:
    """One class against the others. ``stays`` stands for the images that are of it in truth."""
    others = np.arange(len(leaves)) != index
    weights = answered[others]
    seen = float(weights.sum())
    pooled = (float(leaves[others].sum()) + ASSUMED_DRIFT * ASSUMED_IMAGES) / (seen + ASSUMED_IMAGES)
    rates = leaves[others] / np.maximum(1, weights)
    variance = float((weights * (rates - pooled) ** 2).sum()) / max(1.0, seen)
    spread = max(math.sqrt(variance), pooled / 2)
    lost = int(leaves[index])
    return Departure(
        index=index,
        leaves=lost,
        excess=lost - stays * pooled,
        deviation=math.sqrt(1 + stays * pooled + (stays * spread) ** 2),
    )


def _fleeing(undefended: Ints, answers: Ints, found: Departure) -> tuple[npt.NDArray[np.bool_], float]:
    """The images that leave the suspect at one strength, and how many of them are thought to carry the trigger."""
    fleeing = (undefended == found.index) & (answers != found.index)
    return fleeing, max(found.excess, float(fleeing.sum()) - _drift(undefended, answers, found.index))


def _drift(undefended: Ints, answers: Ints, suspect: int) -> float:
    """How many images of the suspect class itself flee it as those of others flee theirs."""
    others = undefended != suspect
    return _share(answers[others] != undefended[others]) * float((answers == suspect).sum())


def _measured(undefended: Ints, candidates: Ints, found: Departure) -> Judgement:
    """What each strength leaves of the images that the strongest takes out of the suspect class."""
    suspect, strongest = found.index, candidates[-1]
    suspects, triggered = _fleeing(undefended, strongest, found)
    drift, drifted = _drift(undefended, strongest, suspect), (undefended != suspect) & (strongest != undefended)
    measured = []
    for answers in candidates:
        returned = drift * _share((answers == undefended)[drifted])  # drifted images of the class itself, not triggered
        kept = min(triggered, max(0.0, float((answers[suspects] == suspect).sum()) - returned))
        _, upper = wilson_interval(kept, triggered)
        measured.append(Candidate(_share((answers == undefended)[~suspects]), kept / triggered, upper))
    return Judgement(suspect=suspect, triggered=triggered, candidates=tuple(measured), sigmas=found.sigmas)


def _share(mask: Sequence[bool] | npt.NDArray[np.bool_]) -> float:
    return float(np.mean(mask)) if len(mask) else 0.0
