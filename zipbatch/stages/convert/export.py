"""``zipbatch store export``: a version as a plain folder, of shards or of images, for those who know no store.

What a version holds in quarantine could not be read and was not purified: it stays in the store, is counted, and where
a shard came out short of samples, the manifest says by how many.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from zipbatch.datasets.base import CLASSES
from zipbatch.datasets.splits import check_splits
from zipbatch.datasets.staged import is_reserved
from zipbatch.errors import DataError, UsageError
from zipbatch.shards import Sample, read_shard
from zipbatch.stages.convert.exported_files import (
    ExportRequest,
    listed_classes,
    made_of,
    shard_files,
    write_listing,
)
from zipbatch.stages.output_folder import new_folder
from zipbatch.store import Store, Version, VersionRow


@dataclass(frozen=True, kw_only=True)
class Exported:
    """How much came out; ``quarantined`` samples more of these shards did not. ``reused``: all was there already."""

    reference: str
    shards: int
    samples: int
    quarantined: int
    reused: bool


Progress = Callable[[int, int], None]
"""Called with the images that are out so far and in all."""


def export_shards(request: ExportRequest, *, on_progress: Progress = lambda _done, _all: None) -> Exported:
    """A folder of the shards under the names of their inputs, with a manifest; it comes whole or not at all.

    A folder that has all of it already, and nothing else, is left as it is.

    With a staged ``dataset`` the folder is a staged dataset itself, with the same attack and classes, so that it can be
    purified and evaluated as one. Without, its manifest lists the version's header and the shards' digests.

    Raises:
        UsageError: ``out`` is taken, a split is not there, or ``dataset`` is not what the version was made from.
        DataError: an object is missing or damaged, or a shard's name is none.
    """
    rows = _chosen(request)
    _check_names(request.version, rows)

    def write(folder: Path) -> None:
        sizes, done, total = [], 0, sum(row.samples for row in rows)
        for row in rows:
            request.store.objects.export(row.output, folder / row.shard, copy=request.copy)
            sizes.append((folder / row.shard).stat().st_size)
            done += row.samples
            on_progress(done, total)
        write_listing(request, folder, rows, sizes)

    reused = made_of(request.out, partial(shard_files, request, rows))
    if not reused:
        new_folder(request.out, write, taken=_taken(request.out))
    return _exported(request, rows, reused=reused)


def export_images(request: ExportRequest, *, on_progress: Progress = lambda _done, _all: None) -> Exported:
    """A tree ``<split>/<class>/<key>.png``, without the class where there is no label; whole or not at all, and left
    as it is where it has all of it already.

    Classes are named as those of ``dataset``, else by their numbers. ``classes.txt`` says their order.

    Raises:
        UsageError: as ``export_shards``; a class whose name is unfit for a folder.
        DataError: an object is missing or damaged, a key that occurs twice in a split, a label beyond the classes.
    """
    rows = _chosen(request)
    classes = None if request.dataset is None else request.dataset.classes
    _check_class_names(classes or ())

    def files(row: VersionRow) -> Iterator[_ImageFile]:
        for sample in _samples(request.store, row):
            yield _image_file(Path(_plain(row.split)), sample, classes, true_labels=request.true_labels)

    def write(folder: Path) -> None:
        done, total = 0, sum(row.samples for row in rows)
        for row in rows:
            for file in files(row):
                _write_image(folder, file)
                done += 1
                on_progress(done, total)
        if classes is not None:
            (folder / CLASSES).write_bytes(listed_classes(classes))

    def content() -> Iterator[tuple[Path, str]]:
        for row in rows:
            for file in files(row):
                yield file.path, hashlib.sha256(file.data).hexdigest()
        if classes is not None:
            yield Path(CLASSES), hashlib.sha256(listed_classes(classes)).hexdigest()

    reused = made_of(request.out, content)
    if not reused:
        new_folder(request.out, write, taken=_taken(request.out))
    return _exported(request, rows, reused=reused)


def _check_class_names(classes: Sequence[str]) -> None:
    for name in classes:
        if name in {"", ".", ".."} or "/" in name or "\0" in name:
            raise UsageError(f"class {name!r} cannot be the name of a folder; export without ‹data›, by numbers")


def _exported(request: ExportRequest, rows: tuple[VersionRow, ...], *, reused: bool) -> Exported:
    samples, aside = sum(row.samples for row in rows), sum(row.quarantined for row in rows)
    return Exported(
        reference=request.version.reference, shards=len(rows), samples=samples, quarantined=aside, reused=reused
    )


def _taken(out: Path) -> str:
    return f"{out}: exists already; name a new folder, or remove it"


def _chosen(request: ExportRequest) -> tuple[VersionRow, ...]:
    version, dataset = request.version, request.dataset
    there = dict.fromkeys(row.split for row in version.rows)
    check_splits(version.reference, there, request.splits)
    rows = tuple(row for row in version.rows if not request.splits or row.split in request.splits)
    if dataset is not None:
        inputs = {(shard.split, shard.name): shard.sha256 for shard in dataset.shards}
        for row in rows:
            digest = inputs.get((row.split, row.shard), "")
            if digest is not None and digest != row.input:
                what = "is missing in it" if digest == "" else "has other content in it"
                raise UsageError(f"{version.reference} was not made from {dataset.name}: {row.shard} {what}")
    return rows


def _check_names(version: Version, rows: tuple[VersionRow, ...]) -> None:
    """Shards are to lie beside the manifest, each under a name of its own."""
    seen: set[str] = set()
    for row in rows:
        _plain(row.split)
        if is_reserved(_plain(row.shard)):
            raise UsageError(
                f"{version.reference}: no shard of a folder can be named {row.shard}; export it ‹as='images'›"
            )
        if row.shard in seen:
            raise UsageError(f"{version.reference}: two shards are named {row.shard}; export its splits one by one")
        seen.add(row.shard)


def _plain(name: str) -> str:
    if name in {"", ".", ".."} or "/" in name or "\0" in name:
        raise DataError(repr(name), "the version's list is damaged: this is no name of a file")
    return name


def _samples(store: Store, row: VersionRow) -> Iterator[Sample]:
    with store.objects.sound(row.output) as file:
        yield from read_shard(file, sha256=row.output)


@dataclass(frozen=True)
class _ImageFile:
    """Where in the tree a sample's image goes."""

    path: Path
    sample: Sample

    @property
    def data(self) -> bytes:
        return self.sample.members[self.sample.image_extension]


def _image_file(folder: Path, sample: Sample, classes: list[str] | None, *, true_labels: bool) -> _ImageFile:
    label = sample.original_label() if true_labels else sample.label()
    if label is not None:
        if classes is not None and label >= len(classes):
            raise DataError(sample.shard, f"label {label} is none of the {len(classes)} classes", key=sample.key)
        folder /= str(label) if classes is None else classes[label]
    return _ImageFile(folder / f"{sample.key}.{sample.image_extension}", sample)


def _write_image(folder: Path, image: _ImageFile) -> None:
    file, sample = folder / image.path, image.sample
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("xb") as stream:
            stream.write(image.data)
    except FileExistsError as error:
        reason = "occurs twice in its split, or another key needs it as a folder"
        raise DataError(sample.shard, reason, key=sample.key) from error
    except OSError as error:
        if error.errno not in {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR}:
            raise
        raise DataError(sample.shard, f"cannot be a file name here ({error.strerror})", key=sample.key) from error
