"""``zipbatch evaluate``: victims as black boxes on suspect and purified shards."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from zipbatch.cluster import run_tasks
from zipbatch.datasets.labels import Unlabelled
from zipbatch.datasets.staged import CLEAN_SPLIT, POISONED_SPLIT
from zipbatch.errors import WorkFailed
from zipbatch.metrics import Fidelity, defence_effectiveness
from zipbatch.report.progress import Progress
from zipbatch.results import NO_COST, EvaluationRow, Paired, PairedCounts, dump
from zipbatch.results import Cost as PurifyCost
from zipbatch.stages.evaluate.plan import EvaluatePlan, labelling, wanted_answers
from zipbatch.stages.evaluate.progress import Measured
from zipbatch.stages.evaluate.shard_result import EvaluateResult
from zipbatch.stages.evaluate.tally import Tally, add_tallies
from zipbatch.stages.evaluate.victims import class_name
from zipbatch.stages.evaluate.worker import EvaluateSetup
from zipbatch.stages.purify.cost import cost_of
from zipbatch.stages.purify.identity import describe
from zipbatch.store import Version

log = logging.getLogger(__name__)
MEASURES_VERSION = 3
"""Raised whenever an evaluation of the same things comes to say something else."""


def results(
    plan: EvaluatePlan,
    *,
    keep_answers: bool = False,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Iterator[EvaluateResult]:
    """What the victims answer on each shard, as workers finish them.

    Raises:
        WorkFailed: at the end, when shards could not be measured; names each.
    """
    failed: list[str] = []
    job = plan.job
    setup = EvaluateSetup(
        victims=plan.victims,
        keep_answers=keep_answers,
        wanted=wanted_answers(job.dataset),
        labelling=labelling(job),
        store=job.store.root if job.keep and job.store is not None else None,
    )
    asked = len(plan.victims) * (1 + len(plan.versions))
    measured = Measured([task.name for task in plan.tasks], job.dataset.shards, asked=asked)

    def on_partial(far: Mapping[str, int]) -> None:
        measured.take_partial(far)
        on_progress(measured.progress())

    on_progress(measured.progress())
    for outcome in run_tasks(setup, plan.tasks, job.workers, on_partial=on_partial):
        if outcome.error is not None:
            failed.append(f"  {outcome.task.name}: {outcome.error}")
        else:
            yield outcome.result
        measured.take(outcome)
        on_progress(measured.progress())
    if failed:
        raise WorkFailed("\n".join([f"{len(failed)} of {len(plan.tasks)} shards could not be measured", *failed[:20]]))


def evaluate(
    plan: EvaluatePlan,
    *,
    on_progress: Callable[[Progress], None] = lambda _: None,
    on_tallies: Callable[[Sequence[Sequence[Tally]]], None] = lambda _: None,
    on_answers: Callable[[EvaluateResult], None] | None = None,
) -> list[EvaluationRow]:
    """Carry out a plan: one row for each victim undefended and for each victim and purified version.

    ``n_quarantined`` images, which some version holds in quarantine, are in no row's measures. ``on_tallies`` is told
    what the rows are made of: each victim's tally of each form; ``on_answers`` of each shard, with the answers of every
    image, as workers finish them.

    Raises:
        WorkFailed: shards could not be measured; names each. A measure over part of the data is never given.
    """
    forms = 1 + len(plan.versions)
    tallies = [[Tally(classes=victim.num_classes) for _ in range(forms)] for victim in plan.victims]
    fidelity: list[dict[str, Fidelity]] = [{} for _ in range(forms)]
    quarantined, unlabelled = 0, Unlabelled()
    for result in results(plan, keep_answers=on_answers is not None, on_progress=on_progress):
        if on_answers is not None:
            on_answers(replace(result, tallies=[], fidelity=[]))
        _add(result, tallies, fidelity[1:])
        quarantined += result.quarantined
        unlabelled += result.unlabelled
    _say_what_labels_lack(unlabelled, tallies)
    on_tallies(tallies)
    found = _Found(
        plan=plan,
        tallies=tallies,
        fidelity=fidelity,
        costs=_costs(plan),
        quarantined=quarantined,
        unlabelled=unlabelled,
    )
    return [_row(found, v, number) for v in range(len(plan.victims)) for number in range(forms)]


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What there is to say of a plan: ``tallies[v][f]`` of victim v on form f, ``fidelity[f]`` and ``costs[f]``."""

    plan: EvaluatePlan
    tallies: Sequence[Sequence[Tally]]
    fidelity: Sequence[Mapping[str, Fidelity]]
    costs: Sequence[PurifyCost]
    quarantined: int
    unlabelled: Unlabelled


