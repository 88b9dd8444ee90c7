"""GTSRB as its official zips unpack (Stallkamp et al. 2012, https://benchmark.ini.rub.de): .ppm files and .csv tables.

Training: ``GTSRB/Final_Training/Images/<class>/`` with ``GT-<class>.csv``, or as torchvision unpacks it,
``GTSRB/Training/<class>/``; test: ``GTSRB/Final_Test/Images/`` with ``GT-final_test.csv``, which comes in a zip of its
own. Images are taken whole; the tables' regions of interest are not cut out. Their sizes differ, so staging needs an
image size.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from zipbatch.datasets.base import Archive, SourceImage, SourceKind, read_image
from zipbatch.datasets.folders import Left, children, folders_in, one_for_each_split
from zipbatch.errors import DataError

CLASS_NAMES = [f"{number:05d}" for number in range(43)]
TEST_TABLE = "GT-final_test.csv"
_MAX_TABLE_BYTES = 16 * 1024**2
_ROW = re.compile(r"[A-Za-z0-9_]+\.ppm;[0-9]{1,2}")


@dataclass(frozen=True, kw_only=True)
class Gtsrb:
    """The folders found below ``root``: ``train`` and ``test`` hold the images, ``table`` says what the latter show."""

    root: Path
    train: Path | None
    test: Path | None
    table: Path | None

    @property
    def splits(self) -> tuple[str, ...]:
        """Those whose images are there."""
        return tuple(name for name, folder in (("train", self.train), ("test", self.test)) if folder is not None)

    @property
    def classes(self) -> list[str]:
        """The 43 class folders' names in numeric order."""
        return list(CLASS_NAMES)

    def images(self, split: str) -> Iterator[SourceImage]:
        """The images of a split in the order of its tables; keys are paths without ``.ppm``: ``00007/00003_00012``.

        Raises:
            DataError: a class folder, table or image is missing, or an image or folder that no table lists.
        """
        if split == "test":
            assert self.test is not None  # it is among the splits
            if self.table is None:
                raise DataError(self.test / TEST_TABLE, "is missing; it comes in GTSRB_Final_Test_GT.zip")
            yield from _listed(self.root, self.test, self.table)
            return
        assert self.train is not None
        folders = folders_in(self.train)
        if folders != CLASS_NAMES:
            odd = min(set(folders) ^ set(CLASS_NAMES))
            state = "is not a class of GTSRB" if odd in folders else "is missing; unpack the official zip again"
            raise DataError(self.train / odd, state)
        for label, name in enumerate(CLASS_NAMES):
            yield from _listed(self.root, self.train / name, self.train / name / f"GT-{name}.csv", label)

    def left(self, splits: Sequence[str]) -> Left:
        """What lies beside the images and tables."""
        left, folders = Left(), list[Path]()
        held = [folder for top in (self.train, self.test) if top is not None for folder in (top, top.parent)]
        for folder in sorted({self.root, *(top for top in held if top.parent == self.root)} - {self.train, self.test}):
            left.look(folder, root=self.root, taken=lambda path: path in held or _is_official(path))
        if self.train is not None and "train" in splits:
            left.look(self.train, root=self.root, taken=lambda path: path.name in CLASS_NAMES)
            folders += [self.train / name for name in CLASS_NAMES]
        if self.test is not None and "test" in splits:
            folders.append(self.test)
        for folder in folders:
            left.look(folder, root=self.root, taken=lambda path: _is_image(path) or _is_official(path))
        return left


def _is_image(path: Path) -> bool:
    return path.suffix.lower() == ".ppm"


def _is_official(path: Path) -> bool:
    """Tables and read-me files of the official zips."""
    return path.name.startswith(("GT-", "Readme")) and path.suffix in {".csv", ".txt"}


def _listed(root: Path, folder: Path, table: Path, only: int | None = None) -> Iterator[SourceImage]:
    """The images of one folder, which must be exactly those of its table; ``only`` is the class of all of them."""
    there = {file.name for file in children(folder) if _is_image(file)}
    listed: set[str] = set()
    prefix = "" if only is None else f"{folder.name}/"
    for line, name, label in _rows(table):
        if name in listed or name not in there:
            state = "occurs twice" if name in listed else f"is not in {folder}; unpack the official zip again"
            raise DataError(f"{table}:{line}", f"{name!r} {state}")
        if only not in {None, label}:
            raise DataError(f"{table}:{line}", f"{name!r} is of class {label}, not of its folder's")
        listed.add(name)
        file, key = folder / name, prefix + name.removesuffix(".ppm")
        yield read_image(file, key=key, origin=file.relative_to(root).as_posix(), label=label)
    if unlisted := sorted(there - listed):
        raise DataError(folder / unlisted[0], f"is not listed in {table.name}")


def _rows(table: Path) -> Iterator[tuple[int, str, int]]:
    """(line, file name, class) of each row of a table; file names are plain ones that end in ``.ppm``."""
    if not table.is_file():
        raise DataError(table, "is missing; unpack the official zip again")
    if table.stat().st_size > _MAX_TABLE_BYTES:
        raise DataError(table, f"is over the limit of {_MAX_TABLE_BYTES} bytes")
    try:
        rows = csv.DictReader(table.read_text(encoding="ascii").splitlines(), delimiter=";")
        for row in rows:
            name, label = row.get("Filename") or "", row.get("ClassId") or ""
            if not _ROW.fullmatch(f"{name};{label}") or int(label) >= len(CLASS_NAMES):
                raise DataError(
                    f"{table}:{rows.line_num}", f"needs Filename <name>.ppm and ClassId 0 to {len(CLASS_NAMES) - 1}"
                )
            yield rows.line_num, name, int(label)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(table, f"not a table of GTSRB ({error})") from error


def find_gtsrb(place: str) -> Archive | None:
    """GTSRB at ``place``: the folder ``GTSRB``, or the one that holds it.

    Raises:
        UsageError: it holds both layouts of the training images.
    """
    path = Path(place)
    for root in (path / "GTSRB", path):
        train = [folder for folder in (root / "Final_Training" / "Images", root / "Training") if _is_training(folder)]
        test = root / "Final_Test" / "Images"
        if train or test.is_dir():
            one_for_each_split(root, [folder.relative_to(root).parts[0] for folder in train])
            tables = [folder / TEST_TABLE for folder in (test, test.parent, root, root.parent)]
            table = next((file for file in tables if file.is_file()), None)
            return Gtsrb(
                root=root, train=train[0] if train else None, test=test if test.is_dir() else None, table=table
            )
    return None


def _is_training(folder: Path) -> bool:
    """Whether it is the folder of class folders; those of other data may be called ``Training`` too."""
    tables = (folder / name / f"GT-{name}.csv" for name in CLASS_NAMES)
    return folder.is_dir() and (folder.name == "Images" or any(table.is_file() for table in tables))


GTSRB = SourceKind(
    name="gtsrb",
    form=f"GTSRB/Final_Training/Images (or GTSRB/Training) and Final_Test/Images with {TEST_TABLE}, or what holds it",
    source="Stallkamp et al. 2012, https://benchmark.ini.rub.de, the official zips unpacked",
    find=find_gtsrb,
)
