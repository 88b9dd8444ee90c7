"""What ``zipbatch tune --fit`` comes to: clean images, counted, presets that take them, thresholds to be learned."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

from zipbatch.checkpoints import PriorFolder, read_calibration
from zipbatch.cluster import Workers
from zipbatch.datasets.clean_images import held_out_split, spaced
from zipbatch.datasets.source import Source, Survey
from zipbatch.errors import UsageError
from zipbatch.spelling import setting
from zipbatch.stages.purify.resolve import check_steps
from zipbatch.stages.tune.candidates import PRESETS, Candidate, needed
from zipbatch.store import Store
from zipbatch.victims import VictimSource

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FitJob:
    """What to fit to what.

    Attributes:
        victim: whose answers count.
        source: clean images, all of one size or stretched to it.
        split: of the source.
        prior: the diffusion model.
        candidates: weakest first, their prior not held against them yet.
        last: only so many images at the end count, for the prior was trained on the others; None for all.
        limit: images at most, evenly spaced.
        max_loss: share of answers that may change.
        relearn: learn thresholds even where the prior has its own for this size.
        store: where purified images are kept for later runs; None for as long as this one.
        workers: who does the work, on this machine.
        batch_size: of the network.
    """

    victim: VictimSource
    source: Source
    split: str
    prior: PriorFolder
    candidates: tuple[Candidate, ...]
    limit: int
    max_loss: float
    last: int | None = None
    relearn: bool = False
    store: Store | None = None
    workers: Workers = Workers()
    batch_size: int = 32


@dataclass(frozen=True, kw_only=True)
class FitPlan:
    """A job whose images are counted: of ``size`` pixels a side, ``prior_size`` when the prior sees them.
    ``why`` says why thresholds are to be learned at some timesteps.
    """

    job: FitJob
    survey: Survey
    size: int
    prior_size: int
    why: Mapping[tuple[int, ...], str]

    @property
    def first(self) -> int:
        """The first image that may be taken."""
        return 0 if self.job.last is None else max(0, self.survey.images - self.job.last)

    @property
    def count(self) -> int:
        """Images that are taken."""
        return len(spaced(self.survey.images - self.first, self.job.limit))


def sized(source: Source, victim: VictimSource, image_size: int | None) -> Source:
    """The source with its images stretched to the size asked for, or else to what the victim takes.

    Raises:
        UsageError: the victim takes another size than is asked for.
    """
    taken = victim.image_size
    if image_size is not None and taken not in {None, image_size}:
        raise UsageError(
            f"{setting('image_size', image_size)}: the victim {victim.name} takes {taken} px; leave it out"
        )
    if image_size is None and (taken is None or _first_shape(source) == (taken, taken)):
        return source
    return replace(source, size=image_size or taken)


def _first_shape(source: Source) -> tuple[int, ...]:
    """Height and width of the first image; none where there is none."""
    image = next(source.images(held_out_split(source)), None)
    return () if image is None else image.pixels().shape[:2]


def plan_fit(job: FitJob) -> FitPlan:
    """Count the images, and tell before any work what does not fit.

    Raises:
        UsageError: no images, images that do not fit the prior or a preset, or workers elsewhere.
        DataError: an image cannot be read.
    """
    if job.workers.address is not None:
        raise UsageError("‹fit› works on this machine: leave ‹address› (or RAY_ADDRESS) out, for ‹gpus› or ‹workers›")
    size = job.source.image_size()
    prior_size = _prior_size(job, size)
    fitting = tuple(one for one in job.candidates if _takes(job, one, prior_size))
    if not fitting:
        raise UsageError(f"{job.source.place}: no preset takes images of {prior_size} px; name ‹image_size›")
    survey = job.source.survey(job.split)
    job.source.left()
    steps = {step: _why_learn(job, step, prior_size) for one in fitting for step in needed(one.spec.settings)}
    why = {step: reason for step, reason in steps.items() if reason is not None}
    return FitPlan(job=replace(job, candidates=fitting), survey=survey, size=size, prior_size=prior_size, why=why)


def _prior_size(job: FitJob, size: int) -> int:
    """The side of the images as the prior sees them: their own where it equals or tiles its own, or else its own."""
    side = job.prior.image_size
    if size <= side and side % size == 0:
        return size
    if any(one.spec.asked.resize for one in job.candidates):
        return side
    raise UsageError(
        f"{job.source.place}: images of {size} px neither equal nor tile the prior's {side} px; take one of: "
        f"‹resize='stretch'› (purified at {side} px, images come out at {size} px again), "
        f"{setting('image_size', side)} (where the victim takes that), or a prior of their size: ‹prior NEW_FOLDER› "
        "‹train_minutes MIN›"
    )


def _takes(job: FitJob, candidate: Candidate, prior_size: int) -> bool:
    """Whether a preset takes images of that size; one of ``PRESETS`` that does not is left out, and said.

    Raises:
        UsageError: another one does not.
    """
    spec = replace(candidate.spec, prior=job.prior if candidate.spec.needs_prior else None)
    try:
        spec.images_per_row(prior_size, prior_size)
        if spec.needs_prior:
            check_steps(spec, job.prior)
    except ValueError as error:
        if candidate.preset not in PRESETS:
            raise UsageError(
                f"{setting('preset', candidate.preset)}: {error}; leave it out, or name another size or prior"
            ) from error
        log.warning("preset %s is left out: %s", candidate.preset, error)
        return False
    return True


def _why_learn(job: FitJob, steps: tuple[int, ...], prior_size: int) -> str | None:
    """Why thresholds at these timesteps are to be learned; None where the prior's own will do."""
    if job.relearn:
        return "as was asked"
    try:
        own = read_calibration(job.prior)
    except UsageError:
        return "the prior has no calibration that can be used"
    if own.image_size != prior_size:
        return f"the prior is calibrated for {own.image_size} px, not for {prior_size}"
    if own.residual_steps != steps:
        return f"the prior is calibrated at timesteps {', '.join(map(str, own.residual_steps))}"
    return None
