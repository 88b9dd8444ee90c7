"""Measures of a victim and of purified images. Pure, on arrays."""

from zipbatch.metrics.classification import (
    Share,
    attack_success,
    clean_accuracy,
    flips,
    poisoned_accuracy,
    robust_accuracy,
)
from zipbatch.metrics.fidelity import Fidelity, fidelity
from zipbatch.metrics.strength import Judgement, Rung, judge, weakest_sufficient

__all__ = [
    "Fidelity",
    "Judgement",
    "Rung",
    "Share",
    "attack_success",
    "clean_accuracy",
    "fidelity",
    "flips",
    "judge",
    "poisoned_accuracy",
    "robust_accuracy",
    "weakest_sufficient",
]
