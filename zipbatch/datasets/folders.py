"""Folders of a source as people have them: with strays, links, and more in them than is wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from zipbatch.datasets.base import split_named
from zipbatch.errors import DataError, UsageError
from zipbatch.images import SOURCE_EXTENSIONS
from zipbatch.strays import Tally, is_stray


@dataclass
class Left:
    """What was not taken of a source.

    Attributes:
        things: what lies there and is no part of what was read; a folder counts once, and ends in ``/``.
        strays: what file managers and archivers leave.
    """

    things: Tally = field(default_factory=Tally)
    strays: Tally = field(default_factory=Tally)

    def look(self, folder: Path, *, root: Path, taken: Callable[[Path], bool]) -> None:
        """Note what lies in ``folder`` and is not ``taken``, under its path from ``root``."""
        for child in sorted(folder.iterdir()):
            name = child.relative_to(root).as_posix()
            if is_stray(child.name):
                self.strays.add(name)
            elif not taken(child):
                self.things.add(f"{name}/" if child.is_dir() else name)


def children(folder: Path) -> list[Path]:
    """What lies in a folder, sorted, without strays."""
    return sorted(child for child in folder.iterdir() if not is_stray(child.name))


def folders_in(folder: Path) -> list[str]:
    """The sorted names of the folders in a folder, links to folders too, strays not."""
    return [child.name for child in children(folder) if child.is_dir()]


def images_in(folder: Path) -> Iterator[Path]:
    """The images right in a folder, in no order, strays not."""
    for child in folder.iterdir():
        if child.suffix[1:].lower() in SOURCE_EXTENSIONS and not is_stray(child.name) and child.is_file():
            yield child


def leads_to_images(folder: Path, *, depth: int = 2) -> bool:
    """Whether there are images in a folder, or in folders of it so many levels down."""
    if any(True for _ in images_in(folder)):
        return True
    return depth > 0 and any(leads_to_images(folder / name, depth=depth - 1) for name in folders_in(folder))


def check_links(paths: Iterable[Path]) -> None:
    """Raises ``DataError`` for the first that is a link to something that is not there."""
    for path in paths:
        if path.is_symlink() and not path.exists():
            raise DataError(path, f"is a link that leads nowhere, to {path.readlink()}")


def one_for_each_split(root: Path, names: Sequence[str]) -> Mapping[str, str]:
    """Split -> the one of the names in ``root`` that is its own.

    Raises:
        UsageError: two are.
    """
    found: dict[str, str] = {}
    for name in names:
        split = split_named(name)
        if split is None:
            continue
        if split in found:
            raise UsageError(f"{root}: {found[split]} and {name} are both the split {split}; move one of them away")
        found[split] = name
    return found


def files_below(folder: Path, root: Path, *, strays: Tally | None = None) -> Iterator[Path]:
    """Every entry below ``folder`` that is no folder, in sorted path order, through links to folders too.

    Links to files may lead anywhere, as in data that is linked into place file by file, and ``folder`` itself may be
    such a link. A link to a folder below it must stay within ``root`` or ``folder``, and no folder is read twice.

    Args:
        folder: where to look.
        root: of the source.
        strays: gains what is passed over.

    Raises:
        DataError: a link to a folder that leads out or to one that is read already.
    """
    real = folder.resolve()
    return _below(folder, real, bounds=(root.resolve(), real), seen={real: folder}, root=root, strays=strays)


def _below(
    folder: Path, real: Path, *, bounds: tuple[Path, Path], seen: dict[Path, Path], root: Path, strays: Tally | None
) -> Iterator[Path]:
    for child in sorted(folder.iterdir()):
        if is_stray(child.name):
            if strays is not None:
                strays.add(child.relative_to(root).as_posix())
        elif not child.is_dir():
            yield child
        else:
            target = child.resolve() if child.is_symlink() else real / child.name
            _check_folder(child, target, bounds, seen)
            seen[target] = child
            yield from _below(child, target, bounds=bounds, seen=seen, root=root, strays=strays)


def _check_folder(folder: Path, target: Path, bounds: tuple[Path, Path], seen: Mapping[Path, Path]) -> None:
    if target in seen:
        raise DataError(folder, f"leads to the same images as {seen[target]}, which would count twice; remove the link")
    if not any(target.is_relative_to(bound) for bound in bounds):
        raise DataError(
            folder,
            f"is a link out of the source, to {target}; link its files one by one, or make the class folder itself "
            "the link",
        )
