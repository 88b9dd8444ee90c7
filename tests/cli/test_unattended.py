"""Runs that nobody watches: what they leave, what they print, how they keep out of each other's way."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.making import Ran, files_below, purifier_spec, sample, write_shard, write_source, zipbatch
from zipbatch.cluster import Workers
from zipbatch.datasets import open_dataset
from zipbatch.errors import TimeIsUp
from zipbatch.report.progress import Progress
from zipbatch.stages.purify.job import PurifyJob
from zipbatch.stages.purify.plan import plan_purify
from zipbatch.stages.purify.run import purify
from zipbatch.store import Store, verify
from zipbatch.store.lock import RunLock, lock_file


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Six bare shards of two images."""
    return write_source(tmp_path / "in", counts={"test": 12}, shards=6)


def blur(*more: object, before: tuple[object, ...] = ()) -> Ran:
    return zipbatch(*before, "purify", *more, "--purifier", "blur")


def summary(file: Path) -> dict:
    return json.loads(file.read_bytes())


def log_of(ran: Ran) -> list[dict]:
    """Every line of stderr as JSON; fails when one is not."""
    return [json.loads(line) for line in ran.err.splitlines()]


def metric(file: Path, name: str, **labels: str) -> float:
    lines = [line for family in text_string_to_metric_families(file.read_text()) for line in family.samples]
    (value,) = [line.value for line in lines if line.name == name and labels.items() <= line.labels.items()]
    return value


# ---- reports


def test_reports_of_a_run_and_of_one_that_had_nothing_to_do(shards: Path, tmp_path: Path):
    store, file, prom = tmp_path / "pur", tmp_path / "run.json", tmp_path / "run.prom"
    options = (shards, "--store", store, "--tag", "nightly", "--summary", file, "--metrics", prom)
    version = blur(*options, "--json").json["version"]
    first = summary(file)
    assert (first["outcome"], first["exit_code"], first["error"]) == ("done", 0, None)
    assert (first["command"], first["dataset"], first["store"]) == ("purify", "in", str(store))
    assert (first["version"], first["tags"]) == (version, ["nightly", "latest"])
    counts = {"unit": "shards", "total": 6, "done": 6, "failed": 0, "left": 0, "samples": 12, "quarantined": 0}
    assert first["counts"] == counts | {"computed": 6, "reused": 0}
    succeeded = metric(prom, "zipbatch_last_success_timestamp_seconds", dataset="in", command="purify")
    assert abs(succeeded - time.time()) < 60

    assert blur(*options).code == 0
    second = summary(file)
    assert second["outcome"] == "nothing to do"
    assert second["counts"] == counts | {"computed": 0, "reused": 6}
    assert second["version"] == version
    assert second["run"] != first["run"]
    assert metric(prom, "zipbatch_last_run_outcome", outcome="nothing to do") == 1
    assert metric(prom, "zipbatch_last_success_timestamp_seconds") > succeeded


def test_a_failed_run_names_its_shards(shards: Path, tmp_path: Path):
    (shards / "test-000003.tar").write_text("no tar")
    file, prom = tmp_path / "run.json", tmp_path / "run.prom"
    ran = blur(shards, "--store", tmp_path / "pur", "--summary", file, "--metrics", prom)
    assert ran.code == 1
    value = summary(file)
    assert (value["outcome"], value["exit_code"], value["version"]) == ("failed", 1, None)
    assert value["counts"] == {
        **{"unit": "shards", "total": 6, "done": 5, "computed": 5, "reused": 0, "failed": 1, "left": 0},
        **{"samples": 10, "quarantined": 0},
    }
    (failed,) = value["failed"]
    assert failed["name"] == "test-000003.tar"
    assert failed["reason"] in ran.err
    assert value["error"] in ran.err
    assert metric(prom, "zipbatch_last_run_shards", state="failed") == 1
    assert metric(prom, "zipbatch_last_run_exit_code") == 1


