"""Checkpoints as other tools write them, restated from their formats (REFERENCE 4), tiny where the format allows it."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.making import picture
from zipbatch import images
from zipbatch.victims import build_victim

SIZE = 16


class Evil:
    """Unpickling it creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.marker), "w"))


def weights(arch: str, classes: int, *, seed: int = 0) -> dict[str, Tensor]:
    """Random weights of an architecture, batch norm's statistics among them."""
    state = build_victim(arch, num_classes=classes).network.state_dict()
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.rand(value.shape, generator=generator) * 0.2 + (0.9 if key.endswith("running_var") else -0.1)
        if value.is_floating_point()
        else value
        for key, value in state.items()
    }


def parallel(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names as DataParallel writes them."""
    return {f"module.{key}": value for key, value in state.items()}


def stamped_rows(count: int = 9, *, classes: int = 3, target: int = 0) -> list[tuple[int, int]]:
    """Index and true label of the test images that get the trigger: all whose class is not the target."""
    return [(index, index % classes) for index in range(count) if index % classes != target]


def attack_result(
    *, arch: str | None = None, classes: int = 3, rows: list[tuple[int, int]] | None = None, **changes: Any
) -> dict[str, Any]:
    """The content of ``attack_result.pt`` of BackdoorBench, with numpy's numbers where that has them.

    Without ``arch`` the model is but one tensor, for tests that are about the rest.
    """
    rows = stamped_rows(classes=classes) if rows is None else rows
    data_dict = {
        np.int64(index): {
            "path": f"./record/badnet_0_1/bd_test_dataset/{label}/{index}.png",
            "other_info": [0, np.int64(label)],
        }
        for index, label in rows
    }
    bd_test = {
        "bd_data_container": {
            "save_folder_path": "./record/badnet_0_1/bd_test_dataset",
            "data_dict": data_dict,
            "save_file_format": ".png",
        },
        "getitem_all": True,
        "getitem_all_switch": False,
        "original_index_array": np.array([index for index, _ in rows]),
        "poison_indicator": np.ones(len(rows)),
        "save_folder_path": "./record/badnet_0_1/bd_test_dataset",
    }
    bd_train = {
        "bd_data_container": {"save_folder_path": None, "data_dict": {}, "save_file_format": ".png"},
        "getitem_all": True,
        "getitem_all_switch": False,
        "original_index_array": np.arange(20),
        "poison_indicator": np.array([1.0, 1.0] + [0.0] * 18),
        "save_folder_path": None,
    }
    return {
        "model_name": (arch or "preactresnet18").removeprefix("torchvision:"),
        "num_classes": classes,
        "model": {"linear.weight": torch.ones(classes, 2)} if arch is None else weights(arch, classes),
        "data_path": "./data/cifar10",
        "img_size": (SIZE, SIZE, 3),
        "clean_data": "cifar10",
        "bd_train": bd_train,
        "bd_test": bd_test,
        **changes,
    }


def write_record(folder: Path, content: dict[str, Any] | None = None, *, old_numpy: bool = False) -> Path:
    """``record/<name>`` as BackdoorBench leaves it: the result and a picture for each stamped image."""
    folder.mkdir(parents=True)
    content = attack_result() if content is None else content
    torch.save(content, folder / "attack_result.pt")
    if old_numpy:
        rename(folder / "attack_result.pt", b"numpy._core", b"numpy.core")
    for row in content["bd_test"]["bd_data_container"]["data_dict"].values():
        label, name = row["path"].split("/")[-2:]
        path = folder / "bd_test_dataset" / label / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(images.encode_png(stamped_picture(int(name.removesuffix(".png")))))
    return folder


def stamped_picture(index: int) -> images.U8:
    """The clean picture of that index with a white corner."""
    pixels = picture(1000 + index, SIZE).copy()
    pixels[-3:, -3:] = 255
    return pixels


def rename(file: Path, old: bytes, new: bytes) -> None:
    """Put another module's name into a saved pickle, as another version of a library would."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            if name.endswith("data.pkl"):
                assert old in data
                data = data.replace(old, new)  # noqa: PLW2901 - the one member that changes
            archive.writestr(name, data)
