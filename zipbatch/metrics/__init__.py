"""Measures of a victim and of purified images. Pure, on arrays."""

from zipbatch.metrics.classification import (
    Share,
    attack_success,
    clean_accuracy,
    defence_effectiveness,
    false_positives,
    flips,
    poisoned_accuracy,
    robust_accuracy,
)
from zipbatch.metrics.fidelity import Fidelity, fidelity
from zipbatch.metrics.strength import Judgement, Rung, choose_rung, judge

__all__ = [
    "Fidelity",
    "Judgement",
    "Rung",
    "Share",
    "attack_success",
    "choose_rung",
    "clean_accuracy",
    "defence_effectiveness",
    "false_positives",
    "fidelity",
    "flips",
    "judge",
    "poisoned_accuracy",
    "robust_accuracy",
]
