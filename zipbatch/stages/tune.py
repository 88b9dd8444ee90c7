"""``zipbatch tune``: how strongly to purify, told from a victim's answers alone, without labels or trigger."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from zipbatch import atomic
from zipbatch.cluster import Workers
from zipbatch.config import Settings
from zipbatch.errors import UsageError
from zipbatch.metrics import Judgement, choose_rung, judge
from zipbatch.places import Place
from zipbatch.purifiers import ChainSettings
from zipbatch.report.progress import Progress
from zipbatch.shards import ShardDataset, ShardRef
from zipbatch.shards.dataset import CLEAN_SPLIT, POISONED_SPLIT
from zipbatch.stages.evaluate import EvaluateRequest, plan_evaluate, results
from zipbatch.stages.evaluate_progress import EvaluateProgress
from zipbatch.stages.evaluate_shard import Tally, add_tallies
from zipbatch.stages.purifier import PurifierSpec, purifier_spec, uncalibrated
from zipbatch.stages.purify import PurifyProgress, purify
from zipbatch.stages.purify_plan import PurifyRequest, plan_purify
from zipbatch.stages.victim import class_name
from zipbatch.store import Store
from zipbatch.victims import VictimSource

STRENGTH = "guidance_exponent"
FACTORS = (8.0, 4.0, 2.0, 1.0, 0.5, 0.25)
"""Of the preset's exponent, weakest first: the rungs that are tried unless others are given."""
Report = Callable[[Progress], None]


@dataclass(frozen=True)
class TuneRequest:
    """What to tune on. ``rungs`` are purifiers, weakest first; ``own`` is the one to take when nothing is seen."""

    victim: VictimSource
    dataset: ShardDataset
    data_label: str
    rungs: tuple[PurifierSpec, ...]
    own: int
    store: Store
    limit: float = 0.02
    workers: Workers = Workers()
    batch_size: int = 32


@dataclass(frozen=True)
class TuneResult:
    """What came out. ``chosen`` indexes the rungs; ``tallies`` hold what labels say, where there are any."""

    request: TuneRequest
    images: int
    judgement: Judgement
    chosen: int
    tallies: tuple[Tally, ...]

    @property
    def settings(self) -> dict[str, Any]:
        """The chosen rung as a preset."""
        spec = self.request.rungs[self.chosen]
        return {"method": spec.method, **uncalibrated(spec).model_dump(mode="json")}


def ladder(
    *, preset: str | None, exponents: Sequence[float], prior: Place | None, seed: int = 0, bfloat16: bool = False
) -> tuple[tuple[PurifierSpec, ...], int]:
    """A preset at several strengths, weakest first, and the index of its own.

    Args:
        preset: a name in ``configs/purifiers`` or a file; None for the default.
        exponents: guidance exponents to try beside the preset's own; empty for multiples of it.
        prior: the diffusion model's folder.
        seed: of the noise.
        bfloat16: precision of the network's forward pass.

    Raises:
        UsageError: a preset without a guidance exponent, or an exponent that cannot be.
    """
    middle = purifier_spec(preset=preset, prior=prior, seed=seed, precision="bfloat16" if bfloat16 else "float32")
    own = _exponent(middle)
    if own is None:
        raise UsageError(f"the purifier {middle.method} has no strength to tune; take a preset with a step of zip")
    if bad := [value for value in exponents if not 0 < value < math.inf]:
        raise UsageError(f"--guidance-exponent must be above 0, got {bad[0]:g}")
    values = sorted({own, *(exponents or [own * factor for factor in FACTORS])}, reverse=True)
    if len(values) < 2:
        raise UsageError("nothing to compare: name exponents other than the preset's own")
    rungs = tuple(replace(middle, settings=with_exponent(middle.settings, value)) for value in values)
    return rungs, values.index(own)


