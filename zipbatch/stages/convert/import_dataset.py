"""``zipbatch import dataset``: the stamped test images of a BackdoorBench record become a staged dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from zipbatch import __version__, atomic, images
from zipbatch.checkpoints.backdoorbench import RESULT, AttackResult, PoisonedImage, read_attack_result, record_file
from zipbatch.datasets import ShardDataset, ShardRef, SourceImage, StagedManifest, write_manifest
from zipbatch.datasets.source import Source, open_source
from zipbatch.datasets.staged import CLEAN_SPLIT, POISONED_SPLIT, SplitCounts, StagedAttack, write_split
from zipbatch.errors import DataError, UsageError
from zipbatch.keys import check_key
from zipbatch.shards import Sample
from zipbatch.stages.convert.foreign_victim import CLASSES
from zipbatch.stages.convert.request import ImportDatasetRequest
from zipbatch.stages.output_folder import stage_folder
from zipbatch.storage import CHANGED, held_to

_CHUNK = 256


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What to stage, and the digests of all that it is made from: of ``pictures`` by index."""

    request: ImportDatasetRequest
    record: AttackResult
    stamped: tuple[PoisonedImage, ...]
    source: Source | None
    keys: dict[int, str]
    classes: list[str]
    record_sha256: str
    source_sha256: str | None
    pictures: dict[int, str]

    @property
    def folder(self) -> Path:
        """Where the record's pictures lie now, wherever it was made."""
        return self.record.path.parent


def import_dataset(request: ImportDatasetRequest) -> tuple[ShardDataset, bool]:
    """Stage a record's stamped test images, and their clean twins where a source has them.

    Every stamped image keeps its bytes, and says in its ``.json`` which file of the record it was and which index of
    the clean test set it has. With a source it has the key of its clean twin, and shard N of ``test`` holds the twins
    of shard N of ``test_poisoned``; images without a twin (those of the target class) follow in shards of their own.

    Returns:
        The staged dataset, and whether it was there already.

    Raises:
        UsageError: no such record, a damaged one, a source in another order, or ``out`` holds something else.
        DataError: a picture is missing or unfit; names it.
    """
    plan = _plan(request)
    return stage_folder(request.out, _options(plan), partial(_write_all, plan))


def _plan(request: ImportDatasetRequest) -> _Plan:
    file = record_file(request.record)
    if not file.is_file():
        raise UsageError(f"{file}: missing")
    with held_to(file, None) as record_sha256:
        record = read_attack_result(request.record)
        stamped = record.test_images()
    source = None if request.source is None else open_source(request.source, (CLEAN_SPLIT,))
    source_sha256 = None
    keys = {image.index: f"{image.original_label}/{image.index}" for image in stamped}
    classes = list(CLASSES.get(record.dataset, ()))
    if source is not None:
        source_sha256 = source.survey(CLEAN_SPLIT).sha256
        keys = _twins(source, stamped, record, source_sha256)
        source.left()
        classes = source.archive.classes or classes
    if len(classes) != record.num_classes:
        classes = [str(index) for index in range(record.num_classes)]
    folder = record.path.parent
    pictures = {image.index: _sha256(folder, image) for image in stamped}
    return _Plan(
        request=request,
        record=record,
        stamped=stamped,
        source=source,
        keys=keys,
        classes=classes,
        record_sha256=record_sha256,
        source_sha256=source_sha256,
        pictures=pictures,
    )


def _twins(source: Source, stamped: tuple[PoisonedImage, ...], record: AttackResult, sha256: str) -> dict[int, str]:
    """The key of the clean twin of each stamped image, by index; the labels must agree, so the order does."""
    named = source.archive.classes
    if named is not None and len(named) != record.num_classes:
        raise UsageError(f"{source.place}: has {len(named)} classes, the record has {record.num_classes}")
    wanted = {image.index: image.original_label for image in stamped}
    keys: dict[int, str] = {}
    for index, image in enumerate(source.images(CLEAN_SPLIT, sha256=sha256)):
        if index not in wanted:
            continue
        if image.label != wanted[index]:
            raise UsageError(
                f"{source.place}: image {index} of {CLEAN_SPLIT} ({image.key}) is of class {image.label}, "
                f"{record.path} says {wanted[index]}; the source must hold {record.dataset} in its own order"
            )
        keys[index] = image.key
    if missing := set(wanted) - set(keys):
        raise UsageError(
            f"{source.place}: {CLEAN_SPLIT} ends before image {min(missing)}, which {record.path} has stamped"
        )
    return keys


def _options(plan: _Plan) -> dict[str, Any]:
    """Everything that decides the staged bytes, for the manifest and for "is this already done?"."""
    return {
        "imported": "BackdoorBench record",
        "record_sha256": plan.record_sha256,
        "pictures_sha256": atomic.sha256_json(
            [[str(image.file), plan.pictures[image.index]] for image in plan.stamped]
        ),
        "source_sha256": plan.source_sha256,
        "samples_per_shard": plan.request.samples_per_shard,
    }


