"""GTSRB as its official zips unpack (Stallkamp et al. 2012, https://benchmark.ini.rub.de): .ppm files and .csv tables.

Training: ``GTSRB/Final_Training/Images/<class>/`` with ``GT-<class>.csv``; test: ``GTSRB/Final_Test/Images/`` with
``GT-final_test.csv``, which comes in a zip of its own. Images are taken whole; the tables' regions of interest are not
cut out. Their sizes differ, so staging needs an image size.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from zipbatch.errors import DataError
from zipbatch.sources.base import Archive, SourceImage, SourceKind, read_image

CLASS_NAMES = [f"{number:05d}" for number in range(43)]
TEST_TABLE = "GT-final_test.csv"
_MAX_TABLE_BYTES = 16 * 1024**2
_ROW = re.compile(r"[A-Za-z0-9_]+\.ppm;[0-9]{1,2}")


@dataclass(frozen=True)
class Gtsrb:
    """The folders found: ``train`` and ``test`` hold the images, ``table`` says what the test images show."""

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
            yield from _listed(self.test, self.table)
            return
        assert self.train is not None
        folders = sorted(child.name for child in self.train.iterdir() if child.is_dir())
        if folders != CLASS_NAMES:
            odd = min(set(folders) ^ set(CLASS_NAMES))
            state = "is not a class of GTSRB" if odd in folders else "is missing; unpack the official zip again"
            raise DataError(self.train / odd, state)
        for label, name in enumerate(CLASS_NAMES):
            yield from _listed(self.train / name, self.train / name / f"GT-{name}.csv", label)


def _listed(folder: Path, table: Path, only: int | None = None) -> Iterator[SourceImage]:
    """The images of one folder, which must be exactly those of its table; ``only`` is the class of all of them."""
    there = {file.name for file in folder.iterdir() if file.suffix.lower() == ".ppm"}
    listed: set[str] = set()
    prefix = "" if only is None else f"{folder.name}/"
    for line, name, label in _rows(table):
        if name in listed or name not in there:
            state = "occurs twice" if name in listed else f"is not in {folder}; unpack the official zip again"
            raise DataError(f"{table}:{line}", f"{name!r} {state}")
        if only not in {None, label}:
            raise DataError(f"{table}:{line}", f"{name!r} is of class {label}, not of its folder's")
        listed.add(name)
        origin = f"{'Final_Test' if only is None else 'Final_Training'}/Images/{prefix}{name}"
        yield SourceImage(prefix + name.removesuffix(".ppm"), origin, read_image(folder / name), "ppm", label)
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
    """GTSRB at ``place``: the folder ``GTSRB``, or the one that holds it."""
    path = Path(place)
    for root in (path / "GTSRB", path):
        train, test = root / "Final_Training" / "Images", root / "Final_Test" / "Images"
        if train.is_dir() or test.is_dir():
            tables = [folder / TEST_TABLE for folder in (test, test.parent, root, root.parent)]
            table = next((file for file in tables if file.is_file()), None)
            return Gtsrb(train if train.is_dir() else None, test if test.is_dir() else None, table)
    return None


GTSRB = SourceKind(
    name="gtsrb",
    form=f"GTSRB/Final_Training/Images and GTSRB/Final_Test/Images with {TEST_TABLE}, or a folder that holds GTSRB",
    source="Stallkamp et al. 2012, https://benchmark.ini.rub.de, the official zips unpacked",
    find=find_gtsrb,
)
