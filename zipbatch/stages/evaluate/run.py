"""``zipbatch evaluate``: victims as black boxes on suspect and purified shards."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from zipbatch.cluster import run_tasks
from zipbatch.datasets import ShardDataset
from zipbatch.datasets.labels import Unlabelled
from zipbatch.datasets.staged import CLEAN_SPLIT, POISONED_SPLIT
from zipbatch.errors import WorkFailed
from zipbatch.metrics import Fidelity, defence_effectiveness
from zipbatch.stages.evaluate.plan import EvaluatePlan, labelling, purified_objects, wanted_answers
from zipbatch.stages.evaluate.progress import EvaluateProgress, Measured
from zipbatch.stages.evaluate.tally import Tally, add_tallies
from zipbatch.stages.evaluate.victims import class_name
from zipbatch.stages.evaluate.worker import EvaluateResult, EvaluateSetup
from zipbatch.stages.purify.cost import NO_COST, cost_of
from zipbatch.stages.purify.identity import describe
from zipbatch.store import Store, Version

log = logging.getLogger(__name__)
MEASURES_VERSION = 3
"""Raised whenever an evaluation of the same things comes to say something else."""


def with_purified(dataset: ShardDataset, version: Version, store: Store, *, split: str) -> ShardDataset:
    """A staged dataset with the shards of one split replaced by their purified forms, to train on them.

    What the version holds in quarantine is missing in it.

    Raises:
        UsageError: the version does not hold that split of this data.
    """
    found = purified_objects(version, dataset.split(split), dataset.name, store)
    rows = {row.shard: row for row in version.rows}
    shards = tuple(
        replace(shard, path=found[shard.name][0], sha256=rows[shard.name].output, samples=rows[shard.name].samples)
        if shard.split == split
        else shard
        for shard in dataset.shards
    )
    if short := sum(row.quarantined for row in version.rows if row.split == split):
        log.warning("%s: %d images of %s are in quarantine and not trained on", version.reference, short, split)
    return replace(dataset, shards=shards)


def results(
    plan: EvaluatePlan,
    *,
    keep_answers: bool = False,
    on_progress: Callable[[EvaluateProgress], None] = lambda _: None,
) -> Iterator[EvaluateResult]:
    """What the victims answer on each shard, as workers finish them.

    Raises:
        WorkFailed: at the end, when shards could not be measured; names each.
    """
    failed: list[str] = []
    setup = EvaluateSetup(plan.victims, keep_answers, wanted_answers(plan.request.dataset), labelling(plan.request))
    asked = len(plan.victims) * (1 + len(plan.versions))
    measured = Measured([task.name for task in plan.tasks], plan.request.dataset.shards, asked=asked)

    def on_partial(far: Mapping[str, int]) -> None:
        measured.take_partial(far)
        on_progress(measured.progress())

    on_progress(measured.progress())
    for outcome in run_tasks(setup, plan.tasks, plan.request.workers, on_partial=on_partial):
        if outcome.error is not None:
            failed.append(f"  {outcome.task.name}: {outcome.error}")
        else:
            yield outcome.result
        measured.take(outcome)
        on_progress(measured.progress())
    if failed:
        raise WorkFailed("\n".join([f"{len(failed)} of {len(plan.tasks)} shards could not be measured", *failed[:20]]))


def evaluate(
    plan: EvaluatePlan, *, on_progress: Callable[[EvaluateProgress], None] = lambda _: None
) -> list[dict[str, Any]]:
    """Carry out a plan: one row for each victim undefended and for each victim and purified version.

    ``n_quarantined`` images, which some version holds in quarantine, are in no row's measures.

    Raises:
        WorkFailed: shards could not be measured; names each. A measure over part of the data is never given.
    """
    forms = 1 + len(plan.versions)
    tallies = [[Tally(victim.num_classes) for _ in range(forms)] for victim in plan.victims]
    fidelity: list[dict[str, Fidelity]] = [{} for _ in plan.versions]
    quarantined, unlabelled = 0, Unlabelled()
    for result in results(plan, on_progress=on_progress):
        _add(result, tallies, fidelity)
        quarantined += result.quarantined
        unlabelled += result.unlabelled
    _say_what_labels_lack(unlabelled, tallies)
    costs = [NO_COST, *(_cost(plan, version) for version in plan.versions)]
    about = {"n_quarantined": quarantined, "n_unlabelled": unlabelled.count, "unlabelled_reason": unlabelled.first}
    return [
        _row(plan, source.label, number, tallies[v][number], fidelity[number - 1] if number else {})
        | {"der": _effectiveness(tallies[v], number), "paired": _paired(plan, tallies[v][number])}
        | about
        | costs[number]
        for v, source in enumerate(plan.request.victims)
        for number in range(forms)
    ]


def _cost(plan: EvaluatePlan, version: Version) -> dict[str, Any]:
    """What the shards took that are measured."""
    assert plan.request.store is not None  # a version is of one
    return cost_of(version, plan.request.store, {task.name for task in plan.tasks})


def _paired(plan: EvaluatePlan, tally: Tally) -> dict[str, Any] | None:
    """A purified form against the first one, on the same images; None where it is that, or labels do not fit."""
    if not tally.paired or tally.beyond.count:
        return None
    counts = {
        name: {"only_here": pair.only_here, "only_there": pair.only_there, "n": pair.n, "p": pair.p}
        for name, pair in tally.paired.items()
    }
    return {"against": plan.request.purified[0], **counts}


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


def _row(plan: EvaluatePlan, victim: str, number: int, tally: Tally, fidelity: dict[str, Fidelity]) -> dict[str, Any]:
    manifest = plan.request.dataset.manifest
    version = plan.versions[number - 1] if number else None
    row: dict[str, Any] = {
        "data": plan.request.data_label,
        "victim": victim,
        "attack": None if manifest is None else manifest.attack.name,
        "purifier": None if version is None else version.header.purifier["method"],
        "purified": None if version is None else plan.request.purified[number - 1],
        "version": None if version is None else version.header.version,
        "settings": None if version is None else describe(version.header.purifier),
    }
    shares = tally.shares
    row |= {name: share.value for name, share in shares.items()}
    row |= {f"n_{name}": share.n for name, share in shares.items()}
    row |= {f"{name}_ci95": share.interval() for name, share in shares.items()}
    for split, name in ((CLEAN_SPLIT, "clean"), (POISONED_SPLIT, "poisoned")):
        measured = fidelity.get(split, Fidelity())
        row |= {f"psnr_{name}_db": measured.psnr_db, f"ssim_{name}": measured.ssim}
    return row | _flips(tally, plan.request.dataset.classes)


def _flips(tally: Tally, classes: list[str] | None) -> dict[str, Any]:
    """The black-box alarm: the share of answers that purification changes, and the classes that they leave."""
    if tally.flips is None:
        return {"flip_rate": None, "n_flip": 0, "fled": {}}
    moved: Counter[int] = Counter()
    for (before, after), count in sorted(tally.flips.items()):
        moved[before] += count if before != after else 0
    total = tally.flips.total()
    fled = {class_name(index, classes): count for index, count in moved.most_common() if count}
    return {"flip_rate": moved.total() / total if total else None, "n_flip": total, "fled": fled}
