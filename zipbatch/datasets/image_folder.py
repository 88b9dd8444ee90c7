"""An image-folder tree: ``<split>/<class>/<image>``, classes numbered in sorted order (torchvision's ImageFolder)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from zipbatch.datasets.base import (
    CLASSES,
    SPLITS,
    Archive,
    SourceImage,
    SourceKind,
    read_classes,
    read_image,
    split_named,
)
from zipbatch.datasets.folders import Left, check_links, children, files_below, folders_in, one_for_each_split
from zipbatch.errors import DataError, UsageError
from zipbatch.keys import check_key


@dataclass(frozen=True)
class ImageFolder:
    """A tree at ``root``. ``folders``: split -> its folder's name; ``listed``: the classes of ``classes.txt``."""

    root: Path
    folders: Mapping[str, str]
    listed: list[str] | None

    @property
    def splits(self) -> tuple[str, ...]:
        """Those that have a folder."""
        return tuple(split for split in SPLITS if split in self.folders)

    @cached_property
    def classes(self) -> list[str]:
        """Those of ``classes.txt``, else the class folders of train, else those of all splits together.

        Raises:
            DataError: a folder that would be a class has no images.
        """
        if self.listed is not None:
            return self.listed
        folders = [self.folders["train"]] if "train" in self.folders else list(self.folders.values())
        names = sorted({name for folder in folders for name in class_names(self.root, folder)})
        for name in names:
            there = [path for folder in folders if (path := self.root / folder / name).is_dir()]
            if not any(True for path in there for _ in files_below(path, self.root)):
                raise DataError(
                    there[0], f"holds no image but would be a class; remove it or list the classes in {CLASSES}"
                )
        return names

    def images(self, split: str) -> Iterator[SourceImage]:
        """As ``read_image_folder``."""
        return read_image_folder(self.root, self.folders[split], self.classes)

    def left(self, splits: Sequence[str]) -> Left:
        """What lies beside the splits and beside their class folders, and class folders without images."""
        return tree_left(self.root, self.folders, splits, known={CLASSES})


def find_image_folder(place: str) -> Archive | None:
    """The tree at ``place``, None when no split there holds class folders.

    Raises:
        UsageError: two folders for one split.
        DataError: its list of classes is damaged, or a split is a link that leads nowhere.
    """
    root = Path(place)
    if not root.is_dir():
        return None
    folders = one_for_each_split(root, [name for name in folders_in(root) if is_image_folder(root, name)])
    if not folders:
        return None
    check_links([child for child in children(root) if split_named(child.name)])
    return ImageFolder(root, folders, read_classes(root / CLASSES) if (root / CLASSES).exists() else None)


def tree_left(root: Path, folders: Mapping[str, str], splits: Sequence[str], *, known: Collection[str]) -> Left:
    """What of a tree was not taken when ``splits`` were read; ``known`` are files that lie beside them."""
    left = Left()
    left.look(root, root=root, taken=lambda path: path.name in known or path.name in folders.values())
    for split in splits:
        left.look(root / folders[split], root=root, taken=lambda path: _holds_images(path, root, left))
    return left


def _holds_images(folder: Path, root: Path, left: Left) -> bool:
    """Whether a class folder does; notes its strays."""
    return folder.is_dir() and sum(1 for _ in files_below(folder, root, strays=left.strays)) > 0


FOLDER = SourceKind(
    name="folder",
    form="a tree <split>/<class>/<image> of .png, .jpg, .jpeg, .webp or .ppm; train's classes count, in sorted order. "
    "Or <class>/<image>, taken as the split test, or as the one that is named",
    source="the layout of torchvision's ImageFolder",
    find=find_image_folder,
)


def is_image_folder(root: Path, folder: str) -> bool:
    """Whether ``root/folder`` holds class folders."""
    return (root / folder).is_dir() and bool(class_names(root, folder))


def class_names(root: Path, folder: str) -> list[str]:
    """Sorted names of the class folders of a split."""
    return folders_in(root / folder)


def read_image_folder(root: Path, folder: str, classes: list[str]) -> Iterator[SourceImage]:
    """The images of the split in ``root/folder``, class by class, in sorted path order.

    The key is ``<class>/<file stem>`` with the stem's dots turned to ``_`` (a webdataset key ends at the first dot).
    What is no image has a fault.

    Raises:
        UsageError: a class folder that ``classes`` lacks.
        DataError: two files of one class would get one key, an unfit name, or a link that leads nowhere or astray.
    """
    _check_classes(root / folder, classes)
    for label, name in enumerate(classes):
        if not (root / folder / name).is_dir():
            continue  # a class without images in this split
        seen: dict[str, Path] = {}
        for file in files_below(root / folder / name, root):
            stem = file.relative_to(root / folder / name).with_suffix("").as_posix()
            key = f"{name}/{stem}".replace(".", "_")
            try:
                check_key(key)
            except ValueError as error:
                raise DataError(repr(str(file)), f"unfit file name: {error}") from error
            image = read_image(file, key=key, origin=file.relative_to(root).as_posix(), label=label)
            if not image.fault:
                if key in seen:
                    raise DataError(file, f"gets the same key as {seen[key].name}; rename one of them", key=key)
                seen[key] = file
            yield image


def _check_classes(folder: Path, classes: list[str]) -> None:
    if unknown := [name for name in folders_in(folder) if name not in set(classes)]:
        raise UsageError(
            f"{folder}: class folder {unknown[0]!r} is not among the classes of the data ({', '.join(classes[:5])}"
            f"{', …' if len(classes) > 5 else ''}), which are those of train or {CLASSES}; sort its images into those, "
            "or name the other splits with ‹splits›"
        )
    check_links(children(folder))
