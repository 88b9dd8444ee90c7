"""Training a prior: a real one, small, from its command to a purified shard."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
import torch

from tests.making import sample, write_shard, write_source, zipbatch
from zipbatch.checkpoints import load_prior, open_prior
from zipbatch.config import PriorConfig
from zipbatch.datasets.source import open_source
from zipbatch.errors import UsageError
from zipbatch.report.progress import Progress
from zipbatch.stages.train.prior import train_prior
from zipbatch.stages.train.run import Budget, cosine_rate, training_fingerprint

UNET = {
    "block_out_channels": [8, 16],
    "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "add_attention": False,
    "norm_num_groups": 4,
}
CPU = torch.device("cpu")


def config(**changes: object) -> PriorConfig:
    values = {"unet": UNET, "steps": 12, "batch_size": 4, "held_out": 8, "ema": 0.5, "training_steps": 100}
    return PriorConfig.model_validate({**values, **changes})


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_a_trained_prior_purifies(source: Path, staged: Path, tmp_path: Path):
    out = tmp_path / "prior"
    result = train_prior(open_source(source, ()), out, config(), device=CPU)
    assert result.steps == 12
    assert 0 < result.held_out < 2
    assert (out / "samples.png").read_bytes().startswith(b"\x89PNG")
    assert open_prior(out).image_size == 16
    ran = zipbatch("purify", staged, "--prior", out, "--store", tmp_path / "pur", "--steps", 2, "--start-step", 100)
    assert ran.code == 0, ran.err
    assert train_prior(open_source(source, ()), out, config(), device=CPU).reused
    with pytest.raises(UsageError, match="other settings"):
        train_prior(open_source(source, ()), out, config(seed=1), device=CPU)


def test_it_learns(tmp_path: Path):
    """One flat colour is learned in no time: the loss falls far below that of predicting nothing, which is 1."""
    flat = [sample(f"k{i}", 0, seed=7) for i in range(16)]
    write_shard(tmp_path / "src" / "train-000000.tar", flat)
    result = train_prior(
        open_source(tmp_path / "src", ()), tmp_path / "prior", config(steps=150, lr=3e-3, ema=0.9), device=CPU
    )
    assert result.held_out < 0.75


def test_an_interrupted_run_ends_with_the_same_weights(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("zipbatch.stages.train.denoising._CHECKPOINT_EVERY", 5)
    monkeypatch.setattr("zipbatch.stages.train.denoising._REPORT_EVERY", 1)
    train_prior(open_source(source, ()), tmp_path / "whole", config(), device=CPU)

    def interrupt(progress: Progress) -> None:
        if progress.part("steps").done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_prior(open_source(source, ()), tmp_path / "cut", config(), device=CPU, on_progress=interrupt)
    assert not (tmp_path / "cut" / "manifest.json").exists()
    train_prior(open_source(source, ()), tmp_path / "cut", config(), device=CPU)
    whole, cut = (load_prior(open_prior(tmp_path / name)).state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(whole[key], cut[key]) for key in whole)


def test_labels_are_not_needed(tmp_path: Path):
    source = write_source(tmp_path / "bare", counts={"train": 12}, labelled=False)
    ran = zipbatch("train", "prior", source, "--out", tmp_path / "p", "--steps", 2, "--batch-size", 2)
    assert ran.code == 2
    assert "too few to hold 512 out" in ran.err
    result = train_prior(open_source(source, (), labelled=False), tmp_path / "q", config(held_out=4), device=CPU)
    assert result.steps == 12


def test_images_with_a_trigger_are_told(source: Path, staged: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        train_prior(open_source(source, ()), tmp_path / "clean", config(), device=CPU)
        assert "carry a trigger" not in caplog.text
        train_prior(open_source(staged, ()), tmp_path / "stamped", config(), device=CPU)
    assert re.search(r"[1-9]\d* of \d+ images of split train carry a trigger", caplog.text)


def test_settings_that_cannot_be_built(source: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="patch 3 does not divide"):
        train_prior(open_source(source, ()), tmp_path / "a", config(patch=3), device=CPU)
    with pytest.raises(UsageError, match="nonsense"):
        train_prior(open_source(source, ()), tmp_path / "b", config(unet={**UNET, "nonsense": 1}), device=CPU)
    assert not list(tmp_path.glob("?/*"))


def test_budget_and_rate():
    budget = Budget(steps=10, minutes=1.0)
    budget.step, budget.seconds = 5, 45.0
    assert budget.fraction == 0.75
    budget.seconds = 61
    assert budget.spent
    assert cosine_rate(0.5, peak=1.0, warmup=0.0) == pytest.approx(0.5)
    assert cosine_rate(1.0, peak=1.0, warmup=0.1, final=0.02) == pytest.approx(0.02)
    assert cosine_rate(0.05, peak=1.0, warmup=0.1) == pytest.approx(0.5)


def test_a_run_cut_before_its_weights_are_saved_is_not_finished(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(_state: object) -> bytes:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("zipbatch.checkpoints.prior_writing.save", full)
        with pytest.raises(OSError, match="No space"):
            train_prior(open_source(source, ()), tmp_path / "p", config(), device=CPU)
    assert not train_prior(open_source(source, ()), tmp_path / "p", config(), device=CPU).reused
    load_prior(open_prior(tmp_path / "p"))


def test_a_source_without_training_images_is_told(tmp_path: Path):
    source = write_source(tmp_path / "in", counts={"test": 4}, labelled=False)
    ran = zipbatch("train", "prior", source, "--out", tmp_path / "prior")
    assert ran.code == 2
    assert "has no split train to learn from; it has: test" in ran.err


def test_small_timesteps_alone(source: Path, staged: Path, tmp_path: Path):
    """A prior of those says so, and is asked for no others."""
    out = tmp_path / "prior"
    train_prior(open_source(source, ()), out, config(max_step=50, min_snr=5.0), device=CPU)
    assert open_prior(out).trained_below == 50
    assert (out / "samples.png").read_bytes().startswith(b"\x89PNG")
    load_prior(open_prior(out))
    given = ("purify", staged, "--prior", out, "--store", tmp_path / "pur", "--steps", 4, "--preset", "balanced-v1")
    ran = zipbatch(*given, "--start-step", 100)
    assert ran.code == 2
    assert "learned the timesteps below 50 alone, would be asked at 75" in ran.err
    assert zipbatch(*given, "--start-step", 50).code == 0


def test_what_came_later_leaves_identities_as_they_were():
    assert not {"max_step", "min_snr"} & set(training_fingerprint(config())["config"])
    assert training_fingerprint(config(min_snr=5.0))["config"]["min_snr"] == 5.0
    with pytest.raises(ValueError, match="max_step must be at most training_steps"):
        config(max_step=101)


def test_min_snr_weighs_only_what_is_learned(source: Path, tmp_path: Path):
    """Held-out losses stay comparable; the weights that are learned differ."""
    losses = {
        gamma: train_prior(open_source(source, ()), tmp_path / str(gamma), config(min_snr=gamma), device=CPU).held_out
        for gamma in (None, 0.5)
    }
    assert losses[None] != losses[0.5]
    assert losses[None] == pytest.approx(losses[0.5], rel=0.3)
