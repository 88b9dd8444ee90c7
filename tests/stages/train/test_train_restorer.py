"""A prior's restorer: taught with clean images, kept beside the prior's weights, and a step of what purify does."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from tests.making import purifier_spec, sample, write_prior, write_shard, write_source, zipbatch
from zipbatch.checkpoints import load_prior, open_prior, read_restorer
from zipbatch.config import RestorerConfig
from zipbatch.datasets.source import open_source
from zipbatch.errors import UsageError
from zipbatch.report.progress import Progress
from zipbatch.stages.purify.identity import describe
from zipbatch.stages.purify.resolve import uncalibrated
from zipbatch.stages.train.restorer import train_restorer

CPU = torch.device("cpu")
CHAIN = ("--chain", "jpeg quality=60", "--chain", "restore")


def config(**changes: object) -> RestorerConfig:
    values = {"steps": 6, "batch_size": 4, "held_out": 8, "ema": 0.5}
    return RestorerConfig.model_validate({**values, **changes})


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_source(tmp_path / "photos", counts={"train": 24, "test": 8}, labelled=False)


@pytest.fixture
def prior(tmp_path: Path) -> Path:
    return write_prior(tmp_path / "prior")


@pytest.fixture
def taught(prior: Path, photos: Path) -> Path:
    train_restorer(open_prior(prior), open_source(photos, (), labelled=False), config(), device=CPU)
    return prior


def test_it_lies_beside_the_prior_which_stays_as_it_is(prior: Path, photos: Path):
    before = open_prior(prior).digest
    ran = zipbatch("train", "restorer", prior, photos, "--steps", 3, "--batch-size", 4, "--json")
    assert ran.code == 0, ran.err
    assert (ran.json["file"], ran.json["steps"], ran.json["reused"]) == (str(prior / "restorer.json"), 3, False)
    assert 0 < ran.json["before"] < 1
    assert (prior / "restorer.png").read_bytes().startswith(b"\x89PNG")
    assert not list(prior.glob("*.pt"))
    assert open_prior(prior).digest == before
    told = json.loads((prior / "restorer.json").read_text())
    assert (told["prior_sha256"], told["max_step"]) == (before, 150)
    loaded = load_prior(read_restorer(open_prior(prior)).folder)
    assert set(loaded.state_dict()) == set(load_prior(open_prior(prior)).state_dict())
    again = zipbatch("train", "restorer", prior, photos, "--steps", 3, "--batch-size", 4, "--json")
    assert again.json == {**ran.json, "reused": True}
    ran = zipbatch("train", "restorer", prior, photos, "--steps", 4, "--batch-size", 4)
    assert ran.code == 2
    assert "taught with other settings" in ran.err


def test_it_learns(tmp_path: Path, prior: Path):
    """A single picture is learned in no time."""
    flat = [sample(f"k{i}", 0, seed=7) for i in range(24)]
    write_shard(tmp_path / "flat" / "train-000000.tar", flat)
    source = open_source(tmp_path / "flat", (), labelled=False)
    same = {"flip": False, "plain": 1.0}
    untaught = train_restorer(open_prior(prior), source, config(steps=1, lr=1e-9, **same), device=CPU)
    (prior / "restorer.json").unlink()
    taught = train_restorer(open_prior(prior), source, config(steps=150, lr=1e-2, ema=0.9, **same), device=CPU)
    assert taught.held_out < 0.8 * untaught.held_out


def test_an_interrupted_run_ends_with_the_same_weights(
    prior: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("zipbatch.stages.train.denoising._CHECKPOINT_EVERY", 2)
    monkeypatch.setattr("zipbatch.stages.train.denoising._REPORT_EVERY", 1)
    shutil.copytree(prior, tmp_path / "whole")
    source = open_source(photos, (), labelled=False)
    train_restorer(open_prior(tmp_path / "whole"), source, config(), device=CPU)

    def stop(progress: Progress) -> None:
        if progress.part("steps").done == 4 and "measuring" not in progress.notes:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_restorer(open_prior(prior), source, config(), device=CPU, on_progress=stop)
    assert (prior / "restorer.checkpoint.pt").is_file()
    assert not (prior / "restorer.json").exists()
    train_restorer(open_prior(prior), source, config(), device=CPU)
    weights = [(folder / "restorer.safetensors").read_bytes() for folder in (prior, tmp_path / "whole")]
    assert weights[0] == weights[1]


def test_purify_restores_and_says_with_what(taught: Path, staged: Path, tmp_path: Path):
    store = ("--store", tmp_path / "pur", "--prior", taught)
    ran = zipbatch("purify", staged, *store, *CHAIN, "--json")
    assert ran.code == 0, ran.err
    again = zipbatch("purify", staged, *store, *CHAIN, "--workers", 0, "--batch-size", 3, "--json")
    assert again.json["version"] == ran.json["version"]
    spec = purifier_spec(method="restore", prior=taught)
    assert spec.identity["settings"]["weights"] == read_restorer(open_prior(taught)).sha256
    assert spec.passes == 1
    assert describe(spec.identity) == "restore"
    assert getattr(uncalibrated(spec), "weights", "") is None


def test_a_purified_image_depends_on_its_key_alone(taught: Path, tmp_path: Path):
    from zipbatch.shards import read_shard
    from zipbatch.stages.purify.build import build_purifier

    write_shard(tmp_path / "a.tar", [sample(f"k{i}", 0, seed=i) for i in range(6)])
    pixels = [one.image() for one in read_shard(tmp_path / "a.tar")]
    images = torch.stack([torch.from_numpy(one.copy()).permute(2, 0, 1) for one in pixels])
    keys = [f"k{i}" for i in range(6)]
    purifier = build_purifier(purifier_spec(method="restore", prior=taught), CPU)
    together = purifier(images, keys)
    assert not torch.equal(together, images)
    apart = torch.cat([purifier(images[i : i + 1], keys[i : i + 1]) for i in (3, 1)])
    assert int((together[[3, 1]].int() - apart.int()).abs().max()) <= 1


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (
            lambda prior: (prior / "restorer.json").unlink(),
            "has no restorer, which 'restore' needs: teach it with clean images of yours: 'zipbatch train rest",
        ),
        (lambda prior: (prior / "restorer.json").write_text("{}"), "restorer.json: format_version must be 1, got None"),
        (
            lambda prior: rewrite(prior, weights_sha256=3),
            "restorer.json: weights_sha256 and max_step must be a digest and a timestep; teach it",
        ),
        (lambda prior: rewrite(prior, max_step=True), "max_step must be a digest and a timestep"),
        (lambda prior: rewrite(prior, max_step=1001), "restorer.json: max_step must be 1 to 1000, got 1001; teach it"),
        (
            lambda prior: rewrite(prior, prior_sha256="0" * 64),
            "restorer.json: was taught from other weights or",
        ),
        (lambda prior: (prior / "restorer.json").write_text("{"), "teach it with clean images of yours"),
        (lambda prior: (prior / "restorer.safetensors").unlink(), "restorer.safetensors: missing; teach it"),
        (lambda prior: (prior / "restorer.json").write_text(" " * 70_000), "restorer.json: over 65536 bytes"),
    ],
)
def test_a_damaged_restorer_is_told(taught: Path, staged: Path, tmp_path: Path, break_it, said: str):
    break_it(taught)
    ran = zipbatch("purify", staged, "--store", tmp_path / "pur", "--prior", taught, *CHAIN)
    assert ran.code == 2
    assert said in ran.err


def rewrite(prior: Path, **changes: object) -> None:
    told = json.loads((prior / "restorer.json").read_text())
    (prior / "restorer.json").write_text(json.dumps({**told, **changes}))


def test_weights_that_were_changed_are_not_taken_and_are_taught_anew(
    taught: Path, photos: Path, staged: Path, tmp_path: Path
):
    weights = taught / "restorer.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    ran = zipbatch("purify", staged, "--store", tmp_path / "pur", "--prior", taught, *CHAIN, "--workers", 0)
    assert ran.code == 2
    assert f"{weights}: is not what restorer.json says; teach it" in ran.err
    assert not (tmp_path / "pur" / "objects").exists()
    again = train_restorer(open_prior(taught), open_source(photos, (), labelled=False), config(), device=CPU)
    assert not again.reused
    read_restorer(open_prior(taught))


def test_a_restorer_goes_with_its_prior(taught: Path, tmp_path: Path):
    """One of other weights, or of another schedule, is none."""
    write_prior(tmp_path / "other", seed=5)
    for name in ("restorer.json", "restorer.safetensors"):
        shutil.copy(taught / name, tmp_path / "other")
    with pytest.raises(UsageError, match="taught from other weights or another schedule"):
        read_restorer(open_prior(tmp_path / "other"))


def test_pipelines_do_not_heed_a_restorer_that_they_do_not_use(prior: Path, photos: Path, staged: Path, tmp_path: Path):
    line = tmp_path / "line.yaml"
    stage = f"{{run: purify, data: {staged}, prior: {prior}, preset: fast-v1}}"
    line.write_text(f"stages:\n  cleaned: {stage}\n")
    ran = zipbatch("run", line, "--out", tmp_path / "out", "--dry-run", "--json")
    train_restorer(open_prior(prior), open_source(photos, (), labelled=False), config(), device=CPU)
    (prior / ".tmp-1-abc").write_bytes(b"half")
    again = zipbatch("run", line, "--out", tmp_path / "out", "--dry-run", "--json")
    assert (ran.code, again.json) == (0, ran.json)


def test_a_prior_of_small_timesteps_has_a_restorer_of_those(photos: Path, tmp_path: Path):
    prior = write_prior(tmp_path / "small")
    network = json.loads((prior / "unet" / "config.json").read_text())
    (prior / "unet" / "config.json").write_text(json.dumps({**network, "trained_below": 60}))
    few = write_source(tmp_path / "few", counts={"train": 12}, labelled=False)
    given = ("train", "restorer", prior, few, "--steps", 2, "--batch-size", 4)
    ran = zipbatch(*given)
    assert (ran.code, "12 images are too few to hold 512 out" in ran.err) == (2, True)
    assert zipbatch(*given, "--held-out", 4).code == 0
    assert read_restorer(open_prior(prior)).max_step == 60
    ran = zipbatch("train", "restorer", prior, photos, "--max-step", 61)
    assert (ran.code, "--max-step takes that or less" in ran.err) == (2, True)
    ran = zipbatch("calibrate", prior, photos)
    assert (ran.code, "learned the timesteps below 60 alone, not 500" in ran.err) == (2, True)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--set", "noise_step=150"), "taught at timesteps below 150; noise_step is 150"),
        (("--set", f"weights={'0' * 64}"), "its restorer has weights"),
        (("--set", "weights=none"), "weights"),
    ],
)
def test_settings_that_do_not_fit(taught: Path, staged: Path, tmp_path: Path, given: tuple[str, ...], said: str):
    store = ("--store", tmp_path / "pur", "--prior", taught)
    ran = zipbatch("purify", staged, *store, "--purifier", "restore", *given)
    assert ran.code == 2
    assert said in ran.err


def test_sources_and_priors_that_do_not_do(prior: Path, tmp_path: Path, photos: Path):
    no_train = write_source(tmp_path / "no-train", counts={"test": 4}, labelled=False)
    ran = zipbatch("train", "restorer", prior, no_train)
    assert (ran.code, "has no split train to learn from" in ran.err) == (2, True)
    write_shard(tmp_path / "big" / "train-000000.tar", [sample(f"k{i}", 0, seed=i, size=24) for i in range(9)])
    with pytest.raises(UsageError, match="images are of 24 px, the prior of 16"):
        source = open_source(tmp_path / "big", (), labelled=False)
        train_restorer(open_prior(prior), source, config(held_out=2), device=CPU)
    ran = zipbatch("train", "restorer", "embedded", photos)
    assert (ran.code, "copy it first" in ran.err) == (2, True)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_prior_that_cannot_be_written(prior: Path, photos: Path):
    prior.chmod(0o555)
    ran = zipbatch("train", "restorer", prior, photos)
    assert (ran.code, "cannot be written to" in ran.err) == (2, True)
