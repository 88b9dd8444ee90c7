"""What an evaluation comes to: victims that fit, versions that are of the data, and a task for each shard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zipbatch.attacks import Goal
from zipbatch.datasets import ShardDataset, ShardRef
from zipbatch.datasets.labels import Labelling
from zipbatch.datasets.staged import ALL_TO_ONE, CLEAN_SPLIT, POISONED_SPLIT, TRAIN_SPLITS
from zipbatch.errors import UsageError
from zipbatch.spelling import setting
from zipbatch.stages.evaluate.job import EvaluateJob
from zipbatch.stages.evaluate.pieces import EvaluateTask
from zipbatch.stages.evaluate.victims import KnownVictim, num_classes
from zipbatch.stages.purified import covered, purified_objects
from zipbatch.storage import StoragePath
from zipbatch.store import Store, Version


@dataclass(frozen=True, kw_only=True)
class EvaluatePlan:
    """Everything resolved and checked."""

    job: EvaluateJob
    victims: tuple[KnownVictim, ...]
    versions: tuple[Version, ...]
    tasks: tuple[EvaluateTask, ...]


def plan_evaluate(job: EvaluateJob) -> EvaluatePlan:
    """Open versions and pair their shards with the data's; a victim that says nothing of itself is asked.

    Raises:
        UsageError: a victim that does not fit the data or does not answer, a version that is not there or not of this
            data.
    """
    sources = [source.pinned() for source in job.victims]
    victims = tuple(KnownVictim(source, num_classes(source, job.dataset)) for source in sources)
    for victim in victims:
        _check_victim(victim, job.dataset)
    if job.purified and job.store is None:
        raise UsageError("‹purified› needs ‹store›: where are the purified shards?")
    shards = _evaluated(job.dataset, job.splits)
    versions: tuple[Version, ...] = ()
    outputs: list[dict[str, tuple[StoragePath, str]]] = []
    quarantines: list[dict[str, StoragePath]] = []
    if job.store is not None:
        versions = tuple(job.store.versions.read(text) for text in job.purified)
        shards = covered(shards, versions, job.data_label)
        outputs = [purified_objects(version, shards, job.data_label, job.store) for version in versions]
        quarantines = [_quarantines(version, job.store) for version in versions]
    clean, listed = _clean_twins(job.dataset), {shard.path: shard.sha256 for shard in job.dataset.shards}
    tasks = tuple(
        EvaluateTask(
            name=shard.name,
            split=shard.split,
            data=shard.path,
            clean=shard.path if shard.split == CLEAN_SPLIT else clean.get(shard.name),
            purified=tuple(found[shard.name][0] if shard.name in found else None for found in outputs),
            made_from=tuple(found[shard.name][1] if shard.name in found else None for found in outputs),
            quarantine=tuple(aside[shard.name] for aside in quarantines if shard.name in aside),
            sha256=shard.sha256,
            clean_sha256=listed.get(clean.get(shard.name, shard.path)),
            twin_has_more=_is_of_some_classes(job.dataset),
        )
        for shard in shards
    )
    return EvaluatePlan(job=job, victims=victims, versions=versions, tasks=tasks)


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
            f"stage it with {setting('image_size', size)}"
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


def _quarantines(version: Version, store: Store) -> dict[str, StoragePath]:
    """Shard name -> quarantine shard, of those that have one."""
    return {row.shard: store.objects.path(row.objects[1]) for row in version.rows if row.quarantine is not None}


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


def labelling(job: EvaluateJob) -> Labelling:
    """How the labels of the data are read: a staged dataset promises them, bare shards may have others' or none."""
    dataset = job.dataset
    return Labelling(tuple(dataset.classes or ()), promised=dataset.manifest is not None and job.labels_needed)


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
    goal = Goal(classes=len(dataset.manifest.classes), target=attack.target if all_to_one else None, sources=sources)
    return tuple(goal.answer(label) for label in range(goal.classes))
