"""Victims: saved and loaded without loss; a folder that does not fit its config is refused by name."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.making import files_below, write_victim
from zipbatch.checkpoints import load_victim, open_victim, save_victim
from zipbatch.checkpoints.victim import VictimSpec
from zipbatch.errors import UsageError
from zipbatch.victims import build_victim

UNIT = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def copy(victim: Path, tmp_path: Path) -> Path:
    """A victim that a test may damage."""
    return Path(shutil.copytree(victim, tmp_path / "copy"))


def change(folder: Path, **fields: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def refused(folder: Path, *parts: str, load: bool = False) -> None:
    with pytest.raises(UsageError) as caught:
        opened = open_victim(folder)
        assert load, "open_victim should have refused it"
        load_victim(opened)
    for part in (str(folder), *parts):
        assert part in str(caught.value)


@pytest.mark.parametrize("channels", ["RGB", "BGR"])
def test_round_trip(tmp_path: Path, channels: str):
    torch.manual_seed(5)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    victim = build_victim("resnet20", num_classes=7, mean=mean, std=std, bgr=channels == "BGR")
    victim(UNIT)  # batch norm statistics that are not the initial ones
    victim.eval()
    spec = VictimSpec(
        arch="resnet20", num_classes=7, image_size=16, channels=channels, mean=mean, std=std, classes=tuple("abcdefg")
    )
    save_victim(tmp_path / "v", spec, victim.network, {"format_version": 1, "by": "me"})
    assert set(files_below(tmp_path)) == {"v/config.json", "v/manifest.json", "v/model.safetensors"}
    opened = open_victim(tmp_path / "v")
    assert (opened.spec, opened.name) == (spec, "v")
    loaded = load_victim(opened)
    assert not loaded.training
    with torch.inference_mode():
        assert torch.equal(loaded(UNIT), victim(UNIT))


def test_equal_victims_are_equal_files(victim: Path, tmp_path: Path):
    assert files_below(write_victim(tmp_path / "again")) == files_below(victim)
    assert files_below(write_victim(tmp_path / "other", seed=1)) != files_below(victim)


def test_missing_files(copy: Path, tmp_path: Path):
    refused(tmp_path / "gone", "no such folder")
    (copy / "model.safetensors").unlink()
    refused(copy, "model.safetensors", "missing")
    (copy / "config.json").unlink()
    refused(copy, "config.json", "missing")


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"format_version": 2}, "format_version"),
        ({"num_classes": 1}, "num_classes"),
        ({"channels": "YUV"}, "channels"),
        ({"mean": [0.5]}, "mean"),
        ({"surprise": 1}, "surprise"),
        ({"image_size": 0}, "image_size"),
    ],
)
def test_unfit_configs(copy: Path, fields: dict[str, Any], part: str):
    change(copy, **fields)
    refused(copy, "config.json", part)


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"arch": "nope"}, "nope"),
        ({"arch": "torchvision:nope"}, "nope"),
        ({"std": [0.1, 0.1, 0.0]}, "std"),
        ({"num_classes": 4}, "linear.weight is (3, 64), it must be (4, 64)"),
        ({"arch": "resnet18"}, "missing"),
    ],
)
def test_configs_that_do_not_fit_the_weights(copy: Path, fields: dict[str, Any], part: str):
    change(copy, **fields)
    refused(copy, part, load=True)


def test_weights_of_another_network(copy: Path):
    network = build_victim("torchvision:squeezenet1_1", num_classes=3).network
    save_file(network.state_dict(), copy / "model.safetensors")
    refused(copy, "model.safetensors", "missing", "unexpected", load=True)


def test_a_missing_buffer_is_missing(copy: Path):
    state = load_file(copy / "model.safetensors")
    name = next(key for key in state if key.endswith("running_mean"))
    del state[name]
    save_file(state, copy / "model.safetensors")
    refused(copy, f"1 missing: {name}", load=True)


class Evil:
    """Unpickling it creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.marker), "w"))


def test_a_pickle_is_not_run(copy: Path, tmp_path: Path):
    (copy / "model.safetensors").write_bytes(pickle.dumps(Evil(tmp_path / "marker")))
    refused(copy, "model.safetensors", "is a pickle, not a safetensors file", load=True)
    assert not (tmp_path / "marker").exists()


def test_torchvision_architectures(tmp_path: Path):
    victim = build_victim("torchvision:squeezenet1_1", num_classes=3)
    spec = VictimSpec(
        arch="torchvision:squeezenet1_1", num_classes=3, image_size=64, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)
    )
    save_victim(tmp_path / "v", spec, victim.network, {})
    with torch.inference_mode():
        assert load_victim(open_victim(tmp_path / "v"))(torch.rand(2, 3, 64, 64)).shape == (2, 3)
