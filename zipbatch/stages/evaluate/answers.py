"""A victim's answers on the same images as they came and purified in several ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from zipbatch.checkpoints import VictimFolder
from zipbatch.cluster import Workers
from zipbatch.datasets import ShardDataset
from zipbatch.errors import UsageError
from zipbatch.report.progress import Progress
from zipbatch.stages.evaluate.job import EvaluateJob
from zipbatch.stages.evaluate.kept import KeptAnswers, note_victim, victim_digest
from zipbatch.stages.evaluate.plan import EvaluatePlan, plan_evaluate
from zipbatch.stages.evaluate.run import results
from zipbatch.stages.evaluate.shard_result import EvaluateResult
from zipbatch.stages.evaluate.tally import Tally, add_tallies
from zipbatch.stages.evaluate.victims import KnownVictim
from zipbatch.stages.purify.job import PurifyJob
from zipbatch.stages.purify.plan import plan_purify
from zipbatch.stages.purify.precision import decided
from zipbatch.stages.purify.request import PurifySettings
from zipbatch.stages.purify.run import purify
from zipbatch.stages.purify.spec import PurifierSpec
from zipbatch.store import Store
from zipbatch.victims import VictimSource

Report = Callable[[Progress], None]


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a victim answered on N images, as they came and purified in R ways.

    Attributes:
        forms: answers, int64 [1 + R, N].
        shares: of 1, what the victim gives each answer, float64 [1 + R, N].
        tallies: what labels say of each form, where there are any, and no answers are kept.
        classes: how many the victim knows.
        shards: in order, each with the keys of its images, but for those that some form has in quarantine.
        digests: of these shards as they came.
        quarantined: how many images were left out.
        reused: answers that were kept from before.
        plan: what was asked.
    """

    forms: npt.NDArray[np.int64]
    shares: npt.NDArray[np.float64]
    tallies: tuple[Tally, ...]
    classes: int
    shards: tuple[tuple[str, tuple[str, ...]], ...] = ()
    digests: tuple[str, ...] = ()
    quarantined: int = 0
    reused: int = 0
    plan: EvaluatePlan | None = None


@dataclass(frozen=True, kw_only=True)
class Asking:
    """Whom to ask about which data, and where its purified forms are kept, for later runs, too.

    ``keep``: so are the answers, and nothing is asked of which they are there.
    """

    victim: VictimSource
    dataset: ShardDataset
    data_label: str
    store: Store
    workers: Workers = Workers()
    batch_size: int = 32
    keep: bool = False

    def checked(self, purified: Sequence[str] = ()) -> Asking:
        """The same, of the victim's files as they are now, and of a victim of which it is known how many classes it
        knows. Told before any work: that it does not fit, or that a purified version is not there.

        Raises:
            UsageError: it does not fit the data, or does not answer; or a version is not of all of this data.
        """
        pinned = replace(self, victim=self.victim.pinned())
        if (digest := pinned._noted_as) is not None and (classes := self.store.answers.classes(digest)) is not None:
            pinned = replace(pinned, victim=pinned.victim.knowing(classes=classes))
        known = pinned._plan(purified).victims[0]
        return replace(pinned, victim=known.source.knowing(classes=known.num_classes))

    def kept(self) -> KeptAnswers | None:
        """The answers that are kept of the victim; None where none are."""
        source, classes = self.victim, self.victim.num_classes
        digest = victim_digest(source, torch.device("cpu")) if self.keep else None
        return None if digest is None or classes is None else KeptAnswers(self.store, digest, classes)

    @property
    def _noted_as(self) -> str | None:
        """The digest by which the store notes how many classes the victim knows; None where nothing is noted."""
        if not self.keep or isinstance(self.victim, VictimFolder):
            return None
        return victim_digest(self.victim, torch.device("cpu"))  # wherever it computes

    def answers(self, specs: Sequence[PurifierSpec], named: Sequence[str], report: Report) -> Answers:
        """Purify the data with each purifier, whose name is shown meanwhile, and ask about all of it.

        Raises:
            UsageError: data that does not fit the victim or a prior.
            WorkFailed: shards could not be purified or measured.
        """
        references = []
        for number, (spec, name) in enumerate(zip(specs, named, strict=True)):
            what = f"purifying, {name} ({number + 1}/{len(specs)})"
            report(Progress(what=what))
            references.append(self._purified(spec, partial(_show, report, what)))
        return self.answers_on(references, report)

    def _purified(self, spec: PurifierSpec, show: Callable[[Progress], None]) -> str:
        settings = PurifySettings(splits=self.dataset.splits, batch_size=self.batch_size)
        chosen = decided(spec, self.workers)
        job = PurifyJob(dataset=self.dataset, spec=chosen, store=self.store, workers=self.workers, settings=settings)
        return f"{self.dataset.name}@{purify(plan_purify(job), on_progress=show).version}"

    def answers_on(self, purified: Sequence[str], report: Report) -> Answers:
        """Ask about the data as it came and in versions that exist, ``NAME[@TAG]`` in the store.

        Raises:
            UsageError: data that does not fit the victim, or a version that is not of all of it.
            WorkFailed: shards could not be measured.
        """
        plan = self._plan(purified)
        self._note_classes(plan.victims[0])
        tallies = tuple(Tally(classes=plan.victims[0].num_classes) for _ in range(1 + len(purified)))
        asked: dict[str, EvaluateResult] = {}

        def show(progress: Progress) -> None:
            report(progress.shown("asking the victim"))

        for result in results(plan, keep_answers=True, on_progress=show):
            add_tallies(tallies, result.tallies[0])
            asked[result.name] = replace(result, fidelity=[], tallies=[])
        return _gathered(plan, [asked[task.name] for task in plan.tasks], () if self.keep else tallies)

    def _note_classes(self, victim: KnownVictim) -> None:
        digest = self._noted_as
        if digest is not None and self.store.answers.classes(digest) is None:
            note_victim(self.store, victim)

    def _plan(self, purified: Sequence[str]) -> EvaluatePlan:
        plan = plan_evaluate(self._evaluation(purified))
        for task in plan.tasks:
            if None in task.purified:
                raise UsageError(
                    f"{purified[task.purified.index(None)]}: lacks the split {task.split} of {self.data_label}; name "
                    "other splits with ‹splits›, or purify that one"
                )
        return plan

    def _evaluation(self, references: Sequence[str]) -> EvaluateJob:
        return EvaluateJob(
            victims=(self.victim,),
            dataset=self.dataset,
            data_label=self.data_label,
            purified=tuple(references),
            store=self.store,
            workers=self.workers,
            splits=self.dataset.splits,
            labels_needed=False,
            keep=self.keep,
        )


def _gathered(plan: EvaluatePlan, results: Sequence[EvaluateResult], tallies: tuple[Tally, ...]) -> Answers:
    """What there is of all shards, in their order, however workers finished them."""
    replies = [[form for form in result.replies(0) if form is not None] for result in results]
    none = np.empty((1 + len(plan.versions), 0))
    return Answers(
        forms=np.concatenate(
            [none.astype(np.int64), *(np.stack([r.answers for r in each]) for each in replies)], axis=1
        ),
        shares=np.concatenate([none, *(np.stack([r.shares for r in each]) for each in replies)], axis=1),
        tallies=tallies,
        classes=plan.victims[0].num_classes,
        shards=tuple((result.name, result.keys) for result in results),
        digests=tuple(result.digest for result in results),
        quarantined=sum(result.quarantined for result in results),
        reused=sum(result.reused for result in results),
        plan=plan,
    )


def _show(report: Report, what: str, progress: Progress) -> None:
    report(progress.shown(what))
