"""Shards as a source: a folder, file or brace pattern of shards named ``<split>-…``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from zipbatch.errors import UsageError
from zipbatch.shards.opening import SUFFIXES, expand_paths
from zipbatch.shards.reader import read_shard
from zipbatch.sources.base import CLASSES, SPLITS, UNLABELLED, Archive, SourceImage, SourceKind, read_classes


@dataclass(frozen=True)
class ShardSource:
    """The shards of each split in order; ``classes`` are those of ``classes.txt`` beside them."""

    shards: Mapping[str, tuple[Path, ...]]
    classes: list[str] | None

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have shards."""
        return tuple(self.shards)

    def images(self, split: str) -> Iterator[SourceImage]:
        """The images of a split; their label is the true one where a shard is poisoned, UNLABELLED where there is none.

        Raises:
            DataError: an unreadable shard.
        """
        for shard in self.shards[split]:
            for sample in read_shard(shard):
                label, extension = sample.original_label(), sample.image_extension
                number = UNLABELLED if label is None else label
                yield SourceImage(sample.key, shard.name, sample.members[extension], extension, number)


def find_shards(place: str) -> Archive | None:
    """Shards at ``place``, None when there are none.

    Raises:
        UsageError: a shard of a pattern is missing, or its name begins with no split.
    """
    path = Path(place)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if _split_of(file) and file.name.endswith(SUFFIXES))
    elif path.is_file():
        files = [path] if _split_of(path) and path.name.endswith(SUFFIXES) else []
    else:
        files = _expanded(place)
    if not files:
        return None
    shards = {split: tuple(file for file in files if _split_of(file) == split) for split in SPLITS}
    names = files[0].parent / CLASSES
    classes = read_classes(names) if names.exists() else None
    return ShardSource({split: those for split, those in shards.items() if those}, classes)


def _split_of(file: Path) -> str | None:
    split, dash, _ = file.name.partition("-")
    return split if dash and split in SPLITS else None


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
