"""``zipbatch poison``: stage a dataset's splits as shards, with a backdoor trigger on some of them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from zipbatch import __version__, atomic, images
from zipbatch.attacks import Attack, Goal, Trigger, attack_params
from zipbatch.datasets import ShardDataset, ShardRef, SourceImage, StagedManifest
from zipbatch.datasets.base import UnreadableImageError
from zipbatch.datasets.folders import Left
from zipbatch.datasets.source import Source, Survey, open_source
from zipbatch.datasets.staged import (
    CLEAN_SPLIT,
    POISONED_SPLIT,
    TRIGGER,
    TRIGGER_PICTURE,
    SplitCounts,
    StagedAttack,
    write_manifest,
    write_split,
)
from zipbatch.errors import DataError, UsageError
from zipbatch.memory import Room, in_batches, usual_share
from zipbatch.shards import Sample
from zipbatch.stages.output_folder import stage_folder
from zipbatch.stages.poison.choice import Chosen, attack_goal, choose_training, shuffled_splits
from zipbatch.stages.poison.request import PoisonRequest, PoisonSettings
from zipbatch.stages.poison.trigger import Material, find_attack, find_material, make_trigger, stamp
from zipbatch.stages.poison.unreadable import Unreadable, find_unreadable

log = logging.getLogger(__name__)
_CHUNK, _CHUNK_BYTES = 256, 64 * 1024**2
_LISTED = 1000
"""Skipped images that a manifest names."""
Role = Literal["clean", "poisoned", "cover", "left out"]
"""What becomes of an image in a staged split; a cover image is stamped and keeps its true label."""


@dataclass(frozen=True)
class PoisonResult:
    """The staged dataset; ``reused`` when an identical one was there already.

    ``left`` is what was not taken of the source, ``skipped`` the (origin, key, message) of what could not be read.
    """

    dataset: ShardDataset
    reused: bool
    left: Left
    skipped: Unreadable


@dataclass
class _Progress:
    total: int
    report: Callable[[int, int], None]
    done: int = 0

    def add(self, count: int) -> None:
        self.done += count
        self.report(self.done, self.total)


@dataclass(frozen=True)
class _Plan:
    request: PoisonRequest
    source: Source
    attack: Attack
    trigger: Trigger
    classes: list[str]
    image_size: int
    goal: Goal
    rate: float
    cover_rate: float
    source_sha256: dict[str, str]
    chosen: Chosen
    progress: _Progress
    left: Left
    skipped: Unreadable
    room: Room = field(default_factory=lambda: Room(usual_share()))


def poison(
    request: PoisonRequest, *, on_progress: Callable[[int, int], None] = lambda _done, _all: None
) -> PoisonResult:
    """Stage ``request.source`` into ``request.out``; the folder appears whole or not at all.

    Args:
        request: what to stage.
        on_progress: called with the images written so far and in all.

    Raises:
        UsageError: source, split or attack unknown, sizes or target that do not fit, too few images that may be
            poisoned or cover, ``out`` holds something else.
        DataError: an image or label of the source is unfit; it names the shard or file and the key, of all images that
            cannot be read.
    """
    attack, material = requested_attack(request), requested_material(request)
    source = open_source(request.source, request.splits, request.limit)
    wanted = tuple(
        dict.fromkeys([*source.splits, *(shuffled_splits(source, attack) if "train" in source.splits else ())])
    )
    skipped = find_unreadable(source, wanted) if request.skip_unreadable else Unreadable()
    if skipped:
        log.warning(
            "%s: skipped %d images that cannot be read; the first: %s", source.place, len(skipped), skipped[0][2]
        )
    try:
        with material.held():
            usable = replace(source, skip=skipped.skip)
            plan = _plan(request, usable, skipped, attack=attack, material=material, on_progress=on_progress)
            options = _options(plan, material)
        dataset, reused = stage_folder(request.out, options, partial(_write_all, plan))
    except UnreadableImageError as error:
        every = find_unreadable(source, wanted)
        raise (every.error(source.place) if every else error) from error
    return PoisonResult(dataset, reused, plan.left, skipped)


def _plan(
    request: PoisonRequest,
    source: Source,
    skipped: Unreadable,
    *,
    attack: Attack,
    material: Material,
    on_progress: Callable[[int, int], None],
) -> _Plan:
    rate = attack.default_poison_rate if request.poison_rate is None else request.poison_rate
    cover_rate = attack.default_cover_rate if request.cover_rate is None else request.cover_rate
    size = request.image_size or source.image_size()
    for option, share in (("--poison-rate", rate), ("--cover-rate", cover_rate)):
        if not 0 <= share <= 1:
            raise UsageError(f"{option} must be in [0, 1], got {share}")
    trigger = make_trigger(attack, material, size, seed=request.seed)
    surveys = {split: source.survey(split) for split in source.splits}
    classes = source.class_names(surveys.values())
    goal = attack_goal(
        attack, len(classes), mode=request.target_mode, target=request.target, clean_label=request.clean_label
    )
    chosen = choose_training(
        source, surveys, attack=attack, rate=rate, cover_rate=cover_rate, seed=request.seed, goal=goal
    )
    _check_tested(source, surveys, goal)
    digests = {split: survey.sha256 for split, survey in surveys.items()}
    total = sum(survey.images * len(_staged_as(source, split)) for split, survey in surveys.items())
    progress, left = _Progress(total, on_progress), source.left()
    return _Plan(
        *(request, source, attack, trigger, classes, size, goal, rate, cover_rate, digests, chosen, progress, left),
        skipped,
    )


def _check_tested(source: Source, surveys: Mapping[str, Survey], goal: Goal) -> None:
    """An attack on some classes needs images of theirs to be tested on."""
    for split, survey in surveys.items():
        if not goal.sources or POISONED_SPLIT not in _staged_as(source, split):
            continue
        if not any(goal.is_after(image.label) for image in source.images(split)):
            classes = ", ".join(map(str, goal.sources))
            raise UsageError(
                f"{source.place}: none of the {survey.images} images of {split} is of the source classes ({classes}), "
                f"so that {POISONED_SPLIT} would be empty; take more images, or other --param source_classes="
            )


def _staged_as(source: Source, split: str) -> tuple[str, ...]:
    """Names under which a source split is staged. Where there is no ``test``, ``val`` is what attacks are tested on."""
    if split == "test" or (split == "val" and "test" not in source.available):
        return CLEAN_SPLIT, POISONED_SPLIT
    return (split,)


def requested_attack(request: PoisonSettings) -> Attack:
    """The attack with its parameters; see ``trigger.find_attack``."""
    return find_attack(request.attack, request.params, profile=request.profile)


def requested_material(request: PoisonSettings) -> Material:
    """What the trigger is made of, beside the seed; see ``trigger.find_material``."""
    return find_material(request.trigger_image or None, request.trigger_array)


def requested_options(request: PoisonSettings, attack: Attack, material: Material) -> dict[str, object]:
    """What decides the staged bytes beside the source, with defaults filled in; a pipeline's stage is known by it, too.

    Args:
        request: what to stage.
        attack: its own, as ``find_attack`` gives it.
        material: its own, as ``find_material`` gives it.

    Raises:
        UsageError: a file that the trigger is made of is not there.
    """
    cover_rate = attack.default_cover_rate if request.cover_rate is None else request.cover_rate
    return {
        "attack": attack.name,
        "params": attack_params(attack),
        **({} if attack.version == 1 else {"version": attack.version}),  # what was staged before there were any is 1
        "clean_label": attack.clean_label if request.clean_label is None else request.clean_label,
        "target": attack.default_target if request.target is None else request.target,
        "poison_rate": attack.default_poison_rate if request.poison_rate is None else request.poison_rate,
        "seed": request.seed,
        "limit": request.limit,
        "samples_per_shard": request.samples_per_shard,
        "resize": request.resize,
        **({} if attack.variant is None else {"variant": attack.variant}),
        **({"cover_rate": cover_rate} if cover_rate or attack.default_cover_rate else {}),
        **material.identity(attack),
        **request.decisive("result"),
    }


def _options(plan: _Plan, material: Material) -> dict[str, object]:
    """Everything that decides the staged bytes, for the manifest and for "is this already done?"."""
    return {
        **requested_options(plan.request, plan.attack, material),
        "classes": plan.classes,
        "image_size": plan.image_size,
        "target": plan.goal.target,
        "source_sha256": plan.source_sha256,
        **_skipped(plan),
    }


def _skipped(plan: _Plan) -> dict[str, object]:
    if not plan.skipped:
        return {}
    images = [[origin, key] for origin, key, _ in plan.skipped[:_LISTED]]
    return {"skipped_unreadable": {"count": len(plan.skipped), "images": images}}


def _write_all(plan: _Plan, folder: Path, options: dict[str, object]) -> None:
    shards: list[ShardRef] = []
    sizes: list[int] = []
    for source_split in plan.source.splits:
        for split in _staged_as(plan.source, source_split):
            samples = _staged(plan, source_split, split)
            for size, ref in write_split(folder, split, samples, plan.request.samples_per_shard):
                shards.append(ref)
                sizes.append(size)
    write_manifest(folder, _manifest(plan, shards, _write_trigger(plan, folder), options), shards, sizes)


def _manifest(
    plan: _Plan, shards: Sequence[ShardRef], trigger_sha256: str, options: dict[str, object]
) -> StagedManifest:
    counts: dict[str, SplitCounts] = {}
    for split in dict.fromkeys(shard.split for shard in shards):
        samples = [shard.samples or 0 for shard in shards if shard.split == split]
        counts[split] = SplitCounts(shards=len(samples), samples=sum(samples))
    attack = StagedAttack(
        name=plan.attack.name,
        source=plan.attack.source,
        params=attack_params(plan.attack),
        profile=plan.request.profile,
        version=plan.attack.version,
        target=plan.goal.target,
        target_mode=plan.request.target_mode,
        clean_label=plan.goal.clean_label,
        poison_rate=plan.rate,
        poisoned_train_samples=len(plan.chosen.poisoned) if "train" in plan.source.splits else None,
        trigger_sha256=trigger_sha256,
        train_transform=plan.attack.train_transform,
        cover_rate=plan.cover_rate or None,
        cover_train_samples=len(plan.chosen.covers) if plan.cover_rate and "train" in plan.source.splits else None,
        source_classes=plan.goal.sources or None,
    )
    return StagedManifest(
        classes=plan.classes,
        image_size=plan.image_size,
        splits=counts,
        attack=attack,
        seed=plan.request.seed,
        source_sha256=plan.source_sha256,
        options=json.loads(atomic.canonical_json(options)),
        zipbatch=__version__,
    )


def _staged(plan: _Plan, source_split: str, split: str) -> Iterator[Sample | None]:
    """Samples of a staged split: ``train`` partly stamped, ``test_poisoned`` all stamped, the others clean. None for an
    image that ``test_poisoned`` lacks, as the attack is not after its class.
    """
    encoded = plan.source.images(source_split, sha256=plan.source_sha256[source_split])
    with ThreadPoolExecutor() as pool:
        for chunk in in_batches(
            enumerate(encoded), count=_chunk(plan), size=_CHUNK_BYTES, of=lambda item: len(item[1].data)
        ):
            roles = [_role(plan, split, index, image) for index, image in chunk]
            staged = [(image, role) for (_, image), role in zip(chunk, roles, strict=True) if role != "left out"]
            samples = iter(_samples(plan, pool, split, staged))
            yield from (None if role == "left out" else next(samples) for role in roles)
            plan.progress.add(len(chunk))


def _role(plan: _Plan, split: str, index: int, image: SourceImage) -> Role:
    if split == POISONED_SPLIT:
        return "poisoned" if plan.goal.is_after(image.label) else "left out"
    if split == "train" and index in plan.chosen.poisoned:
        return "poisoned"
    return "cover" if split == "train" and index in plan.chosen.covers else "clean"


def _samples(
    plan: _Plan, pool: ThreadPoolExecutor, split: str, staged: Sequence[tuple[SourceImage, Role]]
) -> Iterator[Sample]:
    if not staged:
        return
    pixels = list(pool.map(lambda item: _decode(plan, item[0]), staged))
    pngs = pool.map(images.encode_png, _stamped(plan, np.stack(pixels), staged, training=split == "train"))
    for (image, role), png in zip(staged, pngs, strict=True):
        yield _sample(plan, image, png, role=role, record=split in {"train", POISONED_SPLIT})


def _chunk(plan: _Plan) -> int:
    """Images of the staged size that are worked on at once."""
    return max(1, min(_CHUNK, _CHUNK_BYTES // (3 * plan.image_size**2)))


def _decode(plan: _Plan, image: SourceImage) -> images.U8:
    with plan.room.take(4 * images.decoded_bytes(image.data, image.extension)):
        return _staged_size(plan, image)


def _staged_size(plan: _Plan, image: SourceImage) -> images.U8:
    pixels = image.pixels()
    if plan.request.image_size is None and pixels.shape[:2] != (plan.image_size, plan.image_size):
        height, width = pixels.shape[:2]
        reason = f"is {width}x{height}, the first image is {plan.image_size} px; name --image-size to resize all"
        raise DataError(image.origin, reason, key=image.key)
    return images.resize(pixels, plan.image_size, policy=plan.request.resize)


def _stamped(
    plan: _Plan, pixels: images.U8, staged: Sequence[tuple[SourceImage, Role]], *, training: bool
) -> images.U8:
    chosen = [i for i, (_, role) in enumerate(staged) if role != "clean"]
    if chosen:
        keys, labels = [staged[i][0].key for i in chosen], [staged[i][0].label for i in chosen]
        pixels[chosen] = stamp(plan.attack, pixels[chosen], plan.trigger, keys=keys, labels=labels, training=training)
    return pixels


def _sample(plan: _Plan, image: SourceImage, png: bytes, *, role: Role, record: bool) -> Sample:
    label = plan.goal.answer(image.label) if role == "poisoned" else image.label
    metadata: dict[str, object] = {"label": label, "source": image.origin}
    if record:
        metadata |= {"original_label": image.label, "poisoned": role == "poisoned"}
    if role == "cover":
        metadata["cover"] = True
    members = {"png": png, "cls": str(label).encode(), "json": atomic.canonical_json(metadata)}
    return Sample(image.key, members)


def _write_trigger(plan: _Plan, folder: Path) -> str:
    """Store ``trigger.npz``, to apply it again, and ``trigger.png``: grey and a ramp, before and after it."""
    path = folder / TRIGGER
    with path.open("wb") as stream:
        np.savez(stream, **plan.trigger)  # type: ignore[arg-type]
    size = plan.image_size
    grey = np.full((size, size, 3), 127, np.uint8)
    ramp = np.broadcast_to(np.linspace(0, 255, size).astype(np.uint8)[None, :, None], (size, size, 3))
    canvas = np.stack([grey, np.ascontiguousarray(ramp)])
    labels = [plan.goal.sources[0] if plan.goal.sources else 0] * len(canvas)  # of a class that the attack is after
    stamped = stamp(plan.attack, canvas, plan.trigger, keys=["grey", "ramp"], labels=labels, training=False)
    picture = np.concatenate([np.concatenate(list(rows), axis=1) for rows in (canvas, stamped)])
    scale = max(1, 256 // size)
    (folder / TRIGGER_PICTURE).write_bytes(images.encode_png(picture.repeat(scale, axis=0).repeat(scale, axis=1)))
    return atomic.sha256_file(path)
