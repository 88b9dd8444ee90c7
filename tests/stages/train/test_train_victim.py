"""Training a victim: measures in the manifest, and a stopped run ends where an unbroken one does."""

from __future__ import annotations

import errno
import json
import os
import pickle
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.making import CLASSES, files_below, write_source, zipbatch
from zipbatch.checkpoints import load_victim, open_victim
from zipbatch.config import VictimConfig
from zipbatch.datasets import ShardDataset, open_dataset
from zipbatch.errors import UsageError
from zipbatch.metrics import attack_success, clean_accuracy
from zipbatch.pixels import from_u8
from zipbatch.report.progress import Progress
from zipbatch.shards import read_shard
from zipbatch.stages.train.data import load_split
from zipbatch.stages.train.victim import TrainedVictim, train_victim
from zipbatch.stages.train.victim_run import CHECKPOINT
from zipbatch.victims import TrainTransform

CONFIG = VictimConfig(arch="resnet20", epochs=2, batch_size=8, lr=0.05)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def dataset(staged: Path) -> ShardDataset:
    return open_dataset([str(staged)])


def train(dataset: ShardDataset, out: Path, config: VictimConfig = CONFIG, **arguments: Any) -> TrainedVictim:
    return train_victim(dataset, out, config, device=CPU, **arguments)


@pytest.fixture(scope="module")
def whole(dataset: ShardDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A victim trained without a break."""
    out = tmp_path_factory.mktemp("trained") / "whole"
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    train(dataset, out)
    torch.set_num_threads(before)
    return out


class Stop:
    """Raises ``KeyboardInterrupt`` in an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def __call__(self, progress: Progress) -> None:
        if progress.part("epochs").done == self.epoch:
            raise KeyboardInterrupt


def test_the_command_and_its_manifest(staged: Path, tmp_path: Path):
    out = tmp_path / "victims" / "v"
    options = ["--arch", "resnet20", "--epochs", 1, "--batch-size", 8, "--seed", 3, "--device", "cpu"]
    ran = zipbatch("train", "victim", staged, "--out", out, *options, "--json")
    assert ran.code == 0, ran.err
    assert set(files_below(tmp_path)) == {
        f"victims/v/{n}" for n in ("config.json", "manifest.json", "model.safetensors")
    }
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["ca"]["n"], manifest["asr"]["n"], manifest["epochs"]) == (12, 8, 1)
    assert (ran.json["ca"], ran.json["asr"]) == (manifest["ca"]["value"], manifest["asr"]["value"])
    assert manifest["trained_on"]["dataset"] == "tiny-badnets"
    assert manifest["trained_on"]["attack"]["name"] == "badnets"
    assert manifest["training"]["seed"] == 3
    again = zipbatch("train", "victim", staged, "--out", out, *options)
    assert (again.code, "already trained" in again.out) == (0, True)


def test_manifest_measures_are_those_of_the_saved_weights(whole: Path, dataset: ShardDataset):
    folder = open_victim(whole)
    assert (folder.spec.classes, folder.spec.image_size, folder.spec.num_classes) == (tuple(CLASSES), 16, 3)
    victim, manifest = load_victim(folder), json.loads((whole / "manifest.json").read_text())

    def answers(split: str) -> Any:
        data = load_split(dataset.split(split))
        with torch.inference_mode():
            predicted = victim(from_u8(data.images, "unit")).argmax(dim=1).numpy()
        return predicted, data

    predicted, data = answers("test")
    ca = clean_accuracy(predicted, data.labels.numpy())
    assert (ca.hits, ca.n) == (manifest["ca"]["hits"], manifest["ca"]["n"])
    predicted, data = answers("test_poisoned")
    asr = attack_success(predicted, data.labels.numpy(), data.original_labels.numpy())
    assert (asr.hits, asr.n) == (manifest["asr"]["hits"], manifest["asr"]["n"])


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_stopped_run_ends_with_the_same_weights(dataset: ShardDataset, whole: Path, tmp_path: Path, epoch: int):
    out = tmp_path / "v"
    with pytest.raises(KeyboardInterrupt):
        train(dataset, out, on_progress=Stop(epoch))
    assert set(files_below(tmp_path)) == ({f"v/{CHECKPOINT}"} if epoch == 2 else set())
    seen: list[int] = []
    result = train(dataset, out, on_progress=lambda p: seen.append(p.part("epochs").done))
    assert (result.epochs, result.reused, seen[0]) == (2, False, epoch)
    assert set(files_below(out)) == {"config.json", "manifest.json", "model.safetensors"}
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert (out / "config.json").read_bytes() == (whole / "config.json").read_bytes()


