"""``zipbatch tune --fit``: which preset a user's clean images can afford, told from a victim's answers on them alone.

Thresholds that the prior does not have for images of this size are learned from the same images, and kept in the
preset.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from zipbatch import images
from zipbatch.checkpoints import PriorFolder, read_calibration
from zipbatch.cluster import Workers, pick_device
from zipbatch.config import Calibration, PriorConfig, Settings
from zipbatch.datasets import UNLABELLED, ShardDataset, SourceImage
from zipbatch.datasets.clean_images import held_out_split, some_images, spaced, stacked
from zipbatch.datasets.source import Source, Survey
from zipbatch.datasets.staged import CLEAN_SPLIT, write_split
from zipbatch.errors import UsageError
from zipbatch.images import U8
from zipbatch.metrics import Choice, Share, agreement, strongest_within
from zipbatch.metrics.agreement import loss_of
from zipbatch.purifiers import ChainSettings, RepaintSettings, RestoreSettings, SamplerSettings
from zipbatch.purifiers.base import Precision
from zipbatch.report.progress import Part, Progress
from zipbatch.shards import Sample
from zipbatch.stages.evaluate.answers import Asking, Report
from zipbatch.stages.evaluate.worker import Tally
from zipbatch.stages.purify.identity import describe
from zipbatch.stages.purify.request import PurifierRequest
from zipbatch.stages.purify.resolve import asked_purifier, check_steps, with_opened
from zipbatch.stages.purify.spec import PurifierSpec
from zipbatch.stages.train.calibration import MAX_PIXELS, measured
from zipbatch.stages.tune.sweep import preset_settings
from zipbatch.store import Store
from zipbatch.victims import VictimSource

log = logging.getLogger(__name__)
PRESETS = ("fast", "balanced", "strong")
"""Weakest first: by the most that each leaves of any attack in docs/results.md."""
_SHARD = 64
"""Images a shard of the sample: small enough for several workers, a whole number of batches."""
Learned = Mapping[tuple[int, ...], Calibration]
"""By the timesteps that a repainting step looks at."""


@dataclass(frozen=True)
class Candidate:
    """A preset as the user names it, and its purifier."""

    preset: str
    spec: PurifierSpec


@dataclass(frozen=True)
class FitRequest:
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


@dataclass(frozen=True)
class FitPlan:
    """A request whose images are counted: of ``size`` pixels a side, ``prior_size`` when the prior sees them.
    ``why`` says why thresholds are to be learned at some timesteps.
    """

    request: FitRequest
    survey: Survey
    size: int
    prior_size: int
    why: Mapping[tuple[int, ...], str]

    @property
    def first(self) -> int:
        """The first image that may be taken."""
        return 0 if self.request.last is None else max(0, self.survey.images - self.request.last)

    @property
    def count(self) -> int:
        """Images that are taken."""
        return len(spaced(self.survey.images - self.first, self.request.limit))


@dataclass(frozen=True)
class FitResult:
    """What came out: the candidates with their prior and thresholds, how many answers each keeps, which was chosen.
    ``tallies`` are what labels say of the images as they came and of each candidate's.
    """

    plan: FitPlan
    candidates: tuple[Candidate, ...]
    learned: Learned
    agreed: tuple[Share, ...]
    tallies: tuple[Tally, ...]
    choice: Choice

    @property
    def chosen(self) -> Candidate:
        """The one to purify with."""
        return self.candidates[self.choice.index]

    @property
    def keeps_thresholds(self) -> bool:
        """Whether that has thresholds which were learned from these images."""
        asked = self.plan.request.candidates[self.choice.index].spec
        return any(steps in self.learned for steps in needed(asked.settings))

    @property
    def settings(self) -> dict[str, Any]:
        """That as a preset."""
        return preset_settings(self.chosen.spec)

    @property
    def about(self) -> str:
        """What the preset says of itself."""
        request, kept = self.plan.request, self.agreed[self.choice.index]
        text = (
            f"Chosen by 'zipbatch tune --fit' for the victim {request.victim.name}: {self.chosen.preset}, with which "
            f"{kept.hits} of {kept.n} answers on clean images of {self.plan.size} px stay."
        )
        if self.keeps_thresholds:
            text += f" Thresholds learned on them, for the prior {request.prior.digest[:12]} alone."
        return text + (
            f" For purify --resize {self.chosen.spec.asked.resize}." if self.chosen.spec.asked.resize else ""
        )


def candidates(
    named: Sequence[str], *, seed: int = 0, precision: Precision = "float32", resize: str | None = None
) -> tuple[Candidate, ...]:
    """The presets to try, weakest first: ``PRESETS``, then those named, in the order in which they are.

    Raises:
        UsageError: no such preset, or settings that do not fit.
    """
    names = dict.fromkeys([*(name for name in PRESETS if name not in named), *named])

    def asked(name: str) -> PurifierSpec:
        request = PurifierRequest(preset=name, seed=seed, precision=precision)
        spec = asked_purifier(request)
        return replace(spec, asked=request.model_copy(update={"resize": resize})) if spec.needs_prior else spec

    return tuple(Candidate(name, asked(name)) for name in names)


def sized(source: Source, victim: VictimSource, image_size: int | None) -> Source:
    """The source with its images stretched to the size asked for, or else to what the victim takes.

    Raises:
        UsageError: the victim takes another size than is asked for.
    """
    taken = victim.image_size
    if image_size is not None and taken not in {None, image_size}:
        raise UsageError(f"--image-size {image_size}: the victim {victim.name} takes {taken} px; leave it out")
    if image_size is None and (taken is None or _first_shape(source) == (taken, taken)):
        return source
    return replace(source, size=image_size or taken)


def _first_shape(source: Source) -> tuple[int, ...]:
    """Height and width of the first image; none where there is none."""
    image = next(source.images(held_out_split(source)), None)
    return () if image is None else image.pixels().shape[:2]


def plan_fit(request: FitRequest) -> FitPlan:
    """Count the images, and tell before any work what does not fit.

    Raises:
        UsageError: no images, images that do not fit the prior or a preset, or workers elsewhere.
        DataError: an image cannot be read.
    """
    if request.workers.address is not None:
        raise UsageError("--fit works on this machine: leave --address (or RAY_ADDRESS) out, for --gpus or --workers")
    size = request.source.image_size()
    prior_size = _prior_size(request, size)
    fitting = tuple(one for one in request.candidates if _takes(request, one, prior_size))
    if not fitting:
        raise UsageError(f"{request.source.place}: no preset takes images of {prior_size} px; name --image-size")
    survey = request.source.survey(request.split)
    request.source.left()
    steps = {step: _why_learn(request, step, prior_size) for one in fitting for step in needed(one.spec.settings)}
    why = {step: reason for step, reason in steps.items() if reason is not None}
    return FitPlan(replace(request, candidates=fitting), survey, size, prior_size, why)


def _prior_size(request: FitRequest, size: int) -> int:
    """The side of the images as the prior sees them: their own where it equals or tiles its own, or else its own."""
    side = request.prior.image_size
    if size <= side and side % size == 0:
        return size
    if any(one.spec.asked.resize for one in request.candidates):
        return side
    raise UsageError(
        f"{request.source.place}: images of {size} px neither equal nor tile the prior's {side} px; take one of: "
        f"--resize stretch (purified at {side} px, images come out at {size} px again), --image-size {side} (where the "
        "victim takes that), or a prior of their size: --prior NEW_FOLDER --train-minutes MIN"
    )


def _takes(request: FitRequest, candidate: Candidate, prior_size: int) -> bool:
    """Whether a preset takes images of that size; one of ``PRESETS`` that does not is left out, and said.

    Raises:
        UsageError: another one does not.
    """
    spec = replace(candidate.spec, prior=request.prior if candidate.spec.needs_prior else None)
    try:
        spec.images_per_row(prior_size, prior_size)
        if spec.needs_prior:
            check_steps(spec, request.prior)
    except ValueError as error:
        if candidate.preset not in PRESETS:
            raise UsageError(
                f"--preset {candidate.preset}: {error}; leave it out, or name another size or prior"
            ) from error
        log.warning("preset %s is left out: %s", candidate.preset, error)
        return False
    return True


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
                raise UsageError(f"--preset {one.preset}: needs a restorer, which a prior that is trained now has not")
            if isinstance(step.settings, SamplerSettings):
                try:
                    step.settings.check_learned(config.training_steps, config.max_step or config.training_steps)
                except ValueError as error:
                    raise UsageError(f"--preset {one.preset}: the prior to be trained {error}") from error


def needed(settings: Settings) -> tuple[tuple[int, ...], ...]:
    """The timesteps at which repainting steps need thresholds that they do not have."""
    if isinstance(settings, ChainSettings):
        return tuple(steps for step in settings.steps for steps in needed(step.settings))
    return (settings.residual_steps,) if isinstance(settings, RepaintSettings) and settings.levels is None else ()


def _why_learn(request: FitRequest, steps: tuple[int, ...], prior_size: int) -> str | None:
    """Why thresholds at these timesteps are to be learned; None where the prior's own will do."""
    if request.relearn:
        return "as --calibrate asks"
    try:
        own = read_calibration(request.prior)
    except UsageError:
        return "the prior has no calibration that can be used"
    if own.image_size != prior_size:
        return f"the prior is calibrated for {own.image_size} px, not for {prior_size}"
    if own.residual_steps != steps:
        return f"the prior is calibrated at timesteps {', '.join(map(str, own.residual_steps))}"
    return None


