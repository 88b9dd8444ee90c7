"""A folder of images as people have them: at any depth, without splits and without labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from zipbatch.datasets.base import UNLABELLED, Archive, SourceImage, SourceKind, read_image
from zipbatch.datasets.folders import Left, files_below
from zipbatch.errors import DataError
from zipbatch.images import SOURCE_EXTENSIONS
from zipbatch.keys import check_key

_SPLIT = "train"


@dataclass(frozen=True)
class PlainFolder:
    """Every image below ``root``, all in one split."""

    root: Path

    @property
    def splits(self) -> tuple[str, ...]:
        """One: models may be trained on it."""
        return (_SPLIT,)

    @property
    def classes(self) -> list[str] | None:
        """None: folders may stand for anything."""
        return None

    def images(self, split: str) -> Iterator[SourceImage]:  # noqa: ARG002
        """The images in sorted path order; the key is the path from ``root`` without suffix, its dots turned to ``_``.

        Raises:
            DataError: two files would get one key, an unfit name, or a link to a folder that leads astray.
        """
        seen: dict[str, Path] = {}
        for file in filter(_is_image, files_below(self.root, self.root)):
            path = file.relative_to(self.root)
            key = path.with_suffix("").as_posix().replace(".", "_")
            try:
                check_key(key)
            except ValueError as error:
                raise DataError(repr(str(file)), f"unfit file name: {error}") from error
            if key in seen:
                raise DataError(file, f"gets the same key as {seen[key].name}; rename one of them", key=key)
            seen[key] = file
            yield read_image(file, key=key, origin=path.as_posix(), label=UNLABELLED)

    def left(self, splits: Sequence[str]) -> Left:  # noqa: ARG002
        """Files that are no images."""
        left = Left()
        for file in files_below(self.root, self.root, strays=left.strays):
            if not _is_image(file):
                left.things.add(file.relative_to(self.root).as_posix())
        return left


def _is_image(file: Path) -> bool:
    return file.suffix[1:].lower() in SOURCE_EXTENSIONS


def find_plain_folder(place: str) -> Archive | None:
    """The folder at ``place``, None when there is no image below it.

    Raises:
        DataError: a link to a folder that leads astray.
    """
    root = Path(place)
    if not root.is_dir() or not any(map(_is_image, files_below(root, root))):
        return None
    return PlainFolder(root)


PLAIN_FOLDER = SourceKind(
    name="images",
    form="a folder of .png, .jpg, .jpeg, .webp or .ppm at any depth, without labels: for priors, 'calibrate' and "
    "'zipbatch tune --fit'",
    source="no layout at all",
    find=find_plain_folder,
)
