"""``zipbatch store import``: images that something else purified become a version, to be evaluated like any other."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zipbatch import __version__, atomic, images
from zipbatch.datasets import ShardDataset, ShardRef
from zipbatch.datasets.splits import check_splits
from zipbatch.errors import DataError, UsageError
from zipbatch.memory import in_batches
from zipbatch.shards import Limits, Sample, read_shard
from zipbatch.shards.digest import listed_digest, read_listed
from zipbatch.stages.convert.import_files import Files, match_by_key, match_by_map, split_folders
from zipbatch.stages.convert.import_zip_layout import match_zip_layout
from zipbatch.stages.purify.plan import check_request_tag
from zipbatch.stages.purify.publish import Published, despite_gc, publish_version
from zipbatch.store import Store, TaskRecord, VersionRow, check_name, task_key

METHOD = "import"
_CHUNK, _CHUNK_BYTES = 256, 16 * 1024**2


@dataclass(frozen=True, kw_only=True)
class ImportRequest:
    """What to import: ``folder`` holds the purified form of ``dataset``; ``table`` is a map of files to keys, or the
    folder is of the published code's ``zip_layout``.

    ``latest``: as in a ``PurifyJob``.
    """

    folder: Path
    dataset: ShardDataset
    store: Store
    tag: str | None = None
    table: Path | None = None
    splits: tuple[str, ...] = ()
    latest: bool | None = None
    zip_layout: bool = False


@dataclass(frozen=True)
class Imported:
    """What came of it. ``content_sha256`` is over split, key and digest of each imported file, in order."""

    reference: str
    published: Published
    content_sha256: str


@dataclass(frozen=True)
class _Shard:
    """A shard that has been imported: its row and what its record is to say."""

    row: VersionRow
    seconds: float


def import_purified(
    request: ImportRequest, *, on_progress: Callable[[int, int], None] = lambda _done, _all: None
) -> Imported:
    """Publish purified images as a version of the store, paired shard by shard with the data they replace.

    Each purified shard has the keys, order and other members of its input; images become PNG. Nothing is written
    until every sample has its one file. Importing the same images again adds nothing.

    Args:
        request: what to import.
        on_progress: called with the images done so far and in all.

    Raises:
        UsageError: splits or map are not what they should be, the store cannot be written.
        DataError: files and samples do not pair one to one, an image cannot be decoded or has another size.
    """
    started_ns = time.time_ns()
    check_name(request.dataset.name, "dataset (use ‹name›)")
    if request.tag is not None:
        check_request_tag(request.tag, latest=request.latest)
    return despite_gc(lambda: _import_once(request, started_ns, on_progress))


def _import_once(request: ImportRequest, started_ns: int, on_progress: Callable[[int, int], None]) -> Imported:
    files = _matched(request)
    shards = [shard for shard in request.dataset.shards if shard.split in files]
    total, done = sum(len(of_split) for of_split in files.values()), 0
    digests: list[tuple[str, str, str]] = []
    imported: list[_Shard] = []
    made = request.store.prepare()
    try:
        for shard in shards:
            imported.append(_import_shard(request.store, shard, files[shard.split], digests))
            done += imported[-1].row.samples
            on_progress(done, total)
        if done != total:
            raise DataError(request.dataset.name, "its shards changed while they were read; run again")
    finally:
        if not imported:
            request.store.discard_empty(made)
    return _publish(request, imported, atomic.sha256_json(digests), started_ns=started_ns)


def _splits(request: ImportRequest) -> tuple[str, ...]:
    known = request.dataset.splits
    check_splits(request.dataset.name, known, request.splits)
    if request.table is None:
        return request.splits or split_folders(request.folder, known)
    if not request.folder.is_dir():
        raise UsageError(f"{request.folder}: no such folder")
    return request.splits or known


def _matched(request: ImportRequest) -> Files:
    if request.zip_layout:
        if request.table is not None:
            raise UsageError(
                "‹layout='zip'› and ‹map› exclude each other: either pixels say which is which, or the map"
            )
        return match_zip_layout(request.folder, request.dataset, splits=request.splits)
    splits = _splits(request)
    keys: dict[str, dict[str, None]] = {split: {} for split in splits}  # in order
    for shard in request.dataset.shards:
        for sample in read_listed(shard.path, shard.sha256) if shard.split in keys else ():
            if sample.key in keys[shard.split]:
                raise DataError(shard.path, f"key occurs twice in split {shard.split}", key=sample.key)
            keys[shard.split][sample.key] = None
    if request.table is None:
        return match_by_key(request.folder, keys)
    return match_by_map(request.folder, request.table, keys, required=request.splits)


def _import_shard(store: Store, shard: ShardRef, files: dict[str, Path], digests: list[tuple[str, str, str]]) -> _Shard:
    """Publish the purified form of one shard as an object; note the digest of each file that went in."""
    started = time.monotonic()
    digest = listed_digest(shard.path, shard.sha256)
    with store.objects.new() as writer:
        for sample, content in _converted(shard, digest, files):
            writer.write(sample)
            digests.append((shard.split, sample.key, content))
        info = writer.finish()
        store.objects.publish(writer, info)
    row = VersionRow(split=shard.split, shard=shard.name, output=info.sha256, input=digest, samples=info.samples)
    return _Shard(row, round(time.monotonic() - started, 3))


def _converted(shard: ShardRef, digest: str, files: dict[str, Path]) -> Iterator[tuple[Sample, str]]:
    samples = read_shard(shard.path, sha256=digest)
    with ThreadPoolExecutor(max_workers=4) as pool:
        for chunk in in_batches(samples, count=_CHUNK, size=_CHUNK_BYTES, of=lambda sample: sample.size):
            if new := [sample.key for sample in chunk if sample.key not in files]:
                raise DataError(shard.path, "changed while it was read; run again", key=new[0])
            yield from pool.map(lambda sample: _convert(sample, files[sample.key]), chunk)


def _convert(sample: Sample, file: Path) -> tuple[Sample, str]:
    """The sample with the file's image, and the file's SHA-256."""
    if (size := file.stat().st_size) > (limit := Limits().max_member_bytes):
        raise DataError(file, f"has {size} bytes, over the limit of {limit}", key=sample.key)
    data = file.read_bytes()
    try:
        pixels = images.decode(data, file.suffix[1:].lower())
    except ValueError as error:
        raise DataError(file, str(error), key=sample.key) from error
    if pixels.shape != (shape := sample.image().shape):
        reason = f"is {pixels.shape[1]}x{pixels.shape[0]}, its sample is {shape[1]}x{shape[0]}"
        raise DataError(file, reason, key=sample.key)
    return sample.with_image(pixels), hashlib.sha256(data).hexdigest()


def _publish(request: ImportRequest, imported: list[_Shard], content_sha256: str, *, started_ns: int) -> Imported:
    identity: dict[str, Any] = {
        "method": METHOD,
        "algorithm_version": 1,
        "settings": {},
        "resize": None,
        "content_sha256": content_sha256,
    }
    store, dataset = request.store, request.dataset.name
    for shard in imported:
        key = task_key(shard.row.input, identity)
        known = store.tasks.record(key)
        if known is None or known.output_sha256 != shard.row.output:
            known = TaskRecord(
                input_sha256=shard.row.input,
                output_sha256=shard.row.output,
                samples_in=shard.row.samples,
                samples_out=shard.row.samples,
                seconds=shard.seconds,
                device="cpu",
                worker={},
                versions={"zipbatch": __version__},
            )
        store.tasks.put(key, known)
    parent = store.versions.latest(dataset)
    published = publish_version(
        store,
        dataset,
        identity,
        rows=[shard.row for shard in imported],
        tag=request.tag,
        parent=None if parent is None else parent.header.version,
        started_ns=started_ns,
        latest=request.latest,
    )
    return Imported(published.reference, published, content_sha256)
