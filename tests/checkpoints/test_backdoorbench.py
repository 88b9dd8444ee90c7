"""BackdoorBench's records: every entry checked, none believed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.foreign import attack_result, stamped_rows, write_record
from zipbatch.checkpoints.backdoorbench import parse_attack_result, read_attack_result
from zipbatch.errors import UsageError

WHERE = Path("attack_result.pt")


@pytest.mark.parametrize("old_numpy", [True, False])
def test_what_a_record_says(tmp_path: Path, old_numpy: bool):
    record = read_attack_result(write_record(tmp_path / "r", old_numpy=old_numpy))
    assert (record.arch, record.num_classes, record.image_size, record.dataset) == ("preactresnet18", 3, 16, "cifar10")
    assert (record.train_marked(), record.network_size) == ((2, 20), None)
    assert [(image.index, image.original_label) for image in record.test_images()] == stamped_rows()
    first = record.test_images()[0]
    assert (first.label, first.file.as_posix()) == (0, "bd_test_dataset/1/1.png")


def test_resnet18_there_is_torchvisions():
    record = parse_attack_result(attack_result() | {"model_name": "resnet18"}, where=WHERE)
    assert record.arch == "torchvision:resnet18"


def test_without_its_poisoned_data_a_record_is_still_a_model():
    content = attack_result()
    del content["bd_test"], content["bd_train"]
    record = parse_attack_result(content, where=WHERE)
    assert record.train_marked() is None
    with pytest.raises(UsageError, match=r"holds no bd_test\.bd_data_container\.data_dict"):
        record.test_images()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"img_size": 32}, "img_size must be"),
        ({"img_size": (32, 16, 3)}, "img_size must be"),
        ({"img_size": ("a", "a")}, "img_size: a is not a whole number"),
        ({"num_classes": "ten"}, "num_classes: ten is not a whole number"),
        ({"clean_data": 3}, "must be names"),
        ({"model": {"a": "b"}}, "holds no state dict"),
        ({"model": {}}, "holds no state dict"),
    ],
)
def test_records_that_are_none(changes: dict[str, Any], words: str):
    with pytest.raises(UsageError, match=words):
        parse_attack_result(attack_result() | changes, where=WHERE)


def test_a_file_without_its_keys(tmp_path: Path):
    torch.save({"model": {"a": torch.ones(1)}}, tmp_path / "f.pt")
    with pytest.raises(UsageError, match="is no record of BackdoorBench"):
        read_attack_result(tmp_path / "f.pt")


GOOD = {"path": "./record/x/bd_test_dataset/1/4.png", "other_info": [0, 1]}


@pytest.mark.parametrize(
    ("index", "row", "words"),
    [
        (4, GOOD | {"path": None}, "entry 4 has no path"),
        (4, "row", "entry 4 has no path"),
        (4, GOOD | {"other_info": [0]}, "must have other_info"),
        (4, GOOD | {"other_info": None}, "must have other_info"),
        (4, GOOD | {"other_info": [0, 3]}, "3 is not a whole number of 0 or more below 3"),
        (4, GOOD | {"other_info": [-1, 1]}, "-1 is not a whole number"),
        (4, GOOD | {"other_info": [0, 2]}, "not at …/bd_test_dataset/2/4.png"),
        (5, GOOD, "not at …/bd_test_dataset/1/5.png"),
        ("4", GOOD, "4 is not a whole number"),
        (4, GOOD | {"path": "/etc/passwd"}, "lies at '/etc/passwd'"),
        (4, GOOD | {"path": "bd_test_dataset/1/../../4.png"}, "lies at"),
        (4, GOOD | {"path": "other/1/4.png"}, "lies at"),
    ],
)
def test_entries_that_contradict_themselves(index: object, row: object, words: str):
    content = attack_result()
    content["bd_test"]["bd_data_container"]["data_dict"] = {index: row}
    with pytest.raises(UsageError, match=words.replace("(", r"\(")):
        parse_attack_result(content, where=WHERE).test_images()


@pytest.mark.parametrize(
    "path", ["bd_test_dataset/1/4.png", "/far/away/bd_test_dataset/1/4.png", "C:\\r\\bd_test_dataset\\1\\4.png"]
)
@pytest.mark.parametrize("info", [[0, 1], (np.int64(0), np.int64(1)), np.array([0, 1])])
def test_paths_of_any_folder_and_numbers_of_any_kind(path: str, info: object):
    content = attack_result()
    content["bd_test"]["bd_data_container"]["data_dict"] = {np.int64(4): {"path": path, "other_info": info}}
    (image,) = parse_attack_result(content, where=WHERE).test_images()
    assert (image.index, image.label, image.original_label) == (4, 0, 1)
    assert image.file.as_posix() == "bd_test_dataset/1/4.png"
