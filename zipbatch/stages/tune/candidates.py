"""The presets among which ``zipbatch tune --fit`` chooses, and what they ask of a prior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from zipbatch.config import PriorConfig, Settings
from zipbatch.errors import UsageError
from zipbatch.purifiers import ChainSettings, RepaintSettings, RestoreSettings, SamplerSettings
from zipbatch.spelling import setting
from zipbatch.stages.purify.resolve import asked_purifier
from zipbatch.stages.purify.spec import PurifierSpec
from zipbatch.stages.tune.request import TuneRequest

PRESETS = ("fast", "balanced", "strong")
"""Weakest first: by the most that each leaves of any attack in docs/results.md."""


@dataclass(frozen=True)
class Candidate:
    """A preset as the user names it, and its purifier."""

    preset: str
    spec: PurifierSpec


def candidates(request: TuneRequest) -> tuple[Candidate, ...]:
    """The presets to try, weakest first: ``PRESETS``, then those named, in the order in which they are.

    Raises:
        UsageError: no such preset, or settings that do not fit.
    """
    named = request.presets
    names = dict.fromkeys([*(name for name in PRESETS if name not in named), *named])
    return tuple(Candidate(name, _asked(request, name)) for name in names)


def _asked(request: TuneRequest, preset: str) -> PurifierSpec:
    """Only a purifier with a prior has images made to fit."""
    asked = request.purifier(preset)
    spec = asked_purifier(asked.model_copy(update={"resize": None}))
    return replace(spec, asked=asked) if spec.needs_prior else spec


def check_trainable(asked: Sequence[Candidate], config: PriorConfig) -> None:
    """Tell of presets that the user names, before a prior is trained, which it will not do for.

    Raises:
        UsageError: one needs a restorer, which a new prior has not, or timesteps that this one will not learn.
    """
    for one in asked:
        if one.preset in PRESETS:
            continue
        for step in one.spec.steps:
            if isinstance(step.settings, RestoreSettings):
                raise UsageError(
                    f"{setting('preset', one.preset)}: needs a restorer, which a prior that is trained now has not"
                )
            if isinstance(step.settings, SamplerSettings):
                try:
                    step.settings.check_learned(config.training_steps, config.max_step or config.training_steps)
                except ValueError as error:
                    raise UsageError(f"{setting('preset', one.preset)}: the prior to be trained {error}") from error


def needed(settings: Settings) -> tuple[tuple[int, ...], ...]:
    """The timesteps at which repainting steps need thresholds that they do not have."""
    if isinstance(settings, ChainSettings):
        return tuple(steps for step in settings.steps for steps in needed(step.settings))
    return (settings.residual_steps,) if isinstance(settings, RepaintSettings) and settings.levels is None else ()
