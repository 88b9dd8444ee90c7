"""An image-folder tree: ``<split>/<class>/<image>``, classes numbered in sorted order (torchvision's ImageFolder)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from zipbatch.errors import DataError, UsageError
from zipbatch.images import SOURCE_EXTENSIONS
from zipbatch.keys import check_key
from zipbatch.sources.base import CLASSES, SPLITS, Archive, SourceImage, SourceKind, read_classes, read_image


@dataclass(frozen=True)
class ImageFolder:
    """A tree with the splits ``splits``; ``classes`` are those of all splits together, or of ``classes.txt``."""

    root: Path
    splits: tuple[str, ...]
    classes: list[str]

    def images(self, split: str) -> Iterator[SourceImage]:
        """As ``read_image_folder``."""
        return read_image_folder(self.root, split, self.classes)


def find_image_folder(place: str) -> Archive | None:
    """The tree at ``place``, None when no split there holds class folders."""
    root = Path(place)
    splits = tuple(split for split in SPLITS if is_image_folder(root, split))
    if not splits:
        return None
    if (root / CLASSES).exists():
        return ImageFolder(root, splits, read_classes(root / CLASSES))
    return ImageFolder(root, splits, sorted({name for split in splits for name in class_names(root, split)}))


FOLDER = SourceKind(
    name="folder",
    form="a tree <split>/<class>/<image> of .png, .jpg, .jpeg, .webp or .ppm; classes are numbered in sorted order",
    source="the layout of torchvision's ImageFolder",
    find=find_image_folder,
)


def is_image_folder(root: Path, split: str) -> bool:
    """Whether ``root/split`` holds class folders."""
    folder = root / split
    return folder.is_dir() and any(child.is_dir() for child in folder.iterdir())


def class_names(root: Path, split: str) -> list[str]:
    """Sorted names of the class folders of a split."""
    return sorted(child.name for child in (root / split).iterdir() if child.is_dir())


def read_image_folder(root: Path, split: str, classes: list[str]) -> Iterator[SourceImage]:
    """The images of a split, class by class, in sorted path order.

    The key is ``<class>/<file stem>`` with the stem's dots turned to ``_`` (a webdataset key ends at the first dot).

    Raises:
        UsageError: a class folder that ``classes`` lacks.
        DataError: two files of one class would get one key, or a file is not a supported image.
    """
    unknown = set(class_names(root, split)) - set(classes)
    if unknown:
        raise UsageError(f"{root / split}: class folder {sorted(unknown)[0]!r} is not among the classes of the data")
    for label, name in enumerate(classes):
        if not (root / split / name).is_dir():
            continue  # a class without images in this split
        seen: dict[str, Path] = {}
        for file in sorted(path for path in (root / split / name).rglob("*") if not path.is_dir()):
            extension = file.suffix[1:].lower()
            if extension not in SOURCE_EXTENSIONS:
                raise DataError(file, f"not a supported image ({', '.join(SOURCE_EXTENSIONS)})")
            stem = file.relative_to(root / split / name).with_suffix("").as_posix()
            key = f"{name}/{stem}".replace(".", "_")
            try:
                check_key(key)
            except ValueError as error:
                raise DataError(repr(str(file)), f"unfit file name: {error}") from error
            if key in seen:
                raise DataError(file, f"gets the same key as {seen[key].name}; rename one of them", key=key)
            seen[key] = file
            origin = file.relative_to(root).as_posix()
            yield SourceImage(key, origin, read_image(file), extension, label)
