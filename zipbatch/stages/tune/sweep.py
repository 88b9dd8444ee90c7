"""``zipbatch tune``: how strongly to purify, told from a victim's answers alone, without labels or trigger."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from zipbatch import atomic
from zipbatch.cluster import Workers
from zipbatch.config import Settings
from zipbatch.datasets import ShardDataset
from zipbatch.errors import UsageError
from zipbatch.metrics import Judgement, choose_candidate, judge
from zipbatch.purifiers import ChainSettings
from zipbatch.results import StrengthRow, TuneReport, Undefended
from zipbatch.stages.evaluate.answers import Asking, Report
from zipbatch.stages.evaluate.tally import Tally
from zipbatch.stages.evaluate.victims import class_name
from zipbatch.stages.purify.resolve import uncalibrated
from zipbatch.stages.purify.spec import PurifierSpec
from zipbatch.store import Store
from zipbatch.victims import VictimSource

STRENGTH = "guidance_exponent"
FACTORS = (8.0, 4.0, 2.0, 1.0, 0.5, 0.25)
"""Of the preset's exponent, weakest first: the candidates that are tried unless others are given."""


@dataclass(frozen=True, kw_only=True)
class TuneJob:
    """What to tune on. ``candidates`` are purifiers, weakest first; ``own`` is the one to take when nothing is seen."""

    victim: VictimSource
    dataset: ShardDataset
    data_label: str
    candidates: tuple[PurifierSpec, ...]
    own: int
    store: Store
    limit: float = 0.02
    workers: Workers = Workers()
    batch_size: int = 32


@dataclass(frozen=True, kw_only=True)
class TuneResult:
    """What came out. ``chosen`` indexes the candidates; ``tallies`` hold what labels say, where there are any."""

    job: TuneJob
    images: int
    judgement: Judgement
    chosen: int
    tallies: tuple[Tally, ...]

    @property
    def settings(self) -> dict[str, Any]:
        """The chosen candidate as a preset."""
        return preset_settings(self.job.candidates[self.chosen])

    @property
    def about(self) -> str:
        """What the preset says of itself."""
        return f"Chosen by 'zipbatch tune' for the victim {self.job.victim.name}."


def preset_settings(spec: PurifierSpec) -> dict[str, Any]:
    """A purifier as a preset; thresholds are in it only where they are not those that its prior comes with."""
    return {"method": spec.method, **uncalibrated(spec).model_dump(mode="json")}


def candidates_around(middle: PurifierSpec, exponents: Sequence[float]) -> tuple[tuple[PurifierSpec, ...], int]:
    """A purifier at several strengths, weakest first, and the index of its own.

    Args:
        middle: the purifier, resolved.
        exponents: guidance exponents to try beside its own; empty for multiples of that.

    Raises:
        UsageError: it has no guidance exponent, or an exponent cannot be.
    """
    own = check_strength(middle)
    if bad := [value for value in exponents if not 0 < value < math.inf]:
        raise UsageError(f"‹exponents› must be above 0, got {bad[0]:g}")
    values = sorted({own, *(exponents or [own * factor for factor in FACTORS])}, reverse=True)
    if len(values) < 2:
        raise UsageError("nothing to compare: name exponents other than the preset's own")
    candidates = tuple(replace(middle, settings=with_exponent(middle.settings, value)) for value in values)
    return candidates, values.index(own)


def check_strength(spec: PurifierSpec) -> float:
    """The guidance exponent of a purifier; raises ``UsageError`` where it has none."""
    own = _exponent(spec)
    if own is None:
        raise UsageError(f"the purifier {spec.method} has no strength to tune; take a preset with a step of zip")
    return own


def tune(job: TuneJob, *, report: Report = lambda _progress: None) -> TuneResult:
    """Purify the data with every candidate, ask the victim, and choose. Purified shards stay in the store.

    Raises:
        UsageError: data that does not fit the victim or the prior.
        WorkFailed: shards could not be purified or measured.
    """
    asking = Asking(
        victim=job.victim,
        dataset=job.dataset,
        data_label=job.data_label,
        store=job.store,
        workers=job.workers,
        batch_size=job.batch_size,
    ).checked()
    named = [f"exponent {_exponent(spec):g}" for spec in job.candidates]
    answers = asking.answers(job.candidates, named, report)
    judgement = judge(answers.forms[0], answers.forms[1:], classes=answers.classes, shares=answers.shares[0])
    chosen = choose_candidate(judgement, own=job.own, limit=job.limit)
    return TuneResult(
        job=job, images=answers.forms.shape[1], judgement=judgement, chosen=chosen, tallies=answers.tallies
    )


def tune_report(result: TuneResult) -> TuneReport:
    """What is told of a result: one row a candidate, weakest first, and what was chosen and why."""
    job, judgement = result.job, result.judgement
    suspect, before = judgement.suspect, result.tallies[0]
    rows = [
        StrengthRow(
            guidance_exponent=check_strength(spec),
            agreement=candidate.agreement,
            residual=candidate.residual,
            residual_upper=candidate.residual_upper,
            chosen=number == result.chosen,
            ca=tally.ca.value,
            asr=tally.asr.value,
            pa=tally.pa.value,
        )
        for number, (spec, candidate, tally) in enumerate(
            zip(job.candidates, judgement.candidates, result.tallies[1:], strict=True)
        )
    ]
    return TuneReport(
        victim=job.victim.label,
        data=job.data_label,
        images=result.images,
        suspect=None if suspect is None else class_name(suspect, job.dataset.classes),
        triggered=round(judgement.triggered, 1),
        limit=job.limit,
        undefended=Undefended(ca=before.ca.value, asr=before.asr.value),
        rungs=rows,
        chosen=check_strength(job.candidates[result.chosen]),
        settings=result.settings,
    )


def write_preset(path: Path, settings: Mapping[str, Any], about: str) -> None:
    """Settings as a file for ``zipbatch purify --preset``, with a line about them."""
    values = {"description": about, **settings}
    atomic.write_bytes(path, yaml.safe_dump(values, sort_keys=False, allow_unicode=True).encode())


def with_exponent(settings: Settings, value: float) -> Settings:
    """The settings at another strength: of a chain, that of its last step that has one."""
    if not isinstance(settings, ChainSettings):
        return settings.model_copy(update={STRENGTH: value})
    steps = list(settings.steps)
    last = max(number for number, step in enumerate(steps) if hasattr(step.settings, STRENGTH))
    steps[last] = steps[last].model_copy(update={"settings": with_exponent(steps[last].settings, value)})
    return settings.model_copy(update={"steps": tuple(steps)})


def _exponent(spec: PurifierSpec) -> float | None:
    """Of the last step that has one, as ``with_exponent`` sets it; None where none has."""
    found = [getattr(step.settings, STRENGTH) for step in spec.steps if hasattr(step.settings, STRENGTH)]
    return float(found[-1]) if found else None
