"""BackdoorBench's ``record/<name>/attack_result.pt`` (f02e353): a backdoored model, and which test images it fools.

    {model_name, num_classes, model, data_path, img_size, clean_data, bd_train, bd_test}
    bd_test = {bd_data_container: {save_folder_path, data_dict: {index: {path, other_info}}, save_file_format}, …}
    other_info = [label that the attacker wants, true label]; index counts the clean test set's images

A defence leaves ``defense_result.pt`` with {model_name, num_classes, model} alone.

The pictures lie beside it, ``bd_test_dataset/<true label>/<index>.png``; the paths that it stores begin wherever it was
made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from zipbatch.checkpoints.pickles import plain, read_pickle
from zipbatch.checkpoints.state_dict import FoundState, find_state
from zipbatch.errors import UsageError
from zipbatch.victims import TORCHVISION_PREFIX

RESULT = "attack_result.pt"
PICTURES = "bd_test_dataset"
KEYS = frozenset({"model_name", "num_classes", "model", "img_size", "clean_data"})
DEFENSE_RESULT = "defense_result.pt"
DEFENSE_KEYS = frozenset({"model_name", "num_classes", "model"})
DATASETS = {
    **{10: ("cifar10", 32), 100: ("cifar100", 32), 200: ("tiny", 64), 43: ("gtsrb", 32), 8: ("celeba", 64)},
    1000: ("imagenet", 224),
}
"""BackdoorBench's data and the side of its images, by the number of classes."""
CIFAR_STEMS = frozenset({"preactresnet18"})
"""Its models that have an architecture of their own; the others are torchvision's, its resnet18 and resnet34 too."""
RESIZED_INSIDE = {"vit_b_16": 224, "vit_b_32": 224}
"""Models that BackdoorBench puts behind a resize, so that their tensors' names begin with ``1.``."""


@dataclass(frozen=True, kw_only=True)
class PoisonedImage:
    """One stamped test image: its number in the clean test set, both labels, and its file within the record."""

    index: int
    label: int
    original_label: int
    file: PurePosixPath


class _Model:
    """The network of a result, by BackdoorBench's name for it."""

    model_name: str

    @property
    def arch(self) -> str:
        """The architecture's name here."""
        return self.model_name if self.model_name in CIFAR_STEMS else TORCHVISION_PREFIX + self.model_name

    @property
    def network_size(self) -> int | None:
        """Side to which the model resizes its images inside, None where it does not."""
        return RESIZED_INSIDE.get(self.model_name)


@dataclass(frozen=True, kw_only=True)
class AttackResult(_Model):
    """What a record says. ``dataset`` is BackdoorBench's name for the clean data."""

    path: Path
    model_name: str
    num_classes: int
    image_size: int
    dataset: str
    found: FoundState
    entries: Mapping[str, Any]

    def train_marked(self) -> tuple[int, int] | None:
        """How many training images are marked as poisoned, of how many (WaNet marks its cross samples too)."""
        marks = _entry(self.entries, "bd_train", "poison_indicator")
        if not isinstance(marks, np.ndarray | list) or not len(marks):
            return None
        return int(np.count_nonzero(marks)), len(marks)

    def test_images(self) -> tuple[PoisonedImage, ...]:
        """The stamped test images, in the order of the clean test set.

        Raises:
            UsageError: a record without them, or one that contradicts itself; names the entry.
        """
        rows = _entry(self.entries, "bd_test", "bd_data_container", "data_dict")
        if not isinstance(rows, dict) or not rows:
            raise UsageError(f"{self.path}: holds no bd_test.bd_data_container.data_dict, so no stamped test images")
        images = sorted((self._image(index, row) for index, row in rows.items()), key=lambda image: image.index)
        if len({image.index for image in images}) < len(images):
            raise UsageError(f"{self.path}: bd_test lists an index twice")
        return tuple(images)

    def _image(self, index: object, row: object) -> PoisonedImage:
        where = f"{self.path}: bd_test entry {str(index)[:20]}"
        if not isinstance(row, dict) or not isinstance(row.get("path"), str):
            raise UsageError(f"{where} has no path")
        info = plain(row.get("other_info"))
        labels = list(info) if isinstance(info, list | tuple | np.ndarray) else []
        if len(labels) < 2:
            raise UsageError(f"{where} must have other_info [wanted label, true label], has {str(info)[:60]}")
        wanted, true = (_whole(value, self.num_classes, where) for value in labels[:2])
        number = _whole(index, None, where)
        parts = PurePosixPath(row["path"].replace("\\", "/")).parts[-3:]
        if parts != (PICTURES, str(true), f"{number}.png"):
            raise UsageError(f"{where} lies at {row['path'][:200]!r}, not at …/{PICTURES}/{true}/{number}.png")
        return PoisonedImage(index=number, label=wanted, original_label=true, file=PurePosixPath(*parts))


