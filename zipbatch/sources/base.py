"""What every source is: splits of encoded, labelled images in a fixed order, under stable keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from zipbatch.errors import DataError
from zipbatch.images import U8, decode
from zipbatch.places import Place, plain, stamp

UNLABELLED = -1
SPLITS = ("train", "val", "test")
CLASSES = "classes.txt"
MAX_IMAGE_BYTES = 256 * 1024**2
MAX_CLASSES_BYTES = 16 * 1024**2


@dataclass(frozen=True)
class SourceImage:
    """One encoded image of a source. ``origin`` is its place there, for tracing back; ``label`` may be UNLABELLED."""

    key: str
    origin: str
    data: bytes
    extension: str
    label: int

    def pixels(self) -> U8:
        """The decoded image, uint8 RGB [H, W, 3].

        Raises:
            DataError: it cannot be decoded; names its origin and key.
        """
        try:
            return decode(self.data, self.extension)
        except ValueError as error:
            raise DataError(self.origin, str(error), key=self.key) from error


class Archive(Protocol):
    """A source that was recognised."""

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that it has, in the order of ``SPLITS``."""

    @property
    def classes(self) -> list[str] | None:
        """Class names in the order of their numbers, the same whatever split is read; None where nothing names them."""

    def images(self, split: str) -> Iterator[SourceImage]:
        """The images of a split, each time in the same order; raises ``DataError`` when data is not what it claims."""


@dataclass(frozen=True)
class SourceKind:
    """A kind of source, asked for as ``name:PLACE``.

    Attributes:
        name: what stands before the colon.
        form: what PLACE is.
        source: where such data comes from.
        find: PLACE -> the archive there, None when there is none of this kind.
    """

    name: str
    form: str
    source: str
    find: Callable[[str], Archive | None]


def read_image(file: Path) -> bytes:
    """The bytes of an image file.

    Raises:
        DataError: it is too large to be one, or a pipe, a device or the like.
    """
    if (size := plain(file).st_size) > MAX_IMAGE_BYTES:
        raise DataError(file, f"has {size} bytes, over the limit of {MAX_IMAGE_BYTES} for an image")
    return file.read_bytes()


def read_classes(file: Place) -> list[str]:
    """Class names, one a line, in order of their index.

    Raises:
        DataError: empty, a name twice, or too large.
    """
    if stamp(file).size > MAX_CLASSES_BYTES:
        raise DataError(file, f"is over the limit of {MAX_CLASSES_BYTES} bytes for a list of class names")
    try:
        names = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(file, "is not UTF-8 text") from error
    if not names or len(set(names)) != len(names):
        raise DataError(file, "must list each class name once, one a line")
    return names