@pytest.mark.parametrize(
    "wrong",
    [("--prior", "nosuch", "--preset", "balanced"), ("--purifier", "nosuch"), ("--nosuch",), ("--seed", "x")],
)
def test_a_mistake_is_reported_too(shards: Path, tmp_path: Path, wrong: tuple[str, ...]):
    file = tmp_path / "run.json"
    ran = zipbatch("purify", shards, "--store", tmp_path / "pur", "--summary", file, *wrong)
    assert ran.code == 2
    if file.exists():  # unless the mistake came before the flag was read
        assert (summary(file)["outcome"], summary(file)["exit_code"]) == ("failed", 2)
        assert summary(file)["error"] in ran.err
    else:
        assert wrong == ("--nosuch",)


def test_a_dry_run_leaves_no_report(shards: Path, tmp_path: Path):
    before = files_below(tmp_path)
    ran = blur(shards, "--store", tmp_path / "pur", "--dry-run", "--summary", tmp_path / "run.json")
    assert ran.code == 0
    assert files_below(tmp_path) == before


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        (("--metrics", "run.txt"), "must end in .prom"),
        (("--metrics", "no/run.prom"), "its folder is not there"),
        (("--summary", "no/run.json"), "its folder is not there"),
        (("--summary", "in"), "is a folder"),
    ],
)
def test_a_report_that_could_not_be_written_is_refused_before_work(
    shards: Path, tmp_path: Path, option: tuple[str, str], reason: str
):
    ran = blur(shards, "--store", tmp_path / "pur", option[0], tmp_path / option[1])
    assert ran.code == 2
    assert reason in ran.err
    assert not (tmp_path / "pur").exists()


