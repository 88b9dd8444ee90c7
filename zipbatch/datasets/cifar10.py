"""CIFAR-10's python version: ``cifar-10-batches-py`` or ``cifar-10-python.tar.gz`` (https://www.cs.toronto.edu/~kriz/cifar.html).

Six batches of ``labels`` (10,000 integers) and ``data`` (uint8 [10000, 3072], the red, green and blue planes of 32 px
images, row by row), and ``batches.meta`` with ``label_names``. They are pickles; ``plain_pickle`` reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zipbatch.datasets.base import Archive, SourceImage, SourceKind
from zipbatch.datasets.folders import Left
from zipbatch.datasets.plain_pickle import MAX_BYTES, load_plain
from zipbatch.errors import DataError
from zipbatch.strays import has_stray
from zipbatch.tars import DamagedTarError, TarReader, open_tar

FOLDER_NAME = "cifar-10-batches-py"
META = "batches.meta"
BATCHES = {"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)}
_README = "readme.html"
_WANTED = (META, *BATCHES["train"], *BATCHES["test"])
_KNOWN = (*_WANTED, _README)
_SIZE = 32
_MAX_MEMBERS = 100
_PPM = b"P6\n%d %d\n255\n" % (_SIZE, _SIZE)


@dataclass(frozen=True)
class Cifar10:
    """The archive at ``path``: the folder with the batches, or the tar that holds it."""

    path: Path

    @property
    def splits(self) -> tuple[str, ...]:
        """Train and test."""
        return tuple(BATCHES)

    @cached_property
    def classes(self) -> list[str]:
        """From ``batches.meta``."""
        names = self._load(META).get("label_names")
        if not isinstance(names, list) or not names or not all(isinstance(name, bytes | str) for name in names):
            raise DataError(self.path / META, "has no list label_names; download CIFAR-10 again")
        return [name.decode("ascii", "replace") if isinstance(name, bytes) else name for name in names]

    def images(self, split: str) -> Iterator[SourceImage]:
        """The images of a split in the order of its batches, keys ``train_00042``, as PPM.

        Raises:
            DataError: a batch is missing, or is anything but labels and pixels.
        """
        index = 0
        for name in BATCHES[split]:
            labels, planes = self._batch(name)
            pixels = np.ascontiguousarray(planes.reshape(-1, 3, _SIZE, _SIZE).transpose(0, 2, 3, 1))
            for row, label in enumerate(labels):
                key = f"{split}_{index:05d}"
                yield SourceImage(
                    key=key, origin=f"{name}:{row}", data=_PPM + pixels[row].tobytes(), extension="ppm", label=label
                )
                index += 1

    def left(self, splits: Sequence[str]) -> Left:  # noqa: ARG002  # one folder holds the batches of all
        """What lies beside the batches, in the folder or the tar."""
        if not self.path.is_dir():
            return self._members[1]
        left = Left()
        left.look(self.path, root=self.path, taken=lambda path: path.name in _KNOWN)
        return left

    def _batch(self, name: str) -> tuple[list[int], npt.NDArray[np.uint8]]:
        content = self._load(name)
        labels, data = content.get("labels"), content.get("data")
        if not isinstance(labels, list) or not isinstance(data, np.ndarray):
            raise DataError(self.path / name, "has no labels or no data; download CIFAR-10 again")
        if data.shape != (len(labels), 3 * _SIZE * _SIZE):
            raise DataError(self.path / name, f"data of shape {data.shape} for {len(labels)} labels of 32 px images")
        if not all(type(label) is int and 0 <= label < len(self.classes) for label in labels):
            raise DataError(self.path / name, f"a label is not a class index of 0 to {len(self.classes) - 1}")
        return labels, data

    def _load(self, name: str) -> dict[str, object]:
        try:
            value = load_plain(self._read(name))
        except ValueError as error:
            raise DataError(self.path / name, f"not a file of CIFAR-10's python version: {error}") from error
        if not isinstance(value, dict):
            raise DataError(self.path / name, f"holds a {type(value).__name__}, not a dict; download CIFAR-10 again")
        return {key.decode("latin-1") if isinstance(key, bytes) else key: item for key, item in value.items()}

    def _read(self, name: str) -> bytes:
        if self.path.is_dir():
            file = self.path / name
            if not file.is_file():
                raise DataError(file, "is missing; unpack the official archive again")
            if file.stat().st_size > MAX_BYTES:
                raise DataError(file, f"has {file.stat().st_size} bytes, over the limit of {MAX_BYTES}")
            return file.read_bytes()
        files, _ = self._members
        if name not in files:
            raise DataError(self.path / name, "is missing in the archive; download CIFAR-10 again")
        return files[name]

    @cached_property
    def _members(self) -> tuple[dict[str, bytes], Left]:
        """The files of the tar that are wanted, all 186 MB of them: they do not come in order, and are read often. And
        what else is in it.
        """
        try:
            with open_tar(self.path) as tar:
                found = _wanted(self.path, tar)
                tar.check_end()
                return found
        except (DamagedTarError, OSError) as error:
            raise DataError(self.path, f"{error}; download CIFAR-10 again") from error


def _wanted(path: Path, tar: TarReader) -> tuple[dict[str, bytes], Left]:
    """Batches and ``batches.meta`` by base name, and what else the tar holds. Nothing is unpacked."""
    names = {f"{FOLDER_NAME}/{name}": name for name in _WANTED}
    found, left = dict[str, bytes](), Left()
    for number, member in enumerate(tar):
        if number == _MAX_MEMBERS or member.size > MAX_BYTES:
            raise DataError(path, f"member {member.name[:200]!r} is too much for CIFAR-10; download it again")
        name = names.get(given := member.name.removeprefix("./"))
        if name is None:
            _pass_over(given, left, folder=member.folder)
            continue
        if not member.plain:
            raise DataError(path, f"member {member.name[:200]!r} is not a regular file (link, device or sparse)")
        if name in found:
            raise DataError(path, f"member {member.name[:200]!r} occurs twice")
        found[name] = member.read()
        if len(found[name]) != member.size:
            raise DataError(path, f"is truncated: it ends within {member.name!r}; download it again")
    return found, left


def _pass_over(name: str, left: Left, *, folder: bool) -> None:
    if has_stray(name):
        left.strays.add(name)
    elif not folder and name != f"{FOLDER_NAME}/{_README}":
        left.things.add(name)


def find_cifar10(place: str) -> Archive | None:
    """CIFAR-10 at ``place``: the folder, a folder that holds it, or the tar."""
    path = Path(place)
    for folder in (path, path / FOLDER_NAME):
        if (folder / META).is_file() and any((folder / name).is_file() for names in BATCHES.values() for name in names):
            return Cifar10(folder)
    return Cifar10(path) if path.is_file() and _starts_like_cifar10(path) else None


def _starts_like_cifar10(path: Path) -> bool:
    try:
        with open_tar(path) as tar:
            first = next((member for member in islice(tar, _MAX_MEMBERS) if not has_stray(member.name)), None)
    except (DamagedTarError, OSError):
        return False
    return first is not None and first.name.removeprefix("./").split("/")[0] == FOLDER_NAME


CIFAR10 = SourceKind(
    name="cifar10",
    form=f"{FOLDER_NAME} with its six batches, or cifar-10-python.tar.gz as it is",
    source="Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html, python version",
    find=find_cifar10,
)
