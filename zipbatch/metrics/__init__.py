"""Measures of a victim and of purified images. Pure, on arrays."""

from zipbatch.metrics.agreement import Choice, agreement, strongest_within
from zipbatch.metrics.auditing import FALSE_ALARMS, Audit, Finding, audit
from zipbatch.metrics.classification import (
    Share,
    attack_success,
    clean_accuracy,
    collapsed,
    defence_effectiveness,
    disrupted,
    false_positives,
    flips,
    poisoned_accuracy,
    robust_accuracy,
)
from zipbatch.metrics.fidelity import Fidelity, fidelity
from zipbatch.metrics.paired import Paired, paired
from zipbatch.metrics.strength import Candidate, Judgement, choose_candidate, judge

__all__ = [
    "FALSE_ALARMS",
    "Audit",
    "Candidate",
    "Choice",
    "Fidelity",
    "Finding",
    "Judgement",
    "Paired",
    "Share",
    "agreement",
    "attack_success",
    "audit",
    "choose_candidate",
    "clean_accuracy",
    "collapsed",
    "defence_effectiveness",
    "disrupted",
    "false_positives",
    "fidelity",
    "flips",
    "judge",
    "paired",
    "poisoned_accuracy",
    "robust_accuracy",
    "strongest_within",
]