def _sha256(folder: Path, image: PoisonedImage) -> str:
    path = folder / image.file
    if not path.is_file():
        raise DataError(path, f"missing; {RESULT} lists it as the stamped image of index {image.index}")
    return atomic.sha256_file(path)


def _write_all(plan: _Plan, folder: Path, options: dict[str, Any]) -> None:
    size = plan.request.samples_per_shard
    written = list(write_split(folder, POISONED_SPLIT, _stamped(plan), size))
    if plan.source is not None:
        twins = list(write_split(folder, CLEAN_SPLIT, _clean(plan, plan.source, twins=True), size))
        rest = write_split(folder, CLEAN_SPLIT, _clean(plan, plan.source, twins=False), size, first=len(twins))
        written = [*twins, *rest, *written]
    shards = [ref for _, ref in written]
    write_manifest(folder, _manifest(plan, shards, options), shards, [size for size, _ in written])


def _stamped(plan: _Plan) -> Iterator[Sample]:
    """The stamped images in the order of the clean test set."""
    remaining = iter(plan.stamped)
    with ThreadPoolExecutor(max_workers=4) as pool:
        while chunk := list(islice(remaining, _CHUNK)):
            yield from pool.map(lambda image: _stamped_sample(plan, image), chunk)


def _stamped_sample(plan: _Plan, image: PoisonedImage) -> Sample:
    path, key = plan.folder / image.file, plan.keys[image.index]
    png = path.read_bytes()
    if hashlib.sha256(png).hexdigest() != plan.pictures[image.index]:
        raise DataError(path, CHANGED, key=key)
    _check_picture(plan, png, "png", where=path, key=key)
    metadata = {
        "label": image.label,
        "original_label": image.original_label,
        "poisoned": True,
        "source": image.file.as_posix(),
        "index": image.index,
    }
    return _sample(key, png, image.label, metadata)


def _clean(plan: _Plan, source: Source, *, twins: bool) -> Iterator[Sample]:
    """The clean images that have a stamped twin, or those that have none, in the source's order."""
    for index, image in enumerate(source.images(CLEAN_SPLIT, sha256=plan.source_sha256)):
        if (index in plan.keys) == twins:
            yield _clean_sample(plan, image, index)


def _clean_sample(plan: _Plan, image: SourceImage, index: int) -> Sample:
    pixels = _check_picture(plan, image.data, image.extension, where=image.origin, key=image.key)
    metadata = {"label": image.label, "source": image.origin, "index": index}
    return _sample(image.key, images.encode_png(pixels), image.label, metadata)


def _check_picture(plan: _Plan, data: bytes, extension: str, *, where: object, key: str) -> images.U8:
    try:
        check_key(key)
        pixels = images.decode(data, extension)
    except ValueError as error:
        raise DataError(where, str(error), key=key) from error
    side = plan.record.image_size
    if pixels.shape[:2] != (side, side):
        raise DataError(where, f"is {pixels.shape[1]}x{pixels.shape[0]}, the record's images are {side} px", key=key)
    return pixels


def _sample(key: str, png: bytes, label: int, metadata: dict[str, Any]) -> Sample:
    return Sample(key, {"png": png, "cls": str(label).encode(), "json": atomic.canonical_json(metadata)})


def _manifest(plan: _Plan, shards: list[ShardRef], options: dict[str, Any]) -> StagedManifest:
    record, marked = plan.record, plan.record.train_marked()
    counts: dict[str, SplitCounts] = {}
    for split in dict.fromkeys(shard.split for shard in shards):
        samples = [shard.samples or 0 for shard in shards if shard.split == split]
        counts[split] = SplitCounts(shards=len(samples), samples=sum(samples))
    targets = sorted({image.label for image in plan.stamped})
    attack = StagedAttack(
        name=plan.folder.resolve().name,
        source=f"BackdoorBench record of {record.model_name} on {record.dataset}",
        params={"targets": targets, "train_marked": None if marked is None else marked[0]},
        target=targets[0] if len(targets) == 1 else None,
        poison_rate=None if marked is None else marked[0] / marked[1],
        poisoned_train_samples=None,
        trigger_sha256=None,
    )
    return StagedManifest(
        classes=plan.classes,
        image_size=record.image_size,
        splits=counts,
        attack=attack,
        seed=None,
        source_sha256={POISONED_SPLIT: options["pictures_sha256"]}
        | ({} if options["source_sha256"] is None else {CLEAN_SPLIT: options["source_sha256"]}),
        options=options,
        zipbatch=__version__,
    )
