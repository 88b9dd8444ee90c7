"""Shares of a classifier's answers, as counts, so that shards add up."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Share:
    """``hits`` of ``n``."""

    hits: int = 0
    n: int = 0

    def __add__(self, other: Share) -> Share:
        return Share(self.hits + other.hits, self.n + other.n)

    @property
    def value(self) -> float | None:
        """``hits / n``, None when ``n`` is 0."""
        return self.hits / self.n if self.n else None

    def interval(self) -> tuple[float, float] | None:
        """95 % Wilson score interval (Wilson 1927), None when ``n`` is 0."""
        return wilson_interval(self.hits, self.n) if self.n else None


def wilson_interval(hits: float, n: float) -> tuple[float, float]:
    """95 % Wilson score interval (Wilson 1927) of ``hits`` of ``n`` above 0."""
    z, p = 1.959964, hits / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, middle - half) if hits else 0.0, min(1.0, middle + half) if hits < n else 1.0


def _share(mask: npt.NDArray[np.bool_]) -> Share:
    return Share(int(mask.sum()), len(mask))


def clean_accuracy(predicted: Ints, label: Ints) -> Share:
    """CA: clean images whose top-1 class is their label. Arrays [N]."""
    return _share(predicted == label)


def attack_success(predicted: Ints, target: Ints, original: Ints) -> Share:
    """ASR: stamped images whose true class is not the target and that are taken for the target. Arrays [N]."""
    eligible = original != target
    return _share(predicted[eligible] == target[eligible])


def false_positives(predicted: Ints, target: Ints, label: Ints) -> Share:
    """FPR of the target class: clean images of other classes that are taken for it. Arrays [N].

    What an ASR has to be held against: a victim's plain errors lead to the target, too, without any trigger.
    """
    return attack_success(predicted, target, label)


def poisoned_accuracy(predicted: Ints, original: Ints) -> Share:
    """PA: all stamped images, those of the target class included, whose top-1 class is the true one. Arrays [N]."""
    return _share(predicted == original)


def robust_accuracy(predicted: Ints, target: Ints, original: Ints) -> Share:
    """RA: PA without the images whose true class is the target. Arrays [N]."""
    eligible = original != target
    return _share(predicted[eligible] == original[eligible])


def disrupted(predicted: Ints, target: Ints, original: Ints) -> Share:
    """Stamped images, without those of the target class, that are taken for neither the target nor what they are: what
    RA (recovered) and ASR (kept) leave. Arrays [N].
    """
    eligible = original != target
    return _share((predicted != target)[eligible] & (predicted != original)[eligible])


def collapsed(before: Ints, after: Ints, label: Ints) -> Share:
    """Clean images whose label was answered as they came, and is no longer. Arrays [N].

    Raises:
        ValueError: the arrays differ in length.
    """
    if before.shape != after.shape:
        raise ValueError(f"answers before and after differ in number: {len(before)} and {len(after)}")
    right = before == label
    return _share(after[right] != label[right])


def defence_effectiveness(
    ca: float | None, asr: float | None, *, ca_before: float | None, asr_before: float | None
) -> float | None:
    """DER, 0 to 1: what a defence takes of the attack's success, less what it costs of accuracy.

    (max(0, ΔASR) - max(0, ΔCA) + 1) / 2, as BackdoorBench documents it (its code adds the loss); None where a measure
    is not known.
    """
    if ca is None or asr is None or ca_before is None or asr_before is None:
        return None
    return (max(0.0, asr_before - asr) - max(0.0, ca_before - ca) + 1) / 2


def flips(before: Ints, after: Ints) -> Counter[tuple[int, int]]:
    """How many images were of a class before purification and are of one after, by both. Arrays [N].

    Raises:
        ValueError: the arrays differ in length.
    """
    if before.shape != after.shape:
        raise ValueError(f"answers before and after differ in number: {len(before)} and {len(after)}")
    return Counter(zip(before.tolist(), after.tolist(), strict=True))
