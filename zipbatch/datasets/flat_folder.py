"""A flat tree: ``<class>/<image>`` without a split above it, taken as one split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from zipbatch.datasets.base import CLASSES, SPLITS, read_classes, split_named
from zipbatch.datasets.folders import Left, children, files_below, folders_in, images_in
from zipbatch.datasets.image_folder import ImageFolder
from zipbatch.errors import UsageError
from zipbatch.kinds import a_few

_HERE = "."


@dataclass(frozen=True)
class FlatFolder(ImageFolder):
    """Class folders right below ``root``; all that is in them is the one split of ``folders``."""

    def taken_as(self, split: str) -> FlatFolder:
        """The same images as another split."""
        return replace(self, folders={split: _HERE})

    def left(self, splits: Sequence[str]) -> Left:  # noqa: ARG002
        """What lies beside the class folders, and class folders without images."""
        left = Left()
        left.look(self.root, root=self.root, taken=lambda path: path.name == CLASSES or self._has_images(path, left))
        return left

    def _has_images(self, folder: Path, left: Left) -> bool:
        return folder.is_dir() and sum(1 for _ in files_below(folder, self.root, strays=left.strays)) > 0


def find_flat_folder(place: str, *, split: str) -> FlatFolder | None:
    """The flat tree at ``place``; None where no folder there holds images, or a single one, which is no choice.

    Args:
        place: where to look.
        split: what it is taken as.

    Raises:
        UsageError: the folders may be classes or something else, and only the user knows.
        DataError: its list of classes is damaged.
    """
    root = Path(place)
    if not root.is_dir():
        return None
    names = folders_in(root)
    holding = [name for name in names if any(True for _ in images_in(root / name))]
    if len(holding) < 2:
        return None
    listed = read_classes(root / CLASSES) if (root / CLASSES).exists() else None
    _check_plain(root, names, holding, listed)
    return FlatFolder(root, {split: _HERE}, listed)


def one_split(flat: FlatFolder, splits: Sequence[str]) -> FlatFolder:
    """A flat tree as the one of the splits that a user named; as it is where none was named.

    Raises:
        UsageError: several, or none that a source has.
    """
    if not splits:
        return flat
    if len(splits) > 1 or splits[0] not in SPLITS:
        raise UsageError(
            f"{flat.root}: no split {', '.join(map(repr, splits))}; its class folders have no split above them and are "
            f"taken as one of {', '.join(SPLITS)}: name one with ‹splits›"
        )
    return flat.taken_as(splits[0])


def _check_plain(root: Path, names: Sequence[str], holding: Sequence[str], listed: Sequence[str] | None) -> None:
    """Raises ``UsageError`` where what lies at ``root`` may be no classes."""
    if splits := [name for name in names if split_named(name)]:
        raise UsageError(
            f"{root}: {a_few(splits)} {'is' if len(splits) == 1 else 'are'} named as a split but would be a class: "
            f"split folders hold class folders (<split>/<class>/), and beside classes none may have such a name"
        )
    if listed is not None:  # which says what classes are
        return
    if nested := [
        name for name in names if name not in holding and any(child.is_dir() for child in children(root / name))
    ]:
        raise UsageError(
            f"{root}: {a_few(holding)} hold images, {a_few(nested)} only folders: which are the classes? List them in "
            f"{CLASSES}, one a line, or move the others away"
        )
    if loose := sorted(child.name for child in images_in(root)):
        raise UsageError(
            f"{root}: images lie beside the class folders ({a_few(loose)}); sort them into classes, move them away, or "
            f"list the classes in {CLASSES}, one a line"
        )
