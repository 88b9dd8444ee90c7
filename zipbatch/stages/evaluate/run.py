"""``zipbatch evaluate``: victims as black boxes on suspect and purified shards."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from zipbatch.attacks import Goal
from zipbatch.cluster import Workers, run_tasks
from zipbatch.datasets import ShardDataset, ShardRef
from zipbatch.datasets.labels import Labelling, Unlabelled
from zipbatch.datasets.staged import ALL_TO_ONE, CLEAN_SPLIT, POISONED_SPLIT, TRAIN_SPLITS
from zipbatch.errors import UsageError, WorkFailed
from zipbatch.metrics import Fidelity, defence_effectiveness
from zipbatch.stages.evaluate.pieces import EvaluateTask
from zipbatch.stages.evaluate.progress import EvaluateProgress, Measured
from zipbatch.stages.evaluate.victims import class_name, num_classes
from zipbatch.stages.evaluate.worker import (
    EvaluateResult,
    EvaluateSetup,
    KnownVictim,
    Tally,
    add_tallies,
)
from zipbatch.stages.purify.cost import NO_COST, cost_of
from zipbatch.stages.purify.identity import describe
from zipbatch.storage import StoragePath
from zipbatch.store import Store, Version
from zipbatch.victims import VictimSource

log = logging.getLogger(__name__)
MEASURES_VERSION = 3
"""Raised whenever an evaluation of the same things comes to say something else."""


@dataclass(frozen=True)
class EvaluateRequest:
    """What to measure. ``data_label`` and the labels of ``victims`` are repeated in the rows as they were given.
    Without ``labels_needed``, staged data whose labels cannot be used is measured without them, as bare shards are.
    """

    victims: tuple[VictimSource, ...]
    dataset: ShardDataset
    data_label: str
    purified: tuple[str, ...] = ()
    store: Store | None = None
    workers: Workers = Workers()
    splits: tuple[str, ...] = ()
    labels_needed: bool = True


@dataclass(frozen=True)
class EvaluatePlan:
    """Everything resolved and checked."""

    request: EvaluateRequest
    victims: tuple[KnownVictim, ...]
    versions: tuple[Version, ...]
    tasks: tuple[EvaluateTask, ...]


def plan_evaluate(request: EvaluateRequest) -> EvaluatePlan:
    """Open versions and pair their shards with the data's; a victim that says nothing of itself is asked.

    Raises:
        UsageError: a victim that does not fit the data or does not answer, a version that is not there or not of this
            data.
    """
    sources = [source.pinned() for source in request.victims]
    victims = tuple(KnownVictim(source, num_classes(source, request.dataset)) for source in sources)
    for victim in victims:
        _check_victim(victim, request.dataset)
    if request.purified and request.store is None:
        raise UsageError("--purified needs --store: where are the purified shards?")
    shards = _evaluated(request.dataset, request.splits)
    versions: tuple[Version, ...] = ()
    outputs: list[dict[str, tuple[StoragePath, str]]] = []
    quarantines: list[dict[str, StoragePath]] = []
    if request.store is not None:
        versions = tuple(request.store.versions.read(text) for text in request.purified)
        outputs = [_outputs(version, shards, request.data_label, request.store) for version in versions]
        quarantines = [_quarantines(version, request.store) for version in versions]
    clean, listed = _clean_twins(request.dataset), {shard.path: shard.sha256 for shard in request.dataset.shards}
    tasks = tuple(
        EvaluateTask(
            shard.name,
            shard.split,
            shard.path,
            shard.path if shard.split == CLEAN_SPLIT else clean.get(shard.name),
            tuple(found[shard.name][0] if shard.name in found else None for found in outputs),
            tuple(found[shard.name][1] if shard.name in found else None for found in outputs),
            tuple(aside[shard.name] for aside in quarantines if shard.name in aside),
            shard.sha256,
            listed.get(clean.get(shard.name, shard.path)),
            _is_of_some_classes(request.dataset),
        )
        for shard in shards
    )
    return EvaluatePlan(request, victims, versions, tasks)


def _check_victim(victim: KnownVictim, dataset: ShardDataset) -> None:
    """A victim must know every class of the data. It may know more: such answers are wrong, as they should be."""
    classes, source, size = dataset.classes, victim.source, victim.source.image_size
    if classes is not None and len(classes) > victim.num_classes:
        raise UsageError(
            f"{source.label}: the victim has {victim.num_classes} classes, {dataset.name} has {len(classes)}; "
            "use a victim trained on this data"
        )
    if size is not None and dataset.manifest is not None and dataset.manifest.image_size != size:
        raise UsageError(
            f"{source.label}: the victim takes {size} px, {dataset.name} has {dataset.manifest.image_size} px; "
            f"stage it with --image-size {size}"
        )


def _evaluated(dataset: ShardDataset, splits: Sequence[str]) -> tuple[ShardRef, ...]:
    """The shards of the splits asked for; without, those that are no training data, or all if that is all."""
    wanted = splits or [split for split in dataset.splits if split not in TRAIN_SPLITS]
    if dataset.manifest is None:
        wanted = wanted or dataset.splits
    shards = tuple(shard for shard in dataset.shards if shard.split in wanted)
    if not shards:
        raise UsageError(f"{dataset.name}: has neither split {CLEAN_SPLIT} nor {POISONED_SPLIT}; nothing to evaluate")
    return shards


def _outputs(
    version: Version, shards: Sequence[ShardRef], data: str, store: Store
) -> dict[str, tuple[StoragePath, str]]:
    """Shard name -> (purified object, digest of what it was made from).

    Splits that the version lacks are left out; a shard missing within a split is an error.
    """
    rows = {row.shard: row for row in version.rows}
    splits = {row.split for row in version.rows}
    found: dict[str, tuple[StoragePath, str]] = {}
    for shard in shards:
        if shard.split not in splits:
            continue
        row = rows.get(shard.name)
        if row is None or (shard.sha256 is not None and row.input != shard.sha256):
            raise UsageError(
                f"{version.reference} was not made from {data}: {shard.name} "
                f"{'is missing in it' if row is None else 'has other content'}; purify this data first"
            )
        found[shard.name] = (store.objects.path(row.output), row.input)
    if not found:
        raise UsageError(f"{version.reference} holds none of the splits of {data}")
    return found


def _quarantines(version: Version, store: Store) -> dict[str, StoragePath]:
    """Shard name -> quarantine shard, of those that have one."""
    return {row.shard: store.objects.path(row.objects[1]) for row in version.rows if row.quarantine is not None}


def with_purified(dataset: ShardDataset, version: Version, store: Store, *, split: str) -> ShardDataset:
    """A staged dataset with the shards of one split replaced by their purified forms, to train on them.

    What the version holds in quarantine is missing in it.

    Raises:
        UsageError: the version does not hold that split of this data.
    """
    found = _outputs(version, dataset.split(split), dataset.name, store)
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


def _clean_twins(dataset: ShardDataset) -> dict[str, StoragePath]:
    """Name of a poisoned shard -> the clean shard with the same images; staged datasets number them alike."""
    if dataset.manifest is None:
        return {}
    clean = {shard.name: shard.path for shard in dataset.split(CLEAN_SPLIT)}
    twins = {s.name: s.name.replace(POISONED_SPLIT, CLEAN_SPLIT, 1) for s in dataset.split(POISONED_SPLIT)}
    return {name: clean[twin] for name, twin in twins.items() if twin in clean}


def _is_of_some_classes(dataset: ShardDataset) -> bool:
    """Whether its poisoned split holds images of some classes alone."""
    return dataset.manifest is not None and dataset.manifest.attack.source_classes is not None


def labelling(request: EvaluateRequest) -> Labelling:
    """How the labels of the data are read: a staged dataset promises them, bare shards may have others' or none."""
    dataset = request.dataset
    return Labelling(tuple(dataset.classes or ()), promised=dataset.manifest is not None and request.labels_needed)


def wanted_answers(dataset: ShardDataset) -> tuple[int, ...] | None:
    """Class -> what the attack wants images of it to be taken for, itself where it is not after them; None where the
    data does not say.
    """
    if dataset.manifest is None:
        return None
    attack, all_to_one = dataset.manifest.attack, dataset.manifest.attack.target_mode == ALL_TO_ONE
    if all_to_one and attack.target is None:
        return None
    sources = attack.source_classes or ()
    goal = Goal(len(dataset.manifest.classes), attack.target if all_to_one else None, sources=sources)
    return tuple(goal.answer(label) for label in range(goal.classes))


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
    plan: EvaluatePlan,
    *,
    on_progress: Callable[[EvaluateProgress], None] = lambda _: None,
    on_tallies: Callable[[Sequence[Sequence[Tally]]], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """Carry out a plan: one row for each victim undefended and for each victim and purified version.

    ``n_quarantined`` images, which some version holds in quarantine, are in no row's measures. ``on_tallies`` is told
    what the rows are made of: each victim's tally of each form.

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
    on_tallies(tallies)
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
