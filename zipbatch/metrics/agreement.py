"""What purifying clean images costs, told without labels: the answers that it changes.

An image that is answered as before is right or wrong as before. So accuracy changes by no more than the share of
answers that change, |CA before - CA after| <= 1 - agreement; by less where some go from wrong to right, or from wrong
to wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zipbatch.metrics.classification import Share

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Choice:
    """Which of several was chosen, and whether its loss is within what was allowed."""

    index: int
    within: bool


def agreement(before: Ints, after: Ints) -> Share:
    """Images whose answer is the same before and after. Arrays [N].

    Raises:
        ValueError: the arrays differ in length.
    """
    if before.shape != after.shape:
        raise ValueError(f"answers before and after differ in number: {len(before)} and {len(after)}")
    return Share(int((before == after).sum()), len(before))


def loss_of(agreed: Share) -> float:
    """The most accuracy that may be lost, 0 to 1: the share of answers that changed.

    Raises:
        ValueError: there are no images.
    """
    if not agreed.n:
        raise ValueError("no images, so nothing is known of the loss")
    return (agreed.n - agreed.hits) / agreed.n


def strongest_within(agreed: Sequence[Share], *, max_loss: float) -> Choice:
    """The last of ``agreed``, weakest first, whose loss is within ``max_loss``; where none is, that with the least
    loss, the strongest of equals.

    Raises:
        ValueError: none to choose from, or one without images.
    """
    if not agreed:
        raise ValueError("nothing to choose from")
    losses = [loss_of(share) for share in agreed]
    within = [number for number, loss in enumerate(losses) if loss <= max_loss]
    if within:
        return Choice(within[-1], within=True)
    return Choice(max(number for number, loss in enumerate(losses) if loss == min(losses)), within=False)
