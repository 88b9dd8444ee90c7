"""``zipbatch tune``: fit a preset to clean images, tune the strength on suspect ones, or one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zipbatch.cluster import Workers
from zipbatch.errors import UsageError
from zipbatch.results import FitAndTuneAnswer, FitAnswer, FitReport, TuneReport, dump
from zipbatch.spelling import setting
from zipbatch.stages.evaluate.answers import Report
from zipbatch.stages.tune.candidates import candidates
from zipbatch.stages.tune.fit import FitResult, fit, fit_report
from zipbatch.stages.tune.opening import Opened, fit_plan, opened, own_purifier, tune_job
from zipbatch.stages.tune.request import TuneRequest
from zipbatch.stages.tune.sweep import TuneResult, check_strength, tune, tune_report, write_preset

Begin = Callable[[str, str], None]
"""Called with what begins, and about how much it is."""
TuneAnswer = TuneReport | FitAnswer | FitAndTuneAnswer


@dataclass(frozen=True)
class TuneOutcome:
    """What was chosen.

    Attributes:
        fitted: the preset; None where none was fitted.
        tuned: the strength; None where none was tuned.
    """

    fitted: FitResult | None
    tuned: TuneResult | None

    @property
    def settings(self) -> dict[str, Any]:
        """The purifier that was chosen, as a preset has it."""
        last = self.tuned or self.fitted
        assert last is not None
        return last.settings

    @property
    def fit(self) -> FitReport | None:
        """What is told of the preset."""
        return None if self.fitted is None else fit_report(self.fitted)

    @property
    def strength(self) -> TuneReport | None:
        """What is told of the strength."""
        return None if self.tuned is None else tune_report(self.tuned)

    @property
    def answer(self) -> TuneAnswer:
        """All of it, for machines."""
        strength, fitted = self.strength, self.fitted
        if fitted is None:
            assert strength is not None
            return strength
        if strength is None:
            return FitAnswer(victim=fitted.plan.job.victim.label, settings=fitted.settings, fit=fit_report(fitted))
        return FitAndTuneAnswer(**dump(strength), fit=fit_report(fitted))

    def write(self, out: Path) -> None:
        """Write the choice as a preset."""
        write_preset(out, self.settings, " ".join(one.about for one in (self.tuned, self.fitted) if one is not None))


def carry_out(
    request: TuneRequest, workers: Workers, *, begin: Begin = lambda _what, _about: None, report: Report
) -> TuneOutcome:
    """Fit, tune, or both, as asked; the choice is written where the request says.

    Args:
        request: what is asked.
        workers: who does the work.
        begin: called when fitting and when tuning begins.
        report: called with how far it is.

    Raises:
        UsageError: what is asked cannot be; said before any work where it can be.
        WorkFailed: shards could not be purified, or the victim does not answer.
    """
    out = request.out
    if out is not None and (out.suffix not in {".yaml", ".yml"} or not out.absolute().parent.is_dir()):
        raise UsageError(f"{setting('out', out)}: must be a .yaml file in a folder that is there")
    named = opened(request, workers)
    fitted = None if request.fit is None else _fitted(request, request.fit, named, begin, report)
    job = tune_job(request, named, own_purifier(request) if fitted is None else fitted.chosen.spec)
    tuned = None
    if job is not None:
        begin(f"tuning for {job.victim.name}", f"{len(job.candidates)} strengths, {len(job.dataset.shards)} shards")
        tuned = tune(job, report=report)
    outcome = TuneOutcome(fitted, tuned)
    if out is not None:
        outcome.write(out)
    return outcome


def _fitted(request: TuneRequest, clean: str, named: Opened, begin: Begin, report: Report) -> FitResult:
    """A preset for the images ``clean``, chosen; what cannot be tuned afterwards is told before any work."""
    tried = candidates(request)
    if named.suspects is not None:
        for one in tried:
            check_strength(one.spec)
    begin(f"fitting for {named.victim.name}", f"{len(tried)} presets, clean images of {clean}")
    return fit(fit_plan(request, clean, named, tried, report), report=report)
