"""How strong must purification be? Answered from a victim's answers alone, without labels or trigger.

A backdoor shows itself in what purification undoes. Images with the trigger are answered with one class, the target,
until the trigger is washed out, and with their own classes afterwards; images without it drift in small numbers from
every class to every other. So the images that leave one class far more often than others leave theirs are suspects, and
the share of them that a weaker purification still leaves in that class estimates its attack success rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
MIN_SUSPECTS = 8.0
"""Fewer images than this are no evidence: purification moves as many by itself."""
OUTLIER = 2.0
"""The suspect class must lose this many times the share that the next class loses, or it is drift."""


@dataclass(frozen=True)
class Rung:
    """One strength, judged.

    Attributes:
        agreement: share of the unsuspected images whose answer is that without a defence, 0 to 1.
        residual: estimated share of the images with the trigger that are still taken for the target, 0 to 1; None when
            there are no suspects.
    """

    agreement: float
    residual: float | None


@dataclass(frozen=True)
class Judgement:
    """What the answers say.

    Attributes:
        suspect: the class that images flee, None when no class stands out.
        triggered: estimated number of images with the trigger, 0 when no class stands out.
        rungs: as given, weakest first.
    """

    suspect: int | None
    triggered: float
    rungs: tuple[Rung, ...]


def judge(undefended: Ints, rungs: Ints, *, classes: int) -> Judgement:
    """Judge strengths by a victim's answers on the same N images.

    The strongest rung is the yardstick: what it cannot wash out is not seen here.

    Args:
        undefended: answers on the images as they came, int64 [N].
        rungs: answers after purification, int64 [R, N], weakest first.
        classes: number of classes, 2 or more.

    Raises:
        ValueError: shapes that do not fit, no rung, or fewer than two classes.
    """
    if rungs.ndim != 2 or not len(rungs) or rungs.shape[1:] != undefended.shape:
        raise ValueError(f"need answers [R, N] after purification, got {rungs.shape} for {undefended.shape}")
    if classes < 2:
        raise ValueError(f"need two classes or more, got {classes}")
    strongest = rungs[-1]
    answered = np.bincount(undefended, minlength=classes)
    leaves = np.bincount(undefended[undefended != strongest], minlength=classes)
    stays = np.bincount(strongest, minlength=classes)
    drift_rates = leaves / np.maximum(1, answered)
    pooled = (leaves.sum() - leaves) / np.maximum(1, answered.sum() - answered)
    suspect = int((leaves - pooled * stays).argmax())
    drift = float(pooled[suspect] * stays[suspect])
    triggered = float(leaves[suspect]) - drift
    worst = float(np.delete(drift_rates, suspect).max())
    if triggered < max(MIN_SUSPECTS, 3 * math.sqrt(drift)) or leaves[suspect] < OUTLIER * worst * stays[suspect]:
        return Judgement(None, 0.0, tuple(Rung(_share(answers == undefended), None) for answers in rungs))
    suspects = (undefended == suspect) & (strongest != suspect)
    drifted = (undefended != suspect) & (strongest != undefended)
    return Judgement(
        suspect,
        triggered,
        tuple(
            Rung(
                _share((answers == undefended)[~suspects]),
                _residual(
                    kept=int((answers == suspect)[suspects].sum()),
                    returning=_share((answers == undefended)[drifted]),
                    drift=drift,
                    triggered=triggered,
                ),
            )
            for answers in rungs
        ),
    )


def weakest_sufficient(judgement: Judgement, *, limit: float) -> int | None:
    """Index of the weakest rung from which on every rung has an estimated residual of ``limit`` or less.

    None when no class stands out, so that nothing can be said.
    """
    if judgement.suspect is None:
        return None
    chosen = len(judgement.rungs) - 1
    while chosen > 0 and (judgement.rungs[chosen - 1].residual or 0.0) <= limit:
        chosen -= 1
    return chosen


def _residual(*, kept: int, returning: float, drift: float, triggered: float) -> float:
    """Suspects still in the suspect class, less the drifted images among them that return at this strength."""
    return min(1.0, max(0.0, (kept - drift * returning) / triggered))


def _share(mask: npt.NDArray[np.bool_]) -> float:
    return float(mask.mean()) if mask.size else 0.0
