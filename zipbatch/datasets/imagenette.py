"""Imagenette, ten easy classes of ImageNet (https://github.com/fastai/imagenette): folders named by WordNet ids.

Classes are numbered as torchvision's ImageFolder numbers them, in the order of the ids, and have readable names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from zipbatch.datasets.base import Archive, SourceImage, SourceKind
from zipbatch.datasets.folders import Left
from zipbatch.datasets.image_folder import class_names, read_image_folder, tree_left
from zipbatch.errors import UsageError

NAMES = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}
_SPLITS = ("train", "val")
_NOISY = "noisy_imagenette.csv"


@dataclass(frozen=True)
class Imagenette:
    """The unpacked archive at ``root``."""

    root: Path
    splits: tuple[str, ...]

    def left(self, splits: Sequence[str]) -> Left:
        """What lies beside the splits and their class folders, and class folders without images."""
        return tree_left(self.root, {split: split for split in self.splits}, splits, known={_NOISY})

    @property
    def classes(self) -> list[str]:
        """Readable names, in the order of their WordNet ids."""
        return list(NAMES.values())

    def images(self, split: str) -> Iterator[SourceImage]:
        """As ``read_image_folder``: keys are ``<WordNet id>/<file stem>``."""
        return read_image_folder(self.root, split, list(NAMES))


def find_imagenette(place: str) -> Archive | None:
    """Imagenette at ``place``: its folder, or the only ``imagenette2*`` in there.

    Raises:
        UsageError: there are several.
    """
    path = Path(place)
    if not path.is_dir():
        return None
    found = [folder for folder in (path, *sorted(path.glob("imagenette2*"))) if _splits(folder)]
    if len(found) > 1:
        raise UsageError(f"{path}: holds {' and '.join(folder.name for folder in found)}; name one of them")
    return Imagenette(found[0], _splits(found[0])) if found else None


def _splits(root: Path) -> tuple[str, ...]:
    """The splits with all ten class folders and no other."""
    return tuple(s for s in _SPLITS if (root / s).is_dir() and class_names(root, s) == list(NAMES))


IMAGENETTE = SourceKind(
    name="imagenette",
    form="imagenette2, imagenette2-320 or imagenette2-160 with train and val, or the folder that holds one of them",
    source="https://github.com/fastai/imagenette, the official tgz unpacked",
    find=find_imagenette,
)
