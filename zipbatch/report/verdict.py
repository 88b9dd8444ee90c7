"""What is left of an attack, in words: its success rate held against the victim's plain errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zipbatch.report.units import share_text
from zipbatch.results import EvaluationRow, SeedRow

MARGIN = 0.03
"""How far above the plain errors an attack's success may lie, at the worst, for the two to be called equal."""
Finding = Literal["nothing left", "something left", "too few"]


@dataclass(frozen=True)
class Verdict:
    """A sentence, and what it comes to."""

    finding: Finding
    text: str


def verdict(row: EvaluationRow) -> Verdict | None:
    """What the ASR of a row of ``evaluate`` says beside its FPR; None where one of them is not known.

    Decided by their 95 % intervals. Where they overlap, the two are equal only if the intervals also leave no room for
    an attack that succeeds ``MARGIN`` more often than plain errors do: else there are too few images to tell.
    """
    asr, fpr = row.asr, row.fpr
    if asr is None or fpr is None or row.asr_ci95 is None or row.fpr_ci95 is None:
        return None
    (asr_low, asr_high), (fpr_low, fpr_high) = row.asr_ci95, row.fpr_ci95
    rates = f"ASR {share_text(asr)}", f"FPR {share_text(fpr)}"
    if asr_low > fpr_high:
        return Verdict("something left", f"the attack still works ({rates[0]}), beyond the plain errors ({rates[1]})")
    if asr_high < fpr_low:
        return Verdict("nothing left", f"the target is taken less often ({rates[0]}) than by plain errors ({rates[1]})")
    if asr_high - fpr_low > MARGIN:
        fewest = min(row.n_asr, row.n_fpr)
        return Verdict("too few", f"too few images to tell: {rates[0]}, plain errors {rates[1]}, of {fewest} images")
    return Verdict("nothing left", f"what is left of the attack ({rates[0]}) equals the plain errors ({rates[1]})")


def over_seeds(row: SeedRow) -> Verdict | None:
    """What the verdicts of a row's seeds come to; the worst of them counts. None where there are none."""
    found, seeds = row.findings, row.n_seeds
    if not found or row.asr is None or row.fpr is None:
        return None
    rates = f"mean ASR {share_text(row.asr)}, plain errors {share_text(row.fpr)}"
    if worst := found.get("something left"):
        return Verdict("something left", f"the attack still works with {worst} of {seeds} seeds ({rates})")
    if few := found.get("too few"):
        return Verdict("too few", f"too few images to tell with {few} of {seeds} seeds ({rates})")
    return Verdict("nothing left", f"no more than plain errors is left with any of {seeds} seeds ({rates})")