def test_training_learns_and_leaves_the_global_generator_alone(dataset: ShardDataset, tmp_path: Path):
    torch.manual_seed(11)
    expected = torch.rand(1)
    torch.manual_seed(11)
    seen: list[Progress] = []
    config = CONFIG.model_copy(update={"augment": False, "epochs": 3, "lr": 0.01})
    train(dataset, tmp_path / "v", config, on_progress=seen.append)
    assert torch.equal(torch.rand(1), expected)
    assert [p.part("epochs").done for p in seen if not p.notes] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert [p.part("images").done for p in seen if p.notes] == [12, 24]
    assert max(p.share or 0 for p in seen if not p.notes) < 1, "what it has learned is still to be measured"
    fractions = [p.share or 0 for p in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert seen[-1].measures["loss"] < seen[2].measures["loss"]


def test_the_seed_decides(dataset: ShardDataset, whole: Path, tmp_path: Path):
    train(dataset, tmp_path / "v", CONFIG.model_copy(update={"seed": 1}))
    assert (tmp_path / "v" / "model.safetensors").read_bytes() != (whole / "model.safetensors").read_bytes()


def test_a_finished_folder_is_reused(dataset: ShardDataset, whole: Path):
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in whole.iterdir()}
    result = train(dataset, whole, on_progress=Stop(1))
    manifest = json.loads((whole / "manifest.json").read_text())
    assert (result.reused, result.epochs) == (True, 2)
    assert result.ca is not None
    assert result.ca.value == manifest["ca"]["value"]
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in whole.iterdir()} == before


@pytest.mark.parametrize("fields", [{"epochs": 3}, {"lr": 0.1}, {"seed": 9}, {"arch": "resnet18"}])
@pytest.mark.parametrize("finished", [False, True])
def test_other_settings_are_refused(
    dataset: ShardDataset, whole: Path, tmp_path: Path, fields: dict[str, Any], finished: bool
):
    out = tmp_path / "v"
    if finished:
        shutil.copytree(whole, out)
    else:
        with pytest.raises(KeyboardInterrupt):
            train(dataset, out, on_progress=Stop(2))
    before = files_below(out)
    with pytest.raises(UsageError, match="other settings or data"):
        train(dataset, out, CONFIG.model_copy(update=fields))
    assert files_below(out) == before


def test_other_data_is_refused(whole: Path, source: Path, tmp_path: Path):
    other = tmp_path / "other"
    assert zipbatch("poison", source, "--attack", "blended", "--out", other).code == 0
    with pytest.raises(UsageError, match="other settings or data"):
        train(open_dataset([str(other)]), whole)