def _costs(plan: EvaluatePlan) -> list[PurifyCost]:
    """What the shards took that are measured, by form."""
    shards = {task.name for task in plan.tasks}
    store = plan.job.store
    return [NO_COST, *(cost_of(version, store, shards) for version in plan.versions if store is not None)]


def _paired(plan: EvaluatePlan, tally: Tally) -> Paired | None:
    """A purified form against the first one, on the same images; None where it is that, or labels do not fit."""
    if not tally.paired or tally.beyond.count:
        return None
    counts = {
        name: PairedCounts(only_here=pair.only_here, only_there=pair.only_there, n=pair.n, p=pair.p)
        for name, pair in tally.paired.items()
    }
    return Paired(against=plan.job.purified[0], **counts)


def _effectiveness(forms: Sequence[Tally], number: int) -> float | None:
    """DER of a purified form against the suspect one; None for that itself."""
    if not number:
        return None
    (ca_before, asr_before), (ca, asr) = (
        (form.shares["ca"].value, form.shares["asr"].value) for form in (forms[0], forms[number])
    )
    return defence_effectiveness(ca, asr, ca_before=ca_before, asr_before=asr_before)


def _say_what_labels_lack(unlabelled: Unlabelled, tallies: Sequence[Sequence[Tally]]) -> None:
    """Once, and only where there are labels at all: images without any need no word."""
    if unlabelled.first is not None:
        log.warning("%d images count as unlabelled; the first: %s", unlabelled.count, unlabelled.first)
    for forms in tallies:
        if (beyond := forms[0].beyond).count:
            log.warning("%s: %d labels; it is measured without any", beyond.first, beyond.count)


def _add(result: EvaluateResult, tallies: list[list[Tally]], fidelity: list[dict[str, Fidelity]]) -> None:
    for totals, parts in zip(tallies, result.tallies, strict=True):
        add_tallies(totals, parts)
    for sums, measured in zip(fidelity, result.fidelity, strict=True):
        if measured is not None:
            sums[result.split] = sums.get(result.split, Fidelity()) + measured


def _row(found: _Found, v: int, number: int) -> EvaluationRow:
    """Victim ``v`` on form ``number``."""
    job, tally = found.plan.job, found.tallies[v][number]
    version = found.plan.versions[number - 1] if number else None
    clean, poisoned = (found.fidelity[number].get(split, Fidelity()) for split in (CLEAN_SPLIT, POISONED_SPLIT))
    return EvaluationRow(
        data=job.data_label,
        victim=job.victims[v].label,
        attack=None if job.dataset.manifest is None else job.dataset.manifest.attack.name,
        purifier=None if version is None else version.header.purifier["method"],
        purified=None if version is None else job.purified[number - 1],
        version=None if version is None else version.header.version,
        settings=None if version is None else _settings(version),
        **_shares(tally),
        psnr_clean_db=clean.psnr_db,
        ssim_clean=clean.ssim,
        psnr_poisoned_db=poisoned.psnr_db,
        ssim_poisoned=poisoned.ssim,
        flip_rate=_flip_rate(tally),
        n_flip=tally.flips.total() if tally.flips is not None else 0,
        fled=_fled(tally, job.dataset.classes),
        der=_effectiveness(found.tallies[v], number),
        paired=_paired(found.plan, tally),
        n_quarantined=found.quarantined,
        n_unlabelled=found.unlabelled.count,
        unlabelled_reason=found.unlabelled.first,
        **dump(found.costs[number]),
    )


def _settings(version: Version) -> str:
    """Its purifier in short; a trial, which covers some shards alone, is said to be one."""
    header = version.header
    return describe(header.purifier) + ("" if header.trial is None else f" (trial: {header.trial_text})")


def _shares(tally: Tally) -> dict[str, Any]:
    """The fields of a row that are shares of images, with what they are of and their intervals."""
    shares = tally.shares
    return {
        **{name: share.value for name, share in shares.items()},
        **{f"n_{name}": share.n for name, share in shares.items()},
        **{f"{name}_ci95": share.interval() for name, share in shares.items()},
    }


def _flip_rate(tally: Tally) -> float | None:
    """The black-box alarm: the share of answers that purification changes."""
    if not tally.flips:
        return None
    return sum(count for (before, after), count in tally.flips.items() if before != after) / tally.flips.total()


def _fled(tally: Tally, classes: list[str] | None) -> dict[str, int]:
    """How many answers leave each class, most first."""
    moved: Counter[int] = Counter()
    for (before, after), count in sorted((tally.flips or Counter()).items()):
        moved[before] += count if before != after else 0
    return {class_name(index, classes): count for index, count in moved.most_common() if count}
