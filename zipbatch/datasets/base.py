"""What every source is: splits of encoded, labelled images in a fixed order, under stable keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from zipbatch.errors import DataError
from zipbatch.images import SOURCE_EXTENSIONS, U8, Resize, decode, resize
from zipbatch.storage import StoragePath, stamp

if TYPE_CHECKING:
    from zipbatch.datasets.folders import Left

UNLABELLED = -1
SPLITS = ("train", "val", "test")
_SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "final_training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "final_test"), "test"),
}
CLASSES = "classes.txt"
MAX_IMAGE_BYTES = 256 * 1024**2
MAX_CLASSES_BYTES = 16 * 1024**2


def split_named(name: str) -> str | None:
    """The split that a folder or the beginning of a shard's name stands for, in any case; None for none."""
    return _SPLIT_NAMES.get(name.casefold())


class UnreadableImageError(DataError):
    """One image of a source that cannot be read; those around it can."""


@dataclass(frozen=True, kw_only=True)
class SourceImage:
    """One encoded image of a source.

    Attributes:
        key: its name in the source.
        origin: its place there, for tracing back.
        data: encoded bytes.
        extension: what they are.
        label: its class, or UNLABELLED.
        fault: why it is none, where that shows without decoding; ``data`` is then empty.
        size: the side of the square that it is brought to when it is decoded; None leaves it as it is.
        resize: how it is brought to it.
        stamped: whether its own metadata say that it carries a trigger.
    """

    key: str
    origin: str
    data: bytes
    extension: str
    label: int
    fault: str = ""
    size: int | None = None
    resize: Resize = "stretch"
    stamped: bool = False

    def check(self) -> None:
        """Raises ``UnreadableImageError`` for its fault, if it has one."""
        if self.fault:
            raise UnreadableImageError(self.origin, self.fault, key=self.key)

    def pixels(self) -> U8:
        """The decoded image, uint8 RGB [H, W, 3].

        Raises:
            UnreadableImageError: it cannot be decoded; names its origin and key.
        """
        self.check()
        try:
            pixels = decode(self.data, self.extension)
        except ValueError as error:
            raise UnreadableImageError(self.origin, str(error), key=self.key) from error
        return pixels if self.size is None else resize(pixels, self.size, policy=self.resize)


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

    def left(self, splits: Sequence[str]) -> Left:
        """What lies there and was not taken, where these splits have been read."""


@dataclass(frozen=True, kw_only=True)
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


def read_image(file: Path, *, key: str, origin: str, label: int) -> SourceImage:
    """An image file as it is; with a fault where it cannot be one."""
    extension = file.suffix[1:].lower()
    fault = _fault(file, extension)
    return SourceImage(
        key=key, origin=origin, data=b"" if fault else file.read_bytes(), extension=extension, label=label, fault=fault
    )


def _fault(file: Path, extension: str) -> str:
    if extension not in SOURCE_EXTENSIONS:
        return f"not a supported image ({', '.join(SOURCE_EXTENSIONS)})"
    if not file.is_file():
        return f"is a link that leads nowhere, to {file.readlink()}" if file.is_symlink() else "is no regular file"
    if (size := file.stat().st_size) > MAX_IMAGE_BYTES:
        return f"has {size} bytes, over the limit of {MAX_IMAGE_BYTES} for an image"
    return ""


def read_classes(file: StoragePath) -> list[str]:
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