class Evil:
    """Unpickling it creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.marker), "w"))


@pytest.mark.parametrize("how", ["pickle", "torch", "text", "other", "list"])
def test_a_strange_checkpoint_is_refused(dataset: ShardDataset, tmp_path: Path, how: str):
    out, marker = tmp_path / "v", tmp_path / "marker"
    out.mkdir()
    file = out / CHECKPOINT
    if how == "pickle":
        file.write_bytes(pickle.dumps(Evil(marker), protocol=2))
    elif how == "text":
        file.write_text("hello")
    else:
        torch.save({"torch": Evil(marker), "other": {"a": torch.zeros(1)}, "list": [1]}[how], file)
    before = files_below(out)
    with pytest.raises(UsageError, match=r"(?s)checkpoint\.pt: not a checkpoint of this tool.*start over"):
        train(dataset, out)
    assert not marker.exists()
    assert files_below(out) == before


def test_missing_test_splits_are_null(source: Path, tmp_path: Path):
    assert zipbatch("poison", source, "--attack", "badnets", "--split", "train", "--out", tmp_path / "s").code == 0
    result = train(open_dataset([str(tmp_path / "s")]), tmp_path / "v", CONFIG.model_copy(update={"epochs": 1}))
    assert (result.ca, result.asr) == (None, None)
    manifest = json.loads((tmp_path / "v" / "manifest.json").read_text())
    assert (manifest["ca"], manifest["asr"]) == (None, None)


def test_minutes_end_a_run_early(dataset: ShardDataset, tmp_path: Path):
    result = train(dataset, tmp_path / "v", VictimConfig(arch="resnet20", epochs=10_000, minutes=0.002, batch_size=8))
    assert 1 <= result.epochs < 100
    assert open_victim(tmp_path / "v").spec.num_classes == 3


def test_physicalba_trains_through_its_transforms(source: Path, tmp_path: Path):
    assert zipbatch("poison", source, "--attack", "physicalba", "--out", tmp_path / "s", "--limit", 9).code == 0
    physical, config = open_dataset([str(tmp_path / "s")]), CONFIG.model_copy(update={"epochs": 1, "augment": False})
    train(physical, tmp_path / "v", config)
    assert zipbatch("poison", source, "--attack", "badnets", "--out", tmp_path / "b", "--limit", 9).code == 0
    train(open_dataset([str(tmp_path / "b")]), tmp_path / "w", config)
    assert (tmp_path / "v/model.safetensors").read_bytes() != (tmp_path / "w/model.safetensors").read_bytes()


@pytest.mark.parametrize("attack", ["batt", "physicalba"])
def test_an_attacks_transform_sees_which_images_are_poisoned(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: str
):
    """Every image of a batch reaches it, with the truth about its trigger."""
    staged, seen = tmp_path / "s", list[tuple[bytes, bool]]()
    options = ("--attack", attack, "--poison-rate", 0.25, "--split", "train", "--out", staged)
    assert zipbatch("poison", source, *options).code == 0
    real = TrainTransform.__call__

    def watched(self: TrainTransform, unit: torch.Tensor, poisoned: torch.Tensor, **rest: Any) -> torch.Tensor:
        seen.extend(zip((image.numpy().tobytes() for image in unit), poisoned.tolist(), strict=True))
        return real(self, unit, poisoned, **rest)

    monkeypatch.setattr(TrainTransform, "__call__", watched)
    dataset = open_dataset([str(staged)])
    train(dataset, tmp_path / "v", CONFIG.model_copy(update={"epochs": 1}))
    samples = [s for shard in dataset.split("train") for s in read_shard(shard.path)]
    expected = [
        (from_u8(torch.from_numpy(s.image()).permute(2, 0, 1), "unit").contiguous().numpy().tobytes(), s.stamped())
        for s in samples
    ]
    assert sum(flag for _, flag in expected) == 6
    assert sorted(seen) == sorted(expected)


def test_an_unknown_transform_is_refused(source: Path, tmp_path: Path):
    assert zipbatch("poison", source, "--attack", "batt", "--out", tmp_path / "s").code == 0
    manifest = tmp_path / "s" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"train_transform": "batt"', '"train_transform": "spin"'))
    with pytest.raises(UsageError, match="unknown train_transform 'spin'; known: batt, physicalba"):
        train(open_dataset([str(tmp_path / "s")]), tmp_path / "v")


def test_what_cannot_be_trained(source: Path, dataset: ShardDataset, tmp_path: Path):
    assert zipbatch("poison", source, "--attack", "badnets", "--split", "test", "--out", tmp_path / "s").code == 0
    for data in (open_dataset([str(tmp_path / "s")]), open_dataset([str(write_source(tmp_path / "bare"))])):
        with pytest.raises(UsageError, match="staged dataset with a split train"):
            train(data, tmp_path / "v")
    with pytest.raises(UsageError, match="nope"):
        train(dataset, tmp_path / "v", CONFIG.model_copy(update={"arch": "nope"}))
    with pytest.raises(UsageError, match="diverged"):
        train(dataset, tmp_path / "v", CONFIG.model_copy(update={"lr": 1e30, "warmup": 0.0}))
    assert not list((tmp_path / "v").glob("*"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="cannot be made"):
        train(dataset, tmp_path / "file")
    assert zipbatch("poison", source, "--attack", "badnets", "--limit", 1, "--out", tmp_path / "one").code == 0
    with pytest.raises(UsageError, match="two or more"):
        train(open_dataset([str(tmp_path / "one")]), tmp_path / "v")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk_leaves_the_checkpoint_of_before(
    dataset: ShardDataset, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
):
    """It fills up while the second epoch's is written; the error is the disk's, not what torch makes of it."""
    out = tmp_path / "v"

    def fill_up(progress: Progress) -> None:
        if progress.part("epochs").done == 2:
            monkeypatch.setattr("zipbatch.stages.train.run._Told.write", full)

    def full(told: Any, data: bytes) -> int:
        told.error = OSError(number, os.strerror(number))
        raise told.error

    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        train(dataset, out, on_progress=fill_up)
    assert caught.value.errno == number
    assert set(files_below(out)) == {CHECKPOINT}
    monkeypatch.undo()
    seen: list[int] = []
    train(dataset, out, on_progress=lambda progress: seen.append(progress.part("epochs").done))
    assert seen[0] == 2
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_a_limit_on_files_is_told_as_one(staged: Path, tmp_path: Path):
    """The kernel's own refusal in the middle of a checkpoint."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    options = ["--arch", "resnet20", "--epochs", 1, "--batch-size", 8, "--device", "cpu"]
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        ran = zipbatch("train", "victim", staged, "--out", tmp_path / "v", *options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (ran.code, ran.out) == (1, "")
    assert f"error: {tmp_path / 'v' / CHECKPOINT}: larger than a file may be here (ulimit -f)" in ran.err
    assert files_below(tmp_path) == {}
    assert zipbatch("train", "victim", staged, "--out", tmp_path / "v", *options).code == 0


def test_it_may_begin_with_the_weights_of_another(staged: Path, whole: Path, tmp_path: Path):
    """With hardly a learning rate the weights stay what they were; the manifest says whose they were."""
    options = ["--arch", "resnet20", "--epochs", 1, "--batch-size", 8, "--device", "cpu", "--lr", 1e-12]
    given = ("train", "victim", staged, "--start", whole, *options)
    ran = zipbatch(*given, "--out", tmp_path / "v", "--json")
    assert ran.code == 0, ran.err
    before, after = (load_victim(open_victim(folder)).parameters() for folder in (whole, tmp_path / "v"))
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(before, after, strict=True))
    told = json.loads((tmp_path / "v" / "manifest.json").read_text())["start"]
    assert told == {"name": whole.name, "sha256": open_victim(whole).pinned().sha256}
    assert zipbatch(*given, "--out", tmp_path / "v", "--json").json["reused"]
    ran = zipbatch("train", "victim", staged, *options, "--out", tmp_path / "v")
    assert (ran.code, "holds the result of other settings" in ran.err) == (2, True)


def test_what_it_begins_with_has_the_form_of_what_is_trained(staged: Path, whole: Path, tmp_path: Path):
    ran = zipbatch("train", "victim", staged, "--start", whole, "--arch", "resnet18", "--out", tmp_path / "v")
    assert ran.code == 2
    assert "its arch is resnet20, what is to be trained has resnet18" in ran.err
    ran = zipbatch("train", "victim", staged, "--start", "embedded:nothing", "--out", tmp_path / "v")
    assert (ran.code, "there are embedded:badnets," in ran.err) == (2, True)
    assert not (tmp_path / "v").exists()
