"""A labelled source of images, whatever its kind: an official archive, shards or an image-folder tree."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from zipbatch import atomic
from zipbatch.datasets import PLAIN_FOLDER, SOURCES, SPLITS, UNLABELLED, Archive, SourceImage
from zipbatch.datasets.base import CLASSES
from zipbatch.datasets.flat_folder import FlatFolder, find_flat_folder, one_split
from zipbatch.datasets.folders import Left
from zipbatch.datasets.image_folder import FOLDER
from zipbatch.datasets.opening import expand_paths
from zipbatch.datasets.shards import SHARDS
from zipbatch.datasets.splits import check_splits
from zipbatch.errors import DataError, UsageError
from zipbatch.images import Resize
from zipbatch.kinds import head_of, instead
from zipbatch.storage import CHANGED

log = logging.getLogger(__name__)
KINDS = (*SOURCES, SHARDS, PLAIN_FOLDER)
"""Every kind of source; the first that recognises a bare path reads it, the last only where no labels are needed."""


@dataclass(frozen=True)
class Survey:
    """One split, up to the limit: ``sha256`` over keys, labels and image bytes in order."""

    sha256: str
    images: int
    highest_label: int


@dataclass(frozen=True, kw_only=True)
class Source:
    """A source and the splits wanted of it.

    Attributes:
        place: where it is, as the user wrote it.
        archive: what is there.
        available: the splits that it has, in the order of ``SPLITS``.
        splits: those of them that are wanted.
        limit: how many images of each split, None for all.
        labelled: whether an image without a label is an error.
        skip: (origin, key) of images that are passed over as if they were not there.
        size: the side of the square that images are brought to; None leaves them as they are.
        resize: how they are brought to it.
    """

    place: str
    archive: Archive
    available: tuple[str, ...]
    splits: tuple[str, ...]
    limit: int | None
    labelled: bool = True
    skip: frozenset[tuple[str, str]] = frozenset()
    size: int | None = None
    resize: Resize = "stretch"

    def images(self, split: str, *, sha256: str | None = None) -> Iterator[SourceImage]:
        """The images of a split in the source's order, up to the limit.

        Args:
            split: its name.
            sha256: what a survey said of it, where there was one: the images are held against it in the end.

        Raises:
            DataError: an unreadable shard, a sample without a label, or the images are not those that were surveyed.
        """
        wanted = (image for image in self.archive.images(split) if (image.origin, image.key) not in self.skip)
        digest = hashlib.sha256()
        for image in islice(wanted, self.limit):
            if self.labelled and image.label == UNLABELLED and not image.fault:
                raise DataError(image.origin, "has no label (.cls or .json); a source needs one", key=image.key)
            if sha256 is not None:
                digest.update(_content(image))
            yield image if self.size is None else replace(image, size=self.size, resize=self.resize)
        if sha256 not in {None, digest.hexdigest()}:
            raise DataError(self.place, f"its split {split} {CHANGED}")

    def survey(self, split: str) -> Survey:
        """Read a split once without decoding it.

        Raises:
            UsageError: it is empty.
            UnreadableImageError: an image has a fault.
            DataError: as ``images``, or a key occurs twice.
        """
        digest, keys, highest = hashlib.sha256(), set[str](), 0
        for image in self.images(split):
            image.check()
            if image.key in keys:
                raise DataError(image.origin, f"key occurs twice in split {split}", key=image.key)
            keys.add(image.key)
            highest = max(highest, image.label)
            digest.update(_content(image))
        if not keys:
            raise UsageError(f"{self.place}: split {split} is empty")
        return Survey(digest.hexdigest(), len(keys), highest)

    def left(self) -> Left:
        """What lies there and was not taken, said once in the log; after the splits have been read."""
        left = self.archive.left(self.splits)
        if left.things.count:
            log.warning("%s: not taken: %s", self.place, left.things)
        if left.strays.count:
            log.warning("%s: passed over what file managers leave: %s", self.place, left.strays)
        return left

    def image_size(self) -> int:
        """Side of all images where they are brought to one, else that of the first, pixels.

        Raises:
            UsageError: it is not square, or there is none.
            DataError: it cannot be decoded.
        """
        if self.size is not None:
            return self.size
        image = next(self.images(self.splits[0]), None)
        if image is None:
            raise UsageError(f"{self.place}: split {self.splits[0]} is empty")
        height, width = image.pixels().shape[:2]
        if height != width:
            raise UsageError(
                f"{image.origin}: key {image.key!r} is {width}x{height}; name ‹image_size› to make images square"
            )
        return int(height)

    def class_names(self, surveys: Iterable[Survey]) -> list[str]:
        """The classes' names. Where nothing names them, their indices up to the highest in the whole source: how many
        classes there are must not depend on the limit.

        Raises:
            UsageError: a label has no name.
        """
        classes = self.archive.classes
        if classes is None:
            every = replace(self, limit=None)
            highest = max(image.label for split in self.splits for image in every.images(split))
            return [str(index) for index in range(highest + 1)]
        highest = max(survey.highest_label for survey in surveys)
        if highest >= len(classes):
            raise UsageError(
                f"{self.place}: labels go up to {highest}, but only {len(classes)} classes are named ({CLASSES})"
            )
        return classes


def _content(image: SourceImage) -> bytes:
    """What an image adds to the digest of its split."""
    return atomic.canonical_json([image.key, image.label, hashlib.sha256(image.data).hexdigest()]) + b"\n"


def open_source(
    source: str | Path, splits: Sequence[str], limit: int | None = None, *, labelled: bool = True
) -> Source:
    """Recognise a source and the splits it has.

    Args:
        source: as the user writes it, ``KIND:PLACE`` or a bare place; a ``Path`` is always a bare place.
        splits: those wanted, empty for all.
        limit: how many images of each split, None for all.
        labelled: whether an image without a label is an error.

    Raises:
        UsageError: nothing there, nothing usable in it, or a split that it lacks.
        DataError: its list of classes is damaged.
    """
    archive = _recognise(source, labelled=labelled)
    if isinstance(archive, FlatFolder):
        archive = one_split(archive, splits)
        log.log(
            logging.INFO if splits else logging.WARNING,
            *("%s: class folders without a split above them, taken as split %s%s", source, archive.splits[0]),
            "" if splits or not labelled else "; ‹splits› takes them as another",
        )
    available = archive.splits
    check_splits(source, available, splits)
    chosen = tuple(split for split in available if not splits or split in splits)
    return Source(
        place=str(source), archive=archive, available=available, splits=chosen, limit=limit, labelled=labelled
    )


def source_paths(source: str) -> tuple[str, list[Path]]:
    """The kind that a source was asked for as ("" where it is to be recognised), and what it is read from.

    For telling whether it has changed. Shards given one by one have their ``classes.txt`` beside them.

    Raises:
        UsageError: braces that do not fit together.
    """
    name, colon, rest = source.partition(":")
    kind = name if colon and name in {kind.name for kind in KINDS} else ""
    paths = expand_paths(rest if kind else source)
    names = paths[0].parent / CLASSES
    return kind, [*paths, *([names] if paths[0].is_file() and names.is_file() else [])]


def _odd_file(place: str) -> str | None:
    """What a file is that is no archive; None where there is no file, or it is a tar."""
    path = Path(place)
    return instead(head_of(path), "an archive of images", fit={"tar", "gzip"}) if path.is_file() else None


def _recognise(source: str | Path, *, labelled: bool) -> Archive:
    place, kinds = str(source), {kind.name: kind for kind in KINDS}
    name, colon, rest = place.partition(":")
    flat_as = "test" if labelled else "train"  # as of a plain folder, on which models may be trained
    if isinstance(source, str) and colon and name in kinds:
        archive = kinds[name].find(rest)
        if archive is None and kinds[name] is FOLDER:
            archive = find_flat_folder(rest, split=flat_as)
        if archive is None:
            raise UsageError(f"{place}: {_odd_file(rest) or 'not there'}; {name}: takes {kinds[name].form}")
        return archive
    bare = [kind for kind in KINDS if kind is not PLAIN_FOLDER]
    found = {kind.name: archive for kind in bare if (archive := kind.find(place)) is not None}
    if {"wds", "folder"} <= found.keys():
        raise UsageError(f"{place}: holds shards and an image-folder tree; say wds:{place} or folder:{place}")
    if found:
        return next(iter(found.values()))
    if not labelled and (images := PLAIN_FOLDER.find(place)) is not None:
        return images
    if (flat := find_flat_folder(place, split=flat_as)) is not None:
        return flat
    if told := _odd_file(place):
        raise UsageError(f"{place}: {told}; 'zipbatch ls datasets' lists what SOURCE may be")
    if not Path(place).exists():
        raise UsageError(f"{place}: no such folder or file; 'zipbatch ls datasets' lists what SOURCE may be")
    raise UsageError(
        f"{place}: holds neither shards named <split>-*.tar nor folders <split>/<class>/ for a split of "
        f"{', '.join(SPLITS)}, nor two or more folders <class>/ of images, nor an archive that 'zipbatch ls "
        "datasets' lists"
    )