def test_a_report_that_turns_out_unwritable_is_a_failure(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from zipbatch import atomic

    def full(_path: Path, _value: object) -> None:
        raise OSError(28, "No space left on device", "/x/run.json")

    monkeypatch.setattr(atomic, "write_json", full)
    ran = zipbatch("poison", shards, "--attack", "badnets", "--out", shards, "--summary", tmp_path / "run.json")
    assert ran.code == 2  # the command's own error counts first
    ran = zipbatch("run", "nosuch", "--summary", tmp_path / "run.json")
    assert ran.code == 2
    assert "could not be written: /x/run.json: the disk is full" in ran.err


def test_poison_evaluate_and_run_report_alike(source: Path, staged: Path, victim: Path, tmp_path: Path):
    file, out = tmp_path / "run.json", tmp_path / "badnets"
    for outcome in ("done", "nothing to do"):
        assert zipbatch("poison", source, "--attack", "badnets", "--out", out, "--summary", file).code == 0
        assert (summary(file)["command"], summary(file)["outcome"]) == ("poison", outcome)
        if outcome == "done":
            assert summary(file)["counts"]["computed"] == summary(file)["counts"]["total"] == 48

    assert zipbatch("evaluate", victim, "--data", staged, "--summary", file).code == 0
    value = summary(file)
    assert (value["command"], value["dataset"], value["outcome"]) == ("evaluate", "tiny-badnets", "done")
    assert (value["counts"]["unit"], value["counts"]["done"], value["counts"]["left"]) == ("shards", 6, 0)

    pipeline = tmp_path / "two.yaml"
    pipeline.write_text(f"stages:\n  shards: {{run: poison, source: {source}, attack: badnets}}\n")
    for outcome, counts in (("done", (1, 0)), ("nothing to do", (0, 1))):
        assert zipbatch("run", pipeline, "--out", tmp_path / "out", "--summary", file).code == 0
        value = summary(file)
        assert (value["command"], value["outcome"]) == ("run", outcome)
        assert (value["counts"]["unit"], value["counts"]["computed"], value["counts"]["reused"]) == ("stages", *counts)


# ---- what is printed


def test_quiet_prints_nothing_unless_something_fails(shards: Path, tmp_path: Path):
    store = tmp_path / "pur"
    ran = blur(shards, "--store", store, "--json", before=("-q",))
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    ran = zipbatch("-q", "run", "demo", "--dry-run")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    damaged = next((store / "objects").glob("??/*.tar"))
    damaged.write_bytes(b"")
    ran = zipbatch("-q", "store", "verify", "--store", store)
    assert ran.code == 1
    assert damaged.name in ran.out
    assert ran.err.startswith("error: ")
    assert zipbatch("-q", "store", "ls", "--store", tmp_path / "nosuch").err.count("\n") == 1


@pytest.mark.parametrize("how", ["flag", "variable"])
def test_json_lines_and_nothing_else_on_stderr(shards: Path, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch):
    flag: tuple[str, ...] = ("--log-format", "json")
    if how == "variable":
        monkeypatch.setenv("ZIPBATCH_LOG_FORMAT", "json")
        flag = ()
    (shards / "test-000003.tar").write_text("no tar")
    ran = blur(shards, "--store", tmp_path / "pur", "--summary", tmp_path / "run.json", before=(*flag, "-v"))
    assert ran.code == 1
    lines = log_of(ran)
    assert {line["run"] for line in lines} == {summary(tmp_path / "run.json")["run"]}
    by_shard = {line["shard"]: line for line in lines if "shard" in line}
    assert len(by_shard) == 6
    assert by_shard["test-000000.tar"]["samples"] == 2
    assert by_shard["test-000000.tar"]["seconds"] > 0
    assert ":" in by_shard["test-000000.tar"]["worker"]
    assert "no tar" in by_shard["test-000003.tar"]["message"] or "test-000003" in by_shard["test-000003.tar"]["message"]
    assert (lines[-1]["level"], "1 of 6 shards failed" in lines[-1]["message"]) == ("error", True)


@pytest.mark.parametrize(
    "wrong", [("purifi",), ("purify",), ("purify", "x", "--store", "y", "--steps", "z"), ("--no",)]
)
def test_usage_errors_are_json_lines_too(wrong: tuple[str, ...], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ZIPBATCH_LOG_FORMAT", "json")
    ran = zipbatch(*wrong)
    assert ran.code == 2
    (line,) = log_of(ran)
    assert line["level"] == "error"


def test_prints_of_a_pipeline_are_json_lines(source: Path, tmp_path: Path):
    pipeline = tmp_path / "one.yaml"
    pipeline.write_text(f"stages:\n  shards: {{run: poison, source: {source}, attack: badnets}}\n")
    ran = zipbatch("--log-format", "json", "run", pipeline, "--out", tmp_path / "out")
    assert ran.code == 0
    assert any("shards" in line["message"] for line in log_of(ran))


def test_an_unknown_log_format_is_refused():
    ran = zipbatch("--log-format", "xml", "ls", "attacks")
    assert (ran.code, ran.out) == (2, "")
    assert "'text', 'json'" in ran.err


# ---- time


def test_time_that_is_up_before_the_first_shard(shards: Path, tmp_path: Path):
    file, options = tmp_path / "run.json", (shards, "--store", tmp_path / "pur", "--summary", tmp_path / "run.json")
    ran = blur(*options, "--max-hours", 0)
    assert (ran.code, ran.out) == (1, "")
    assert "time is up: 0 of 6 shards are done and kept, 6 left" in ran.err
    assert "the same command goes on" in ran.err
    assert (summary(file)["outcome"], summary(file)["exit_code"]) == ("time is up", 1)
    assert summary(file)["counts"]["left"] == 6
    assert blur(*options, "--max-hours", 1).code == 0
    assert blur(*options, "--max-hours", 0).code == 0, "what is done already needs no time"


def test_when_time_is_up_shards_in_hand_are_finished_and_kept(shards: Path, tmp_path: Path):
    def request(store: Path) -> PurifyJob:
        return PurifyJob(
            dataset=open_dataset([str(shards)]),
            spec=purifier_spec(preset="blur"),
            store=Store(store),
            workers=Workers(),
        )

    whole = purify(plan_purify(request(tmp_path / "whole")))
    stop_at = time.monotonic() + 0.5
    done: list[int] = []

    def slow(progress: Progress) -> None:
        done.append(progress.part("shards").done)
        time.sleep(max(0.0, stop_at - time.monotonic()) if done[-1] else 0.0)

    with pytest.raises(TimeIsUp, match="no version was published"):
        purify(plan_purify(request(tmp_path / "pur")), on_progress=slow, stop_at=stop_at)
    assert 1 <= done[-1] <= 3  # two were in hand, and one more if the first was quick
    assert len(list((tmp_path / "pur" / "tasks").glob("??/*.json"))) == done[-1]
    assert not list((tmp_path / "pur" / "versions").rglob("*.json"))
    rest = purify(plan_purify(request(tmp_path / "pur")))
    assert (rest.version, rest.computed) == (whole.version, 6 - done[-1])


# ---- the lock


def test_a_run_keeps_out_of_the_way_of_another(shards: Path, tmp_path: Path):
    store, file = tmp_path / "pur", tmp_path / "run.json"
    lock = RunLock(lock_file(store, "in"))
    assert lock.take(run="theirs", now=time.time())
    options = (shards, "--store", store, "--summary", file, "--lock")
    skipped = blur(*options, "skip")
    assert (skipped.code, skipped.out, skipped.err) == (0, "", "")
    assert not file.exists(), "the report is for the run that has the lock"
    assert "theirs" in blur(*options, "skip", before=("-v",)).err
    failed = blur(*options, "fail")
    assert failed.code == 1
    assert "another run has the lock" in failed.err
    assert "run theirs" in failed.err
    waited = blur(*options, "wait", "--max-hours", 0)
    assert waited.code == 1
    assert "time is up" in waited.err
    other = blur(shards, "--store", store, "--name", "other", "--lock", "fail")
    assert other.code == 0, "another dataset has another lock"
    lock.release()
    assert blur(*options, "fail").code == 0
    assert blur(*options, "fail").code == 0, "the lock is let go"


def test_a_run_that_waits_goes_on_when_the_other_has_ended(shards: Path, tmp_path: Path):
    store = tmp_path / "pur"
    lock = RunLock(lock_file(store, "in"))
    assert lock.take(run="theirs", now=time.time())
    command = [sys.executable, "-m", "zipbatch", "purify", shards, "--store", store, "--purifier", "blur"]
    with subprocess.Popen([*command, "--lock", "wait"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "waiting for it" in process.stderr.readline()
        assert not (store / "objects").exists()
        lock.release()
        assert process.wait(60) == 0
    assert blur(shards, "--store", store, "--json").json["reused"] == 6


# ---- streams and disks


def run_shell(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=False)


ZIPBATCH = f"{sys.executable} -m zipbatch"


def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Path):
    ran = run_shell(f"{{ {ZIPBATCH} ls presets; echo $? >{tmp_path}/code; }} | true")
    assert ran.stderr == ""
    assert (tmp_path / "code").read_text() in {"0\n", "1\n"}  # 0 when it was written before the reader had gone


@pytest.mark.parametrize("style", [pytest.param("text", marks=pytest.mark.slow), "json"])
def test_a_terminal_that_is_gone_does_not_take_the_report_with_it(shards: Path, tmp_path: Path, style: str):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "zipbatch", "--log-format", style, "purify", str(shards), "--store", "x"]
    options = ["--purifier", "nosuch", "--summary", str(tmp_path / "run.json")]
    ran = subprocess.run([*command, *options], stdout=write, stderr=write, check=False)
    os.close(write)
    assert ran.returncode == 2
    assert "nosuch" in summary(tmp_path / "run.json")["error"]


def test_closed_streams_harm_nothing(shards: Path, tmp_path: Path):
    ran = run_shell(f"{ZIPBATCH} purify {shards} --store {tmp_path}/pur --purifier blur >&- 2>&- <&-")
    assert ran.returncode == 0
    assert verify(Store(tmp_path / "pur")).faults == ()
    assert blur(shards, "--store", tmp_path / "pur", "--json").json["reused"] == 6


def test_a_limit_on_file_sizes_publishes_nothing_half(tmp_path: Path):
    folder, store = tmp_path / "in", tmp_path / "pur"
    for number, count in enumerate((2, 200)):
        write_shard(folder / f"test-{number}.tar", [sample(f"{number}-{i}", 1, seed=i) for i in range(count)])
    command = [sys.executable, "-m", "zipbatch", "purify", folder, "--store", store, "--purifier", "blur"]
    ran = subprocess.run(
        [*command, "--summary", tmp_path / "run.json"],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000)),
    )
    assert ran.returncode == 1
    assert "File too large" in ran.stderr
    assert (summary(tmp_path / "run.json")["counts"]["done"], summary(tmp_path / "run.json")["outcome"]) == (
        1,
        "failed",
    )
    assert not list((store / "versions").rglob("*.json"))
    assert len(list((store / "objects").glob("??/*"))) == 1
    assert not list(store.rglob(".tmp-*"))
    assert verify(Store(store)).faults == ()
    assert blur(folder, "--store", store, "--json").json["computed"] == 1
