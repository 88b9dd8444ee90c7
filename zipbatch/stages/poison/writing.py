"""Stage images as shards: decoded, some of them stamped, encoded, beside their trigger and a manifest."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np

from zipbatch import __version__, atomic, images
from zipbatch.attacks import attack_params
from zipbatch.datasets import ShardRef, SourceImage, StagedManifest
from zipbatch.datasets.staged import (
    POISONED_SPLIT,
    TRIGGER,
    TRIGGER_PICTURE,
    SplitCounts,
    StagedAttack,
    write_manifest,
    write_split,
)
from zipbatch.errors import DataError
from zipbatch.memory import in_batches
from zipbatch.shards import Sample
from zipbatch.stages.poison.plan import PoisonPlan, staged_as
from zipbatch.stages.poison.trigger import stamp

_CHUNK, _CHUNK_BYTES = 256, 64 * 1024**2
Role = Literal["clean", "poisoned", "cover", "left out"]
"""What becomes of an image in a staged split; a cover image is stamped and keeps its true label."""


def write_all(plan: PoisonPlan, folder: Path, options: dict[str, object]) -> None:
    """Write shards, trigger and manifest of a plan into a folder, the manifest last."""
    shards: list[ShardRef] = []
    sizes: list[int] = []
    for source_split in plan.source.splits:
        for split in staged_as(plan.source, source_split):
            samples = _staged(plan, source_split, split)
            for size, ref in write_split(folder, split, samples, plan.request.samples_per_shard):
                shards.append(ref)
                sizes.append(size)
    write_manifest(folder, _manifest(plan, shards, _write_trigger(plan, folder), options), shards, sizes)


def _manifest(
    plan: PoisonPlan, shards: Sequence[ShardRef], trigger_sha256: str, options: dict[str, object]
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


def _staged(plan: PoisonPlan, source_split: str, split: str) -> Iterator[Sample | None]:
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


def _role(plan: PoisonPlan, split: str, index: int, image: SourceImage) -> Role:
    if split == POISONED_SPLIT:
        return "poisoned" if plan.goal.is_after(image.label) else "left out"
    if split == "train" and index in plan.chosen.poisoned:
        return "poisoned"
    return "cover" if split == "train" and index in plan.chosen.covers else "clean"


def _samples(
    plan: PoisonPlan, pool: ThreadPoolExecutor, split: str, staged: Sequence[tuple[SourceImage, Role]]
) -> Iterator[Sample]:
    if not staged:
        return
    pixels = list(pool.map(lambda item: _decode(plan, item[0]), staged))
    pngs = pool.map(images.encode_png, _stamped(plan, np.stack(pixels), staged, training=split == "train"))
    for (image, role), png in zip(staged, pngs, strict=True):
        yield _sample(plan, image, png, role=role, record=split in {"train", POISONED_SPLIT})


def _chunk(plan: PoisonPlan) -> int:
    """Images of the staged size that are worked on at once."""
    return max(1, min(_CHUNK, _CHUNK_BYTES // (3 * plan.image_size**2)))


def _decode(plan: PoisonPlan, image: SourceImage) -> images.U8:
    with plan.room.take(4 * images.decoded_bytes(image.data, image.extension)):
        return _staged_size(plan, image)


def _staged_size(plan: PoisonPlan, image: SourceImage) -> images.U8:
    pixels = image.pixels()
    if plan.request.image_size is None and pixels.shape[:2] != (plan.image_size, plan.image_size):
        height, width = pixels.shape[:2]
        reason = f"is {width}x{height}, the first image is {plan.image_size} px; name ‹image_size› to resize all"
        raise DataError(image.origin, reason, key=image.key)
    return images.resize(pixels, plan.image_size, policy=plan.request.resize)


def _stamped(
    plan: PoisonPlan, pixels: images.U8, staged: Sequence[tuple[SourceImage, Role]], *, training: bool
) -> images.U8:
    chosen = [i for i, (_, role) in enumerate(staged) if role != "clean"]
    if chosen:
        keys, labels = [staged[i][0].key for i in chosen], [staged[i][0].label for i in chosen]
        pixels[chosen] = stamp(plan.attack, pixels[chosen], plan.trigger, keys=keys, labels=labels, training=training)
    return pixels


def _sample(plan: PoisonPlan, image: SourceImage, png: bytes, *, role: Role, record: bool) -> Sample:
    label = plan.goal.answer(image.label) if role == "poisoned" else image.label
    metadata: dict[str, object] = {"label": label, "source": image.origin}
    if record:
        metadata |= {"original_label": image.label, "poisoned": role == "poisoned"}
    if role == "cover":
        metadata["cover"] = True
    members = {"png": png, "cls": str(label).encode(), "json": atomic.canonical_json(metadata)}
    return Sample(image.key, members)


def _write_trigger(plan: PoisonPlan, folder: Path) -> str:
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
