"""Stamp images that have no names or classes of their own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zipbatch.attacks import Attack, Trigger


def stamp(
    attack: Attack,
    images: np.ndarray,
    trigger: Trigger,
    *,
    keys: Sequence[str] | None = None,
    labels: Sequence[int] | None = None,
    training: bool = False,
) -> np.ndarray:
    """``attack.apply`` with keys ``0``, ``1``, ... and labels 0 where there are none, for the test."""
    return attack.apply(
        images,
        trigger,
        keys=[str(i) for i in range(len(images))] if keys is None else keys,
        labels=[0] * len(images) if labels is None else labels,
        training=training,
    )