@dataclass(frozen=True)
class DefenseResult(_Model):
    """What ``defense_result.pt`` says, which does not name its data: those with so many classes are ``dataset``."""

    model_name: str
    num_classes: int
    found: FoundState

    @property
    def dataset(self) -> tuple[str, int] | None:
        """BackdoorBench's data with so many classes, and the side of its images; None where there are none."""
        return DATASETS.get(self.num_classes)


def is_defense_result(tree: object) -> bool:
    """Whether a file's content is what BackdoorBench writes after a defence."""
    return isinstance(tree, dict) and set(tree) >= DEFENSE_KEYS and not is_attack_result(tree)


def parse_defense_result(tree: object, *, where: Path) -> DefenseResult:
    """Check what a defence's record holds.

    Raises:
        UsageError: not such a record.
    """
    assert isinstance(tree, dict)  # is_defense_result
    name = tree["model_name"]
    if not isinstance(name, str):
        raise UsageError(f"{where}: model_name must be a name")
    classes = _whole(tree["num_classes"], None, f"{where}: num_classes")
    return DefenseResult(name, classes, find_state(tree["model"], where=where))


def is_attack_result(tree: object) -> bool:
    """Whether a file's content is a record of BackdoorBench."""
    return isinstance(tree, dict) and set(tree) >= KEYS


def read_attack_result(path: Path) -> AttackResult:
    """Read a record; ``path`` is the file, or the folder that holds it under its usual name.

    Raises:
        UsageError: missing, refused (see ``read_pickle``), or not such a record.
    """
    file = record_file(path)
    return parse_attack_result(read_pickle(file), where=file)


def record_file(path: Path) -> Path:
    """The file of a record, which may be named by its folder."""
    return path / RESULT if path.is_dir() else path


def parse_attack_result(tree: object, *, where: Path) -> AttackResult:
    """Check what a record holds; the entries of its images only when they are asked for.

    Raises:
        UsageError: not such a record.
    """
    if not isinstance(tree, dict) or not is_attack_result(tree):
        raise UsageError(f"{where}: is no record of BackdoorBench: it lacks one of {', '.join(sorted(KEYS))}")
    name, dataset = tree["model_name"], tree["clean_data"]
    if not isinstance(name, str) or not isinstance(dataset, str):
        raise UsageError(f"{where}: model_name and clean_data must be names")
    size = plain(tree["img_size"])
    sides = list(size) if isinstance(size, list | tuple | np.ndarray) else []
    if len(sides) < 2 or sides[0] != sides[1]:
        raise UsageError(f"{where}: img_size must be [side, side, channels], is {str(size)[:60]}")
    return AttackResult(
        path=where,
        model_name=name,
        num_classes=_whole(tree["num_classes"], None, f"{where}: num_classes"),
        image_size=_whole(sides[0], None, f"{where}: img_size"),
        dataset=dataset,
        found=find_state(tree["model"], where=where),
        entries=tree,
    )


def _entry(tree: object, *keys: str) -> object:
    """A value some dicts deep, None where one of them is not there."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return plain(tree)


def _whole(value: object, below: int | None, where: str) -> int:
    """A count or a label: numpy's are Python's by now."""
    if isinstance(value, np.integer):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0 or (below is not None and value >= below):
        limit = "" if below is None else f" below {below}"
        raise UsageError(f"{where}: {str(value)[:40]} is not a whole number of 0 or more{limit}")
    return value
