"""``zipbatch doctor``: what it finds, and that it says what to do."""

from __future__ import annotations

import os
import tempfile
import time
from collections import namedtuple
from pathlib import Path

import pytest

from tests.making import sample, write_shard, zipbatch
from zipbatch.stages.doctor import machine
from zipbatch.stages.doctor.finding import Finding
from zipbatch.stages.doctor.run import examine


def found(check: str, **named: str) -> list[Finding]:
    return [one for one in examine(**named) if one.check == check]


def test_this_machine_is_fit_and_every_check_is_made():
    ran = zipbatch("doctor", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["fit"] is True
    checks = {one["check"] for one in ran.json["findings"]}
    assert checks >= {"python", "torch", "gpu", "cpu", "memory", "ray", "shared memory", "temp folder", "open files"}
    assert all(one["next_step"] for one in ran.json["findings"] if one["state"] != "ok")


def test_a_store_that_is_fine_one_that_is_not_there_and_one_that_is_damaged(tmp_path: Path):
    assert "not there yet" in found("store", store=str(tmp_path / "pur"))[0].text
    shard = write_shard(tmp_path / "in.tar", [sample("a", 0, seed=1)])
    assert zipbatch("purify", shard, "--name", "in", "--preset", "jpeg", "--store", tmp_path / "pur").code == 0
    assert "1 datasets, 1 versions" in found("store", store=str(tmp_path / "pur"))[0].text
    header = next((tmp_path / "pur" / "versions" / "in").glob("*.json"))
    header.chmod(0o644)
    header.write_text("{}")
    (one,) = [one for one in found("store", store=str(tmp_path / "pur")) if one.state == "failed"]
    assert str(header) in one.text
    ran = zipbatch("doctor", "--store", tmp_path / "pur")
    assert ran.code == 1
    assert "FAILED" in ran.out
    assert "-> " in ran.out


def test_a_prior(tmp_path: Path):
    (one,) = found("prior", prior="embedded")
    assert (one.state, "32 px" in one.text) == ("ok", True)
    (missing,) = found("prior", prior=str(tmp_path))
    assert (missing.state, str(tmp_path) in missing.text) == ("failed", True)


def test_a_cluster_that_does_not_answer():
    (one,) = found("cluster", address="127.0.0.1:1")
    assert one.state == "failed"
    assert "nobody answers there" in one.text


def test_what_killed_runs_left_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "zipbatch-fit-abc").mkdir()
    assert not [one for one in machine.temp_folder() if one.state == "warning"], "a run may be using it"
    old = time.time() - 2 * machine.LEFT_AFTER_S
    os.utime(tmp_path / "zipbatch-fit-abc", (old, old))
    (warned,) = [one for one in machine.temp_folder() if one.state == "warning"]
    assert "zipbatch-fit-abc" in warned.text


def test_too_little_of_something_is_told_with_a_step(monkeypatch: pytest.MonkeyPatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _path: usage(10**8, 0, 10**8))
    assert machine.shared_memory().state == "warning"
    assert "--shm-size" in machine.shared_memory().next_step
    assert next(machine.temp_folder()).state == "warning"
    monkeypatch.setattr(machine.resource, "getrlimit", lambda _what: (64, 64))
    assert machine.open_files() == Finding(
        check="open files", text="at most 64", state="warning", next_step="raise it: ulimit -n 4096"
    )
    monkeypatch.setattr(machine, "LEAST_PYTHON", (9, 0))
    assert machine.python().state == "failed"


def test_a_gpu_that_torch_cannot_use_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import torch

    monkeypatch.setattr(machine, "_GPU", tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    (one,) = machine.gpus()
    assert (one.state, "CUDA" in one.next_step) == ("warning", True)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    (one,) = machine.gpus()
    assert "driver" in one.next_step