def fit(plan: FitPlan, *, report: Report = lambda _progress: None) -> FitResult:
    """Learn what thresholds there are to learn, purify the images with each candidate, ask the victim, and choose.

    Raises:
        UsageError: too few images to learn thresholds from, or a victim or prior that does not fit them.
        DataError: an image cannot be read.
        WorkFailed: images could not be purified or measured.
    """
    request = plan.request
    with TemporaryDirectory(prefix="zipbatch-fit-") as folder:
        dataset, kept = _sample(plan, Path(folder) / "clean")
        store = request.store or Store(Path(folder) / "pur")
        asking = Asking(
            request.victim, dataset, request.source.place, store, request.workers, request.batch_size
        ).pinned()
        asking.check()
        learned = _learned(plan, kept, report)
        resolved = tuple(_resolved(one, learned, request.prior) for one in request.candidates)
        answers = asking.answers([one.spec for one in resolved], [one.preset for one in resolved], report)
    agreed = tuple(agreement(answers.forms[0], form) for form in answers.forms[1:])
    choice = strongest_within(agreed, max_loss=request.max_loss)
    return FitResult(plan, resolved, learned, agreed, answers.tallies, choice)


def _sample(plan: FitPlan, folder: Path) -> tuple[ShardDataset, dict[str, U8]]:
    """The images as shards, and by key, as the prior sees them, those that thresholds are to be learned from."""
    request, kept = plan.request, dict[str, U8]()
    wanted = set(spaced(plan.count, MAX_PIXELS // plan.prior_size**2)) if plan.why else set()
    some = some_images(request.source, request.split, plan.survey, limit=request.limit, first=plan.first)

    def samples() -> Iterator[Sample]:
        for number, (image, pixels) in enumerate(some):
            if number in wanted:
                kept[image.key] = images.resize(pixels, plan.prior_size)
            yield _as_sample(image, pixels)

    shards = tuple(shard for _, shard in write_split(folder, CLEAN_SPLIT, samples(), _SHARD))
    return ShardDataset(_dataset_name(request.source.place), shards), kept


def _as_sample(image: SourceImage, pixels: U8) -> Sample:
    members = {"png": images.encode_png(pixels)}
    if image.label != UNLABELLED:
        members["cls"] = str(image.label).encode()
    return Sample(image.key, members)


def _dataset_name(place: str) -> str:
    """A name in the store: of the last part of where the images are."""
    last = re.split(r"[/:]", place.rstrip("/"))[-1].partition(".")[0]
    return f"{re.sub(r'[^A-Za-z0-9]+', '-', last).strip('-')[:60] or 'images'}-fit"


def _learned(plan: FitPlan, kept: Mapping[str, U8], report: Report) -> Learned:
    """Calibrations at the timesteps that lack one."""
    learned: dict[tuple[int, ...], Calibration] = {}
    device = pick_device(plan.request.workers.device)
    for steps in plan.why:

        def show(done: int, total: int) -> None:
            report(Progress("learning thresholds", (Part("images", done, total),)))

        settings = RepaintSettings.model_validate({"residual_steps": steps})
        pixels = stacked(list(kept.values()))
        learned[steps] = measured(
            plan.request.prior, pixels, list(kept), device=device, settings=settings, on_progress=show
        )
    return learned


def _resolved(candidate: Candidate, learned: Learned, prior: PriorFolder) -> Candidate:
    """With what was learned, and its prior."""
    spec = candidate.spec
    try:
        settings = _with_learned(spec.settings, learned)
    except ValueError as error:
        raise UsageError(f"preset {candidate.preset}: {error}") from error
    return replace(candidate, spec=with_opened(replace(spec, settings=settings), prior))


def _with_learned(settings: Settings, learned: Learned) -> Settings:
    if isinstance(settings, ChainSettings):
        return settings.with_each(lambda own: _with_learned(own, learned))
    if isinstance(settings, RepaintSettings) and settings.levels is None and settings.residual_steps in learned:
        return settings.calibrated(learned[settings.residual_steps])
    return settings


def fit_report(result: FitResult) -> dict[str, Any]:
    """The result as plain data: one row a preset, weakest first, and what was chosen and why."""
    plan, request = result.plan, result.plan.request
    before = result.tallies[0].shares["ca"]
    return {
        "source": request.source.place,
        "split": request.split,
        "images": result.agreed[0].n,
        "image_size": plan.size,
        "stretched": request.source.size is not None,
        "prior": str(request.prior.path),
        "prior_size": plan.prior_size,
        "resize": result.chosen.spec.asked.resize,
        "learned": [
            {"why": plan.why[steps], **calibration.model_dump(mode="json")}
            for steps, calibration in result.learned.items()
        ],
        "max_loss": request.max_loss,
        "ca_before": before.value,
        "n_ca": before.n,
        "presets": [_row(result, number, before) for number in range(len(result.candidates))],
        "chosen": result.chosen.preset,
        "within": result.choice.within,
    }


def _row(result: FitResult, number: int, before: Share) -> dict[str, Any]:
    candidate, agreed, ca = result.candidates[number], result.agreed[number], result.tallies[1 + number].shares["ca"]
    low, high = agreed.interval() or (0.0, 1.0)
    least, most = candidate.spec.calls
    return {
        "preset": candidate.preset,
        "purifier": describe(candidate.spec.identity),
        "calls": most,
        "calls_at_least": least,
        "agreement": agreed.value,
        "agreement_ci95": (low, high),
        "loss": loss_of(agreed),
        "loss_ci95": (1 - high, 1 - low),
        "ca": ca.value,
        "ca_loss": None if ca.value is None or before.value is None else before.value - ca.value,
        "chosen": number == result.choice.index,
    }
