"""Training steps as they would run on a GPU, run without one (``tests/fake_cuda.py``): devices and waiting."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.fake_cuda import CUDA, Watch, as_fake, fake_cuda, fake_prior
from tests.making import IMAGE_SIZE
from zipbatch.checkpoints import open_prior
from zipbatch.config import DenoiserConfig, PriorConfig, RestorerConfig, VictimConfig
from zipbatch.stages.train import denoising, prior, restorer, victim_run
from zipbatch.stages.train.data import LoadedSplit
from zipbatch.stages.train.source_images import Images
from zipbatch.victims import Victim, build_victim

LOSSES = [
    (PriorConfig(batch_size=4), prior._eps_mse),
    (PriorConfig(batch_size=4, min_snr=5.0), prior._eps_mse),
    (RestorerConfig(batch_size=4), restorer._error),
]


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda network: network)  # it would compile for a GPU that is not there
    monkeypatch.setattr(restorer, "_degraded", lambda config, x_0, generator: x_0)  # Pillow's work, on the CPU


@pytest.mark.parametrize(("config", "loss_of"), LOSSES)
def test_a_step_of_a_denoiser_makes_the_host_wait_at_its_end_alone(
    prior: Path, config: DenoiserConfig, loss_of, tmp_path: Path
):
    with fake_cuda():
        run = begun(prior, config, loss_of, tmp_path)
        denoising._step(run)  # after which the optimizer has its state
        with Watch() as watch:
            loss = denoising._step(run)
    assert loss.is_cuda
    assert watch.waits == Counter({"stages.train.denoising._step": 1})  # at its end: torch's average copies its counter
    assert watch.operators > 100


def begun(folder: Path, config: DenoiserConfig, loss_of, tmp_path: Path) -> denoising.Denoising:
    network = fake_prior(open_prior(folder)).requires_grad_(True)
    pixels = torch.zeros(16, 3, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.uint8)
    return denoising.begun(
        network,
        config=config,
        images=Images(pixels, pixels, "test"),
        objective=denoising.Objective("loss", lambda *given: loss_of(config, *given), shown=0),
        checkpoint=tmp_path / "checkpoint.pt",
        identity="",
        device=CUDA,
    )


def test_an_epoch_of_a_victim_asks_for_its_losses_now_and_then(tmp_path: Path):
    steps = 40
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * IMAGE_SIZE**2, 3))
    watch, run = watched_epoch(Victim(network, mean=(0.5,) * 3, std=(0.5,) * 3), tmp_path, images=4 * steps)
    assert run.budget.step == steps
    assert watch.waits == Counter({"stages.train.victim_run.mean": steps})  # one after the other, at four moments


def test_an_epoch_of_a_victim(tmp_path: Path):
    watch, _ = watched_epoch(build_victim("resnet20", num_classes=3), tmp_path, images=4)
    assert watch.waits == Counter({"stages.train.victim_run.mean": 1})
    assert watch.operators > 100


def watched_epoch(victim: Victim, tmp_path: Path, *, images: int) -> tuple[Watch, victim_run.VictimRun]:
    with fake_cuda():
        labels = torch.zeros(images, dtype=torch.int64)
        pixels = torch.zeros(images, 3, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.uint8)
        run = victim_run.begun(
            as_fake(victim).requires_grad_(True),
            VictimConfig(batch_size=4, epochs=2, augment=False),
            LoadedSplit(images=pixels, labels=labels, original_labels=labels, stamped=labels > 0),
            checkpoint=tmp_path / "checkpoint.pt",
            identity="",
            device=CUDA,
        )
        with Watch() as watch:
            victim_run._epoch(run)
    return watch, run
