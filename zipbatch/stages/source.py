"""A labelled source of images, whatever its form: shards named ``<split>-*.tar`` or an image-folder tree."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from zipbatch import atomic
from zipbatch.errors import DataError, UsageError
from zipbatch.shards import read_shard
from zipbatch.shards.dataset import CLASSES, SUFFIXES, read_classes
from zipbatch.sources import UNLABELLED, SourceImage, class_names, is_image_folder, read_image_folder

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Survey:
    """One split, up to the limit: ``sha256`` over keys, labels and image bytes in order."""

    sha256: str
    images: int
    highest_label: int


@dataclass(frozen=True)
class Source:
    """A source and the splits wanted of it.

    Attributes:
        root: its folder.
        available: the splits that it has, in the order of ``SPLITS``.
        splits: those of them that are wanted.
        limit: how many images of each split, None for all.
        classes: their names, None where neither folders nor ``classes.txt`` give them.
        labelled: whether an image without a label is an error.
    """

    root: Path
    available: tuple[str, ...]
    splits: tuple[str, ...]
    limit: int | None
    classes: list[str] | None
    labelled: bool = True

    def images(self, split: str) -> Iterator[SourceImage]:
        """The images of a split in the source's order, up to the limit.

        Raises:
            DataError: an unreadable shard, a sample without a label, a file that is no image.
        """
        shards = _shards_of(self.root, split)
        found = (
            _from_shards(shards, labelled=self.labelled)
            if shards
            else read_image_folder(self.root, split, self.classes or [])
        )
        return islice(found, self.limit)

    def survey(self, split: str) -> Survey:
        """Read a split once without decoding it.

        Raises:
            UsageError: it is empty.
            DataError: as ``images``, or a key occurs twice.
        """
        digest, keys, highest = hashlib.sha256(), set[str](), 0
        for image in self.images(split):
            if image.key in keys:
                raise DataError(image.origin, f"key occurs twice in split {split}", key=image.key)
            keys.add(image.key)
            highest = max(highest, image.label)
            content = hashlib.sha256(image.data).hexdigest()
            digest.update(atomic.canonical_json([image.key, image.label, content]) + b"\n")
        if not keys:
            raise UsageError(f"{self.root}: split {split} is empty")
        return Survey(digest.hexdigest(), len(keys), highest)

    def image_size(self) -> int:
        """Side of the first image, pixels.

        Raises:
            UsageError: it is not square, or there is none.
            DataError: it cannot be decoded.
        """
        image = next(self.images(self.splits[0]), None)
        if image is None:
            raise UsageError(f"{self.root}: split {self.splits[0]} is empty")
        height, width = image.pixels().shape[:2]
        if height != width:
            raise UsageError(
                f"{image.origin}: key {image.key!r} is {width}x{height}; name --image-size to make images square"
            )
        return int(height)

    def class_names(self, surveys: Iterable[Survey]) -> list[str]:
        """The classes' names. Where nothing names them, their indices up to the highest in the whole source: how many
        classes there are must not depend on the limit.

        Raises:
            UsageError: a label has no name.
        """
        if self.classes is None:
            every = replace(self, limit=None)
            highest = max(image.label for split in self.splits for image in every.images(split))
            return [str(index) for index in range(highest + 1)]
        highest = max(survey.highest_label for survey in surveys)
        if highest >= len(self.classes):
            raise UsageError(
                f"{self.root}: labels go up to {highest}, but only {len(self.classes)} classes are named ({CLASSES})"
            )
        return self.classes


def open_source(root: Path, splits: Sequence[str], limit: int | None = None, *, labelled: bool = True) -> Source:
    """Recognise a source and the splits it has.

    Raises:
        UsageError: no such folder, nothing usable in it, or a split that it lacks.
    """
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder; SOURCE is a folder of shards or an image-folder tree")
    available = tuple(split for split in SPLITS if _shards_of(root, split) or is_image_folder(root, split))
    if not available:
        raise UsageError(
            f"{root}: holds neither shards named <split>-*.tar nor folders <split>/<class>/ "
            f"for a split of {', '.join(SPLITS)}"
        )
    missing = [split for split in splits if split not in available]
    if missing:
        raise UsageError(f"{root}: no split {missing[0]!r}; it has {', '.join(available)}")
    chosen = tuple(split for split in available if not splits or split in splits)
    return Source(root, available, chosen, limit, _named_classes(root), labelled)


def _named_classes(root: Path) -> list[str] | None:
    """From ``classes.txt``, else from the class folders of all splits: numbers must not depend on the split chosen."""
    if (root / CLASSES).is_file():
        return read_classes(root / CLASSES)
    folders = [split for split in SPLITS if not _shards_of(root, split) and is_image_folder(root, split)]
    return sorted({name for split in folders for name in class_names(root, split)}) if folders else None


def _shards_of(root: Path, split: str) -> list[Path]:
    return sorted(file for file in root.glob(f"{split}-*") if file.name.endswith(SUFFIXES))


def _from_shards(shards: Sequence[Path], *, labelled: bool) -> Iterator[SourceImage]:
    for shard in shards:
        for sample in read_shard(shard):
            label = sample.original_label()
            if label is None and labelled:
                raise DataError(shard, "has no label (.cls or .json); a source needs one", key=sample.key)
            extension = sample.image_extension
            number = UNLABELLED if label is None else label
            yield SourceImage(sample.key, shard.name, sample.members[extension], extension, number)
