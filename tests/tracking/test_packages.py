"""``--track`` with the packages themselves, offline; each where it is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.making import zipbatch
from zipbatch.tracking import TrackedRun

TRAIN = ("--arch", "resnet20", "--epochs", "1", "--batch-size", "8", "--device", "cpu")


def installed(package: str) -> bool:
    spec = find_spec(package)
    return spec is not None and spec.origin is not None


def train(staged: Path, folder: Path, track: str) -> None:
    ran = zipbatch("train", "victim", staged, "--out", folder / "v", *TRAIN, "--track", track)
    assert (ran.code, "no longer tracked" in ran.err) == (0, False), ran.err


def check_missing(staged: Path, folder: Path, package: str) -> None:
    ran = zipbatch("train", "victim", staged, "--out", folder / "v", *TRAIN, "--track", package)
    assert (ran.code, f"pip install 'zipbatch[{package}]'" in ran.err) == (2, True)
    assert not (folder / "v").exists()


@pytest.mark.parametrize("package", ["mlflow", "wandb", "tensorboard"])
def test_one_that_is_not_installed_names_its_extra(
    staged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
):
    monkeypatch.setattr("zipbatch.tracking.choosing.find_spec", lambda _name: None)
    check_missing(staged, tmp_path, package)


def test_a_folder_of_that_name_is_no_package(staged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "zb_empty").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("zipbatch.tracking.choosing.find_spec", lambda _name: find_spec("zb_empty"))
    check_missing(staged, tmp_path, "wandb")


def test_one_that_nobody_knows(staged: Path, tmp_path: Path):
    ran = zipbatch("train", "victim", staged, "--out", tmp_path / "v", "--track", "excel")
    assert (ran.code, "excel: track with one of mlflow, wandb, tensorboard" in ran.err) == (2, True)


@pytest.mark.skipif(not installed("tensorboard"), reason="pip install 'zipbatch[tensorboard]'")
def test_tensorboard_reads_its_event_files(staged: Path, source: Path, tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(staged, tmp_path, f"tensorboard:{tmp_path / 'runs'}")
    (folder,) = (tmp_path / "runs").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    assert {"loss", "final/ca", "final/asr"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("loss")][-1] == 24
    manifest = json.loads((tmp_path / "v" / "manifest.json").read_bytes())
    assert events.Scalars("final/ca")[0].value == pytest.approx(manifest["ca"]["value"], abs=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(not installed("mlflow"), reason="pip install 'zipbatch[mlflow]'")
def test_mlflow_has_the_run(staged: Path, tmp_path: Path):
    from mlflow import MlflowClient

    where = f"sqlite:///{tmp_path / 'mlflow.db'}"
    train(staged, tmp_path, f"mlflow:{where}")
    client = MlflowClient(where)
    (run,) = client.search_runs([one.experiment_id for one in client.search_experiments()])
    assert (run.info.status, run.info.run_name, run.data.params["arch"]) == ("FINISHED", "v", "resnet20")
    assert {"loss", "ca", "asr"} <= set(run.data.metrics)


@pytest.mark.slow
@pytest.mark.skipif(not installed("wandb"), reason="pip install 'zipbatch[wandb]'")
def test_wandb_writes_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In a process of its own: wandb keeps a service running."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    code = (
        "from zipbatch.tracking import *\n"
        "from zipbatch.report.progress import Part, Progress\n"
        f"run = Following((Choice('wandb', 'p'),), {TrackedRun('v', 'r', {'lr': 0.1})!r})\n"
        "run.progress(Progress(parts=(Part('steps', 5, 9),), measures={'loss': 0.5}), group='a[b]')\n"
        "run.final({'ca': 0.9})\n"
        "run.close(ok=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "no longer tracked" not in done.stderr
    (file,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    written = file.read_bytes()
    assert all(word in written for word in (b"a/b/loss", b"a/b/step", b"0.9", b"lr"))


@pytest.mark.skipif(not installed("tensorboard"), reason="pip install 'zipbatch[tensorboard]'")
def test_a_pipeline_leaves_its_rows(source: Path, tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (tmp_path / "p.yaml").write_text(
        f"about: a table\nmatrix: {{attack: [badnets]}}\nstages:\n"
        f"  shards: {{run: poison, source: {source}, attack: '${{attack}}'}}\n"
        "  victim: {run: train victim, data: '${shards}', preset: resnet18,\n"
        "    set: {arch: resnet20, epochs: 1, batch_size: 8}}\n"
        "  result: {run: evaluate, data: '${shards}', victim: '${victim}'}\n"
    )
    track = f"tensorboard:{tmp_path / 'runs'}"
    ran = zipbatch("run", tmp_path / "p.yaml", "--out", tmp_path / "out", "--device", "cpu", "--track", track, "--json")
    assert ran.code == 0, ran.err
    (folder,) = (tmp_path / "runs").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    assert {"victim/badnets/loss", "final/badnets/none/ca", "final/badnets/none/asr"} <= set(events.Tags()["scalars"])
    row = ran.json["rows"][0]
    assert events.Scalars("final/badnets/none/asr")[0].value == pytest.approx(row["asr"], abs=1e-6)
