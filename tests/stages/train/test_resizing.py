"""Images of other sizes than is trained on: brought to it, kept in the manifest, part of the identity."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.making import picture, zipbatch
from zipbatch.checkpoints import open_prior, open_victim
from zipbatch.datasets import open_dataset
from zipbatch.errors import UsageError
from zipbatch.images import resize
from zipbatch.pipeline.stage_types import STAGE_TYPES
from zipbatch.stages.train.data import load_split
from zipbatch.stages.train.request import PriorSettings, VictimSettings

PRIOR = """
unet: {block_out_channels: [8, 16], down_block_types: [DownBlock2D, DownBlock2D],
       up_block_types: [UpBlock2D, UpBlock2D], layers_per_block: 1, add_attention: false, norm_num_groups: 4}
steps: 2
batch_size: 4
held_out: 4
training_steps: 100
"""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of pictures of many sizes."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, (width, height) in enumerate([(30, 20), (16, 16), (21, 40), (64, 17)] * 4):
        Image.fromarray(picture(i, 64)[:height, :width]).save(folder / f"{i}.png")
    return folder


def test_photos_of_many_sizes_train_a_prior(photos: Path, tmp_path: Path):
    (tmp_path / "tiny.yaml").write_text(PRIOR)
    command = ("train", "prior", photos, "--preset", tmp_path / "tiny.yaml", "--out", tmp_path / "prior")
    refused = zipbatch(*command)
    assert refused.code == 2
    assert "must be square and of one size; --image-size" in refused.err
    refused = zipbatch(*command, "--resize", "center-crop")
    assert refused.code == 2
    assert "--resize center-crop goes with --image-size PX" in refused.err
    ran = zipbatch(*command, "--image-size", 16, "--resize", "center-crop")
    assert ran.code == 0, ran.err
    assert open_prior(tmp_path / "prior").image_size == 16
    told = json.loads((tmp_path / "prior" / "manifest.json").read_text())["trained_on"]
    assert (told["image_size"], told["resize"]) == (16, "center-crop")
    other = zipbatch(*command, "--image-size", 16)
    assert other.code == 2
    assert "other settings or data" in other.err


def test_a_victim_of_another_size(staged: Path, tmp_path: Path):
    command = ("train", "victim", staged, "--arch", "resnet20", "--epochs", 1, "--out", tmp_path / "victim")
    ran = zipbatch(*command, "--image-size", 12)
    assert ran.code == 0, ran.err
    assert open_victim(tmp_path / "victim").spec.image_size == 12
    manifest = json.loads((tmp_path / "victim" / "manifest.json").read_text())
    assert manifest["trained_on"]["image_size"] == 12
    assert manifest["ca"]["n"] > 0
    other = zipbatch(*command)
    assert other.code == 2
    assert "other settings or data" in other.err


def test_a_split_is_loaded_at_the_size_that_is_asked_for(staged: Path):
    shards = open_dataset([str(staged)]).split("test")
    asked = VictimSettings(preset="resnet18", image_size=12, resize="center-crop")
    as_is, smaller = load_split(shards), load_split(shards, asked)
    expected = resize(as_is.images[0].permute(1, 2, 0).numpy(), 12, policy="center-crop")
    assert torch.equal(smaller.images[0].permute(1, 2, 0), torch.from_numpy(expected))
    assert torch.equal(smaller.labels, as_is.labels)


@pytest.mark.parametrize(("kind", "settings"), [("train victim", VictimSettings), ("train prior", PriorSettings)])
def test_a_stage_of_a_pipeline_is_known_by_it(kind: str, settings: type[VictimSettings | PriorSettings]):
    preset = "resnet18" if settings is VictimSettings else "small32"
    decides = STAGE_TYPES[kind].decides
    plain, same = decides(settings(preset=preset)), decides(settings(preset=preset, resize="stretch"))
    assert plain == same == {"config": plain["config"]}
    sizes = [{"image_size": 16}, {"image_size": 24}, {"image_size": 16, "resize": "center-crop"}]
    for size in sizes:
        assert decides(settings(preset=preset, **size)) == plain | size
    with pytest.raises(UsageError, match="goes with ‹image_size PX›"):
        settings(preset=preset, resize="center-crop")
