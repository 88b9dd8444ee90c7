"""From what is asked to a purifier's spec: its settings held against its prior."""

from __future__ import annotations

from dataclasses import replace

from zipbatch.checkpoints import PriorFolder, Restorer, open_prior, read_calibration, read_restorer
from zipbatch.config import Settings
from zipbatch.errors import UsageError
from zipbatch.purifiers import ChainSettings, RepaintSettings, RestoreSettings, SamplerSettings
from zipbatch.spelling import setting
from zipbatch.stages.purify.choose import chosen_purifier, warn_once
from zipbatch.stages.purify.request import PurifierRequest
from zipbatch.stages.purify.spec import PurifierSpec, libraries_of
from zipbatch.storage import StoragePath


def purifier_spec(asked: PurifierRequest, prior: StoragePath | None = None) -> PurifierSpec:
    """Resolve a preset (or file), single settings on top of it, and the prior.

    Args:
        asked: what is asked for.
        prior: the diffusion model's folder.

    Raises:
        UsageError: unknown preset or method, settings that do not fit or do not apply, no prior where one is needed.
    """
    return with_prior(asked_purifier(asked), prior)


def asked_purifier(asked: PurifierRequest) -> PurifierSpec:
    """``purifier_spec`` as far as it can be told before the prior is there; ``with_prior`` does the rest."""
    method, settings = chosen_purifier(asked)
    spec = PurifierSpec(method=method, settings=settings, asked=asked, libraries=libraries_of(method, settings))
    _check_sizes(asked)
    if asked.keep_masks and not any(step.kind.masks for step in spec.steps):
        raise UsageError("‹keep_masks› is for purifiers that mask what they repaint: none of these does; take repaint")
    if asked.compile == "on" and not spec.needs_prior:
        raise UsageError(f"‹compile='on'› does not apply to the purifier {method}: it has no network; leave it out")
    if asked.resize is not None and not spec.needs_prior:
        raise UsageError(f"‹resize› does not apply to the purifier {method}: it takes images of any size")
    return spec


def _check_sizes(asked: PurifierRequest) -> None:
    if asked.resize is None and asked.output_size is not None:
        raise UsageError(
            f"{setting('output_size', asked.output_size)} is for images that are made to fit; give ‹resize›, "
            "too, or leave it out"
        )
    if asked.resize == "center-crop" and asked.output_size == "input":
        raise UsageError(
            "‹resize='center-crop'› purifies the middle square alone, so images of the input's size cannot come out: "
            "take ‹output_size='prior'› for that square at the prior's size, or ‹resize='stretch'› for whole images"
        )


def with_prior(asked: PurifierSpec, prior: StoragePath | None) -> PurifierSpec:
    """The spec with its prior opened and its settings held against that; as it is where it needs none.

    Raises:
        UsageError: no prior where one is needed, one that is unfit, or settings that do not fit it.
    """
    if not asked.needs_prior:
        return asked
    if prior is None:
        raise UsageError(
            f"the purifier {asked.method} needs a diffusion model: ‹prior DIR›, FILE.pt or hub:NAME "
            "(or ‹prior='embedded'›)"
        )
    return with_opened(asked, opened_prior(prior))


def opened_prior(prior: StoragePath) -> PriorFolder:
    """A prior's folder or file; of one file it is told what cannot be seen in it.

    Raises:
        UsageError: there is none, or it is unfit.
    """
    folder = open_prior(prior)
    if folder.guided is not None:
        warn_once(f"{prior}: taken for granted: {folder.guided.flags.told}; 'zipbatch import prior' takes others")
    return folder


def with_opened(asked: PurifierSpec, folder: PriorFolder) -> PurifierSpec:
    """As ``with_prior``, of a prior that is open."""
    if not asked.needs_prior:
        return asked
    restores = any(isinstance(step.settings, RestoreSettings) for step in asked.steps)
    restorer = read_restorer(folder) if restores else None
    return replace(asked, settings=_resolved(asked.settings, folder, restorer), prior=folder, restorer=restorer)


def check_steps(spec: PurifierSpec, prior: PriorFolder) -> None:
    """Hold a spec's steps against what a prior has learned, before anything is resolved.

    Raises:
        UsageError: a step needs a restorer that is not there.
        ValueError: a step asks about timesteps that the prior has not learned.
    """
    for step in spec.steps:
        if isinstance(step.settings, RestoreSettings):
            read_restorer(prior)
        elif isinstance(step.settings, SamplerSettings):
            step.settings.check_learned(prior.training_steps, prior.trained_below)


def _resolved(settings: Settings, folder: PriorFolder, restorer: Restorer | None) -> Settings:
    """Settings held against the prior's schedule; null is T, a start above T is T: one behaviour, one identity."""
    if isinstance(settings, ChainSettings):
        return settings.with_each(lambda own: _resolved(own, folder, restorer))
    try:
        if isinstance(settings, RestoreSettings) and restorer is not None:
            return settings.taught(restorer.sha256, restorer.max_step)
        if not isinstance(settings, SamplerSettings):
            return settings
        if isinstance(settings, RepaintSettings) and settings.levels is None:
            settings = settings.calibrated(read_calibration(folder))
        steps, start_step = settings.grid(folder.training_steps)
        resolved = settings.model_copy(update={"steps": steps, "start_step": start_step})
        resolved.check_learned(folder.training_steps, folder.trained_below)
    except ValueError as error:
        raise UsageError(f"{folder.path}: {error}") from error
    return resolved


def uncalibrated(spec: PurifierSpec) -> Settings:
    """A spec's settings as a preset has them: without what comes with the prior's calibration, which may be another one
    by the time, or another prior's.
    """

    def bare(settings: Settings) -> Settings:
        if isinstance(settings, ChainSettings):
            return settings.with_each(bare)
        if not settings.LEARNED or spec.prior is None:
            return settings
        without = settings.model_copy(update=dict.fromkeys(settings.LEARNED))
        try:
            learned = _resolved(without, spec.prior, spec.restorer)
        except UsageError:
            return settings
        return without if learned == settings else settings

    return bare(spec.settings)
