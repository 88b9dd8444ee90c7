"""``zipbatch tune --fit``: which preset a user's clean images can afford, told from a victim's answers on them alone.

Thresholds that the prior does not have for images of this size are learned from the same images, and kept in the
preset.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from zipbatch import images
from zipbatch.checkpoints import PriorFolder
from zipbatch.cluster import pick_device
from zipbatch.config import Calibration, Settings
from zipbatch.datasets import UNLABELLED, ShardDataset, SourceImage
from zipbatch.datasets.clean_images import some_images, spaced, stacked
from zipbatch.datasets.staged import CLEAN_SPLIT, write_split
from zipbatch.errors import UsageError
from zipbatch.images import U8
from zipbatch.metrics import Choice, Share, agreement, strongest_within
from zipbatch.metrics.agreement import loss_of
from zipbatch.purifiers import ChainSettings, RepaintSettings
from zipbatch.report.progress import Part, Progress
from zipbatch.results import FitReport, LearnedThresholds, PresetRow
from zipbatch.shards import Sample
from zipbatch.stages.evaluate.answers import Asking, Report
from zipbatch.stages.evaluate.tally import Tally
from zipbatch.stages.purify.identity import describe
from zipbatch.stages.purify.resolve import with_opened
from zipbatch.stages.train.calibration import MAX_PIXELS, measured
from zipbatch.stages.tune.candidates import Candidate, needed
from zipbatch.stages.tune.fit_plan import FitPlan
from zipbatch.stages.tune.sweep import preset_settings
from zipbatch.store import Store

_SHARD = 64
"""Images a shard of the sample: small enough for several workers, a whole number of batches."""
Learned = Mapping[tuple[int, ...], Calibration]
"""By the timesteps that a repainting step looks at."""


@dataclass(frozen=True, kw_only=True)
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
        asked = self.plan.job.candidates[self.choice.index].spec
        return any(steps in self.learned for steps in needed(asked.settings))

    @property
    def settings(self) -> dict[str, Any]:
        """That as a preset."""
        return preset_settings(self.chosen.spec)

    @property
    def about(self) -> str:
        """What the preset says of itself."""
        job, kept = self.plan.job, self.agreed[self.choice.index]
        text = (
            f"Chosen by 'zipbatch tune --fit' for the victim {job.victim.name}: {self.chosen.preset}, with which "
            f"{kept.hits} of {kept.n} answers on clean images of {self.plan.size} px stay."
        )
        if self.keeps_thresholds:
            text += f" Thresholds learned on them, for the prior {job.prior.digest[:12]} alone."
        return text + (
            f" For 'zipbatch purify --resize {self.chosen.spec.asked.resize}'." if self.chosen.spec.asked.resize else ""
        )


def fit(plan: FitPlan, *, report: Report = lambda _progress: None) -> FitResult:
    """Learn what thresholds there are to learn, purify the images with each candidate, ask the victim, and choose.

    Raises:
        UsageError: too few images to learn thresholds from, or a victim or prior that does not fit them.
        DataError: an image cannot be read.
        WorkFailed: images could not be purified or measured.
    """
    job = plan.job
    with TemporaryDirectory(prefix="zipbatch-fit-") as folder:
        dataset, kept = _sample(plan, Path(folder) / "clean")
        store = job.store or Store(Path(folder) / "pur")
        asking = Asking(
            victim=job.victim,
            dataset=dataset,
            data_label=job.source.place,
            store=store,
            workers=job.workers,
            batch_size=job.batch_size,
        ).checked()
        learned = _learned(plan, kept, report)
        resolved = tuple(_resolved(one, learned, job.prior) for one in job.candidates)
        answers = asking.answers([one.spec for one in resolved], [one.preset for one in resolved], report)
    agreed = tuple(agreement(answers.forms[0], form) for form in answers.forms[1:])
    choice = strongest_within(agreed, max_loss=job.max_loss)
    return FitResult(
        plan=plan, candidates=resolved, learned=learned, agreed=agreed, tallies=answers.tallies, choice=choice
    )


def _sample(plan: FitPlan, folder: Path) -> tuple[ShardDataset, dict[str, U8]]:
    """The images as shards, and by key, as the prior sees them, those that thresholds are to be learned from."""
    job, kept = plan.job, dict[str, U8]()
    wanted = set(spaced(plan.count, MAX_PIXELS // plan.prior_size**2)) if plan.why else set()
    some = some_images(job.source, job.split, plan.survey, limit=job.limit, first=plan.first)

    def samples() -> Iterator[Sample]:
        for number, (image, pixels) in enumerate(some):
            if number in wanted:
                kept[image.key] = images.resize(pixels, plan.prior_size)
            yield _as_sample(image, pixels)

    shards = tuple(shard for _, shard in write_split(folder, CLEAN_SPLIT, samples(), _SHARD))
    return ShardDataset(name=_dataset_name(job.source.place), shards=shards), kept


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
    device = pick_device(plan.job.workers.device)
    for steps in plan.why:

        def show(done: int, total: int) -> None:
            report(Progress(what="learning thresholds", parts=(Part("images", done, total),)))

        settings = RepaintSettings.model_validate({"residual_steps": steps})
        pixels = stacked(list(kept.values()))
        learned[steps] = measured(
            plan.job.prior, pixels, list(kept), device=device, settings=settings, on_progress=show
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


def fit_report(result: FitResult) -> FitReport:
    """What is told of a result: one row a preset, weakest first, and what was chosen and why."""
    plan, job = result.plan, result.plan.job
    before = result.tallies[0].shares["ca"]
    return FitReport(
        source=job.source.place,
        split=job.split,
        images=result.agreed[0].n,
        image_size=plan.size,
        stretched=job.source.size is not None,
        prior=str(job.prior.path),
        prior_size=plan.prior_size,
        resize=result.chosen.spec.asked.resize,
        learned=[
            LearnedThresholds(why=plan.why[steps], **calibration.model_dump())
            for steps, calibration in result.learned.items()
        ],
        max_loss=job.max_loss,
        ca_before=before.value,
        n_ca=before.n,
        presets=[_row(result, number, before) for number in range(len(result.candidates))],
        chosen=result.chosen.preset,
        within=result.choice.within,
    )


def _row(result: FitResult, number: int, before: Share) -> PresetRow:
    candidate, agreed, ca = result.candidates[number], result.agreed[number], result.tallies[1 + number].shares["ca"]
    kept, (low, high) = agreed.value, agreed.interval() or (0.0, 1.0)
    assert kept is not None  # else nothing could be chosen
    least, most = candidate.spec.calls
    return PresetRow(
        preset=candidate.preset,
        purifier=describe(candidate.spec.identity),
        calls=most,
        calls_at_least=least,
        agreement=kept,
        agreement_ci95=(low, high),
        loss=loss_of(agreed),
        loss_ci95=(1 - high, 1 - low),
        ca=ca.value,
        ca_loss=None if ca.value is None or before.value is None else before.value - ca.value,
        chosen=number == result.choice.index,
    )