def some_shards(dataset: ShardDataset, splits: Sequence[str], count: int | None) -> ShardDataset:
    """``count`` shards of each split, evenly spaced over it (all with None), as a dataset of its own name.

    Raises:
        UsageError: a split that is not there.
    """
    missing = [split for split in splits if split not in dataset.splits]
    if missing:
        raise UsageError(f"{dataset.name}: no split {missing[0]!r}; it has {', '.join(dataset.splits)}")
    usual = [split for split in (CLEAN_SPLIT, POISONED_SPLIT) if split in dataset.splits]
    chosen: list[ShardRef] = []
    for split in splits or usual or dataset.splits:
        all_ = dataset.split(split)
        number = len(all_) if count is None else min(count, len(all_))
        chosen += [all_[i * len(all_) // number] for i in range(number)]
    return replace(dataset, name=f"{dataset.name}-tune", shards=tuple(chosen))


def tune(request: TuneRequest, *, report: Report = lambda _progress: None) -> TuneResult:
    """Purify the data with every rung, ask the victim, and choose. Purified shards stay in the store for later runs.

    Raises:
        UsageError: data that does not fit the victim or the prior.
        WorkFailed: shards could not be purified or measured.
    """
    request = replace(request, victim=request.victim.pinned())
    plan_evaluate(_evaluation(request, ()))  # a victim that does not fit is told before any work
    references = []
    for number, spec in enumerate(request.rungs):
        what = f"purifying, exponent {_exponent(spec):g} ({number + 1}/{len(request.rungs)})"
        report(Progress(what))
        plan = plan_purify(
            PurifyRequest(
                request.dataset,
                spec,
                request.store,
                request.workers,
                splits=request.dataset.splits,
                batch_size=request.batch_size,
            )
        )
        done = purify(plan, on_progress=partial(_show, report, what))
        references.append(f"{request.dataset.name}@{done.version}")
    return _judged(request, references, report)


def _show(report: Report, what: str, progress: PurifyProgress) -> None:
    report(progress.shown(what))


def _judged(request: TuneRequest, references: Sequence[str], report: Report) -> TuneResult:
    plan = plan_evaluate(_evaluation(request, references))
    classes = plan.victims[0].num_classes
    tallies = tuple(Tally(classes) for _ in range(1 + len(references)))
    answers = [np.empty((1 + len(references), 0), np.int64)]

    def asked(progress: EvaluateProgress) -> None:
        report(progress.shown("asking the victim"))

    for result in results(plan, keep_answers=True, on_progress=asked):
        forms = result.answers[0]
        answers.append(np.stack([form for form in forms if form is not None]))
        add_tallies(tallies, result.tallies[0])
    joined = np.concatenate(answers, axis=1)
    judgement = judge(joined[0], joined[1:], classes=classes)
    chosen = choose_rung(judgement, own=request.own, limit=request.limit)
    return TuneResult(request, joined.shape[1], judgement, chosen, tallies)


def _evaluation(request: TuneRequest, references: Sequence[str]) -> EvaluateRequest:
    return EvaluateRequest(
        victims=(request.victim,),
        dataset=request.dataset,
        data_label=request.data_label,
        purified=tuple(references),
        store=request.store,
        workers=request.workers,
        splits=request.dataset.splits,
        labels_needed=False,
    )


def tune_report(result: TuneResult) -> dict[str, Any]:
    """The result as plain data: one row a rung, weakest first, and what was chosen and why."""
    request, judgement = result.request, result.judgement
    classes = request.dataset.classes
    suspect = judgement.suspect
    rows = [
        {
            STRENGTH: _exponent(spec),
            "agreement": rung.agreement,
            "residual": rung.residual,
            "residual_upper": rung.residual_upper,
            "chosen": number == result.chosen,
            "ca": tally.ca.value,
            "asr": tally.asr.value,
            "pa": tally.pa.value,
        }
        for number, (spec, rung, tally) in enumerate(
            zip(request.rungs, judgement.rungs, result.tallies[1:], strict=True)
        )
    ]
    return {
        "victim": request.victim.label,
        "data": request.data_label,
        "images": result.images,
        "suspect": None if suspect is None else class_name(suspect, classes),
        "triggered": round(judgement.triggered, 1),
        "limit": request.limit,
        "undefended": {"ca": result.tallies[0].ca.value, "asr": result.tallies[0].asr.value},
        "rungs": rows,
        "chosen": _exponent(request.rungs[result.chosen]),
        "settings": result.settings,
    }


def write_preset(path: Path, result: TuneResult) -> None:
    """The chosen settings as a file for ``purify --preset``."""
    about = f"Chosen by 'zipbatch tune' for the victim {result.request.victim.name}."
    values = {"description": about, **result.settings}
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
