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

__all__ = [
    "Fidelity",
    "Share",
    "attack_success",
    "clean_accuracy",
    "fidelity",
    "flips",
    "poisoned_accuracy",
    "robust_accuracy",
]
