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
from zipbatch.datasets import ShardDataset, ShardRef
from zipbatch.datasets.staged import CLEAN_SPLIT, POISONED_SPLIT
from zipbatch.errors import UsageError
from zipbatch.metrics import Judgement, choose_candidate, judge
from zipbatch.purifiers import ChainSettings
from zipbatch.purifiers.base import Precision
from zipbatch.stages.evaluate.answers import Asking, Report
from zipbatch.stages.evaluate.tally import Tally
from zipbatch.stages.evaluate.victims import class_name
from zipbatch.stages.purify.request import PurifierRequest
from zipbatch.stages.purify.resolve import purifier_spec, uncalibrated
from zipbatch.stages.purify.spec import PurifierSpec
from zipbatch.storage import StoragePath
from zipbatch.store import Store
from zipbatch.victims import VictimSource

STRENGTH = "guidance_exponent"
FACTORS = (8.0, 4.0, 2.0, 1.0, 0.5, 0.25)
"""Of the preset's exponent, weakest first: the candidates that are tried unless others are given."""


@dataclass(frozen=True)
class TuneRequest:
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


@dataclass(frozen=True)
class TuneResult:
    """What came out. ``chosen`` indexes the candidates; ``tallies`` hold what labels say, where there are any."""

    request: TuneRequest
    images: int
    judgement: Judgement
    chosen: int
    tallies: tuple[Tally, ...]

    @property
    def settings(self) -> dict[str, Any]:
        """The chosen candidate as a preset."""
        return preset_settings(self.request.candidates[self.chosen])

    @property
    def about(self) -> str:
        """What the preset says of itself."""
        return f"Chosen by 'zipbatch tune' for the victim {self.request.victim.name}."


def preset_settings(spec: PurifierSpec) -> dict[str, Any]:
    """A purifier as a preset; thresholds are in it only where they are not those that its prior comes with."""
    return {"method": spec.method, **uncalibrated(spec).model_dump(mode="json")}


def sweep(
    *, preset: str | None, exponents: Sequence[float], prior: StoragePath | None, seed: int = 0, bfloat16: bool = False
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
    precision: Precision = "bfloat16" if bfloat16 else "float32"
    return candidates_around(
        purifier_spec(PurifierRequest(preset=preset, seed=seed, precision=precision), prior), exponents
    )


def candidates_around(middle: PurifierSpec, exponents: Sequence[float]) -> tuple[tuple[PurifierSpec, ...], int]:
    """As ``sweep``, of a purifier that is resolved."""
    own = check_strength(middle)
    if bad := [value for value in exponents if not 0 < value < math.inf]:
        raise UsageError(f"--guidance-exponent must be above 0, got {bad[0]:g}")
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


def some_shards(
    dataset: ShardDataset, splits: Sequence[str], count: int | None, *, purpose: str = "tune"
) -> ShardDataset:
    """``count`` shards of each split, evenly spaced over it (all with None), as a dataset whose name says the purpose.

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
    return replace(dataset, name=f"{dataset.name}-{purpose}", shards=tuple(chosen))


def tune(request: TuneRequest, *, report: Report = lambda _progress: None) -> TuneResult:
    """Purify the data with every candidate, ask the victim, and choose. Purified shards stay in the store.

    Raises:
        UsageError: data that does not fit the victim or the prior.
        WorkFailed: shards could not be purified or measured.
    """
    asking = Asking(
        request.victim, request.dataset, request.data_label, request.store, request.workers, request.batch_size
    ).pinned()
    asking.check()
    named = [f"exponent {_exponent(spec):g}" for spec in request.candidates]
    answers = asking.answers(request.candidates, named, report)
    judgement = judge(answers.forms[0], answers.forms[1:], classes=answers.classes)
    chosen = choose_candidate(judgement, own=request.own, limit=request.limit)
    return TuneResult(request, answers.forms.shape[1], judgement, chosen, answers.tallies)


def tune_report(result: TuneResult) -> dict[str, Any]:
    """The result as plain data: one row a candidate, weakest first, and what was chosen and why."""
    request, judgement = result.request, result.judgement
    classes = request.dataset.classes
    suspect = judgement.suspect
    rows = [
        {
            STRENGTH: _exponent(spec),
            "agreement": candidate.agreement,
            "residual": candidate.residual,
            "residual_upper": candidate.residual_upper,
            "chosen": number == result.chosen,
            "ca": tally.ca.value,
            "asr": tally.asr.value,
            "pa": tally.pa.value,
        }
        for number, (spec, candidate, tally) in enumerate(
            zip(request.candidates, judgement.candidates, result.tallies[1:], strict=True)
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
        "chosen": _exponent(request.candidates[result.chosen]),
        "settings": result.settings,
    }


def write_preset(path: Path, settings: Mapping[str, Any], about: str) -> None:
    """Settings as a file for ``purify --preset``, with a line about them."""
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
