"""Is a victim backdoored, and by which images? Answered from its answers alone, by the rule of ``metrics/strength.py``.

What that rule takes for the target of a backdoor is the verdict. An image is a suspect if it was answered with that
class and leaves it when it is purified. How much an image looks triggered is told without a verdict, too: by how many
more images leave its class than drift takes out of the others. Images that a pattern drives to a class of which the
victim is not sure are suspects, too, and the victim is not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from zipbatch.metrics.strength import Departure, Floats, Ints, Judgement, departures, judge, neighbours

Finding = Literal["backdoored", "nothing found", "too few images", "manipulated images"]
FALSE_ALARMS = 0.01
"""Share of samples of clean images, at most, in which a class is accused: what the rule's limits keep to
(docs/results.md)."""
_SURE = 2.0
"""Standard deviations beyond the rule's limits, with which a class is all but sure to be over them."""


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What the answers say of a victim and of each of N images.

    Attributes:
        finding: the verdict.
        judgement: what it goes by; its ``suspect`` is the target class, or images are ``driven`` to another.
        least: so many images with the trigger would have been found, whichever class is its target, if purification
            takes it out.
        scores: float64 [N], 0 to 1: of what the image's class loses, the share that drift does not explain, by a low
            estimate; 0 where the image stays; on average over the forms. A form that moves an image never lowers it.
        moved: int64 [N], in how many forms the answer is another one.
        suspects: bool [N], of that class and moved away from it by half of the forms or more.
        flip_rate: share of answers that the last form changes.
    """

    finding: Finding
    judgement: Judgement
    least: int
    scores: npt.NDArray[np.float64]
    moved: Ints
    suspects: npt.NDArray[np.bool_]
    flip_rate: float


def audit(undefended: Ints, forms: Ints, *, classes: int, share: float, shares: Floats | None = None) -> Audit:
    """Judge a victim by its answers on the same N images.

    Args:
        undefended: answers on the images as they came, int64 [N].
        forms: answers after purification in R ways, int64 [R, N], the weakest first.
        classes: number of classes, 2 or more.
        share: of images with the trigger which must not be missed for nothing to be found, 0 to 1.
        shares: how sure the victim is of its answers on the images as they came, as for ``judge``.

    Raises:
        ValueError: shapes that do not fit, no form, or fewer than two classes.
    """
    judgement = judge(undefended, forms, classes=classes, shares=shares)
    lost = departures(undefended, forms, classes=classes)
    least, changed = _least(lost, classes), forms != undefended
    moved, fled = changed.sum(axis=0), judgement.driven if judgement.suspect is None else judgement.suspect
    return Audit(
        finding=_finding(judgement, least, images=len(undefended), share=share),
        judgement=judgement,
        least=least,
        scores=_scores(undefended, changed, lost),
        moved=moved,
        suspects=(undefended == (-1 if fled is None else fled)) & (2 * moved >= len(forms)),
        flip_rate=float(changed[-1].mean()) if len(undefended) else 0.0,
    )


def _finding(judgement: Judgement, least: int, *, images: int, share: float) -> Finding:
    if judgement.suspect is not None:
        return "backdoored"
    if judgement.driven is not None:
        return "manipulated images"
    return "too few images" if least > share * images else "nothing found"


def _least(lost: Sequence[Sequence[Departure]], classes: int) -> int:
    """Images with the trigger that make any class stand out. They are of all classes: those that are of the target do
    not leave it, and those that go to its neighbours are not counted.
    """
    counted = (classes - 1 - neighbours(classes)) / classes
    needed: float = max(min(one.needed + _SURE * one.deviation for one in forms) for forms in zip(*lost, strict=True))
    return math.ceil(needed / counted)


def _scores(
    undefended: Ints, changed: npt.NDArray[np.bool_], lost: Sequence[Sequence[Departure]]
) -> npt.NDArray[np.float64]:
    """Of what a class loses, the share beyond drift and a standard deviation more, for each image that leaves it."""
    scores = np.zeros(len(undefended))
    for left, form in zip(changed, lost, strict=True):
        beyond = np.array([max(0.0, one.excess - one.deviation) / max(1, one.leaves) for one in form])
        scores += left * beyond[undefended]
    return scores / len(lost)
