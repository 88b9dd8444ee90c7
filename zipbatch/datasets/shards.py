"""Shards as a source: a folder, file or brace pattern of shards named ``<split>-…``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from zipbatch.datasets.base import (
    CLASSES,
    SPLITS,
    UNLABELLED,
    Archive,
    SourceImage,
    SourceKind,
    read_classes,
    split_named,
)
from zipbatch.datasets.folders import Left, children, one_for_each_split
from zipbatch.datasets.opening import SUFFIXES, expand_paths, listed_digests
from zipbatch.datasets.staged import MANIFEST, SHARD_LIST, is_reserved
from zipbatch.errors import DataError, UsageError
from zipbatch.shards.digest import listed_digest
from zipbatch.shards.reader import read_shard
from zipbatch.shards.sample import Sample
from zipbatch.storage import StoragePath


@dataclass(frozen=True, kw_only=True)
class ShardSource:
    """The shards of each split in order; ``classes`` are those of ``classes.txt`` beside them.

    ``folder`` holds them, where all in it were asked for; ``passed_over`` is what those that were read hold besides;
    ``listed`` are the digests that the manifest of a staged folder says of them.
    """

    shards: Mapping[str, tuple[Path, ...]]
    classes: list[str] | None
    folder: Path | None = None
    passed_over: dict[Path, Left] = field(default_factory=dict)
    listed: Mapping[StoragePath, str | None] = field(default_factory=dict)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have shards."""
        return tuple(self.shards)

    def images(self, split: str) -> Iterator[SourceImage]:
        """The images of a split; their label is the true one where a shard is poisoned, UNLABELLED where there is none.

        A sample without an image, or with a damaged label, has a fault.

        Raises:
            DataError: an unreadable shard, or one whose bytes are not those that are listed.
        """
        classes = tuple(self.classes or ())
        for shard in self.shards[split]:
            left = self.passed_over[shard] = Left()
            sha256 = self.listed.get(shard.absolute())
            if sha256 is not None:
                listed_digest(shard, sha256)
            for sample in read_shard(shard, sha256=sha256, imageless=True, strays=left.strays):
                yield (image := _image(sample, shard, classes))
                for extension in () if image.fault else sample.other_images:
                    left.things.add(f"{sample.key}.{extension}")

    def left(self, splits: Sequence[str]) -> Left:
        """What lies beside the shards, and what was passed over in them."""
        left = Left()
        if self.folder is not None:
            known = {shard.name for shards in self.shards.values() for shard in shards}
            left.look(self.folder, root=self.folder, taken=lambda path: path.name in known or is_reserved(path.name))
        for shard in (shard for split in splits for shard in self.shards[split] if shard in self.passed_over):
            left.things.update(self.passed_over[shard].things)
            left.strays.update(self.passed_over[shard].strays)
        return left


def _image(sample: Sample, shard: Path, classes: Sequence[str]) -> SourceImage:
    try:
        label, extension = sample.original_label(classes), sample.image_extension
    except DataError as error:
        return SourceImage(
            key=sample.key, origin=shard.name, data=b"", extension="", label=UNLABELLED, fault=error.reason
        )
    number = UNLABELLED if label is None else label
    stamped = sample.stamped()
    return SourceImage(
        key=sample.key,
        origin=shard.name,
        data=sample.members[extension],
        extension=extension,
        label=number,
        stamped=stamped,
    )


def find_shards(place: str) -> Archive | None:
    """Shards at ``place``, None when there are none.

    Raises:
        UsageError: a shard of a pattern is missing, its name begins with no split, or with two names for one split.
    """
    path = Path(place)
    if path.is_dir():
        files = [file for file in children(path) if _split_of(file) and file.name.endswith(SUFFIXES)]
    elif path.is_file():
        files = [path] if _split_of(path) and path.name.endswith(SUFFIXES) else []
    else:
        files = _expanded(place)
    if not files:
        return None
    one_for_each_split(files[0].parent, sorted({_prefix(file) for file in files}))
    shards = {split: tuple(file for file in files if _split_of(file) == split) for split in SPLITS}
    names = files[0].parent / CLASSES
    classes = read_classes(names) if names.exists() else None
    taken = {split: those for split, those in shards.items() if those}
    return ShardSource(
        shards=taken,
        classes=classes,
        folder=path if path.is_dir() else None,
        listed=_listed(files[0].absolute().parent),
    )


def _listed(folder: Path) -> Mapping[StoragePath, str | None]:
    """Shard -> digest, as a staged folder's manifest says."""
    if not ((folder / MANIFEST).is_file() and (folder / SHARD_LIST).is_file()):
        return {}
    return listed_digests(folder)


def _prefix(file: Path) -> str:
    return file.name.partition("-")[0]


def _split_of(file: Path) -> str | None:
    return split_named(_prefix(file)) if "-" in file.name else None


def _expanded(pattern: str) -> list[Path]:
    files = expand_paths(pattern)
    if files == [Path(pattern).absolute()]:
        return []  # no pattern, and nothing is there
    if missing := [file for file in files if not file.is_file()]:
        raise UsageError(f"{pattern}: no such file {missing[0]}")
    if odd := [file for file in files if _split_of(file) is None or not file.name.endswith(SUFFIXES)]:
        raise UsageError(f"{pattern}: {odd[0].name} is not named <split>-….tar for a split of {', '.join(SPLITS)}")
    return files


SHARDS = SourceKind(
    name="wds",
    form="a folder of shards <split>-….tar or a pattern such as 'in/train-{000..009}.tar'; classes.txt is optional",
    source="webdataset, https://github.com/webdataset/webdataset",
    find=find_shards,
)
