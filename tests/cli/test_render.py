"""What a run shows while it works: lines, bars, and reports that follow it."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.making import write_source, zipbatch
from zipbatch.cli import render as screens
from zipbatch.cli.render import Screen, Ticker
from zipbatch.cli.run_context import RunContext
from zipbatch.report.counts import Counts
from zipbatch.report.progress import Part, Progress


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Three bare shards of four images."""
    return write_source(tmp_path / "in", counts={"test": 12}, shards=3)


def metrics(file: Path) -> dict[str, float]:
    found = text_string_to_metric_families(file.read_text())
    return {line.name: line.value for family in found for line in family.samples if "state" not in line.labels}


def running(tmp_path: Path, **changes: object) -> RunContext:
    run = RunContext(command="purify", summary=tmp_path / "run.json", metrics=tmp_path / "run.prom", dataset="in")
    run.counts = Counts(unit="shards", total=9, computed=2, reused=1, samples=30)
    return run


def wait_for(is_so, seconds: float = 10) -> bool:
    until = time.monotonic() + seconds
    while not is_so() and time.monotonic() < until:
        time.sleep(0.01)
    return is_so()


# ---- reports


def test_reports_follow_a_run_and_end_as_ever(tmp_path: Path):
    before = running(tmp_path)
    before.write_reports(0, None)
    ended, old = json.loads(before.summary.read_bytes()), metrics(before.metrics)

    run = running(tmp_path)
    run.refresh()
    now, during = json.loads(run.summary.read_bytes()), metrics(run.metrics)
    assert now.keys() == ended.keys()
    assert (now["outcome"], now["exit_code"], now["ended"]) == ("running", None, None)
    assert now["counts"]["done"] == 3
    assert {name: during[name] for name in old} == old, "what is said of the last run stays until this one has ended"
    assert during["zipbatch_run_started_timestamp_seconds"] == pytest.approx(run.started, abs=0.01)
    assert during["zipbatch_run_samples"] == 30
    run.refresh()
    assert metrics(run.metrics).keys() == during.keys()

    run.write_reports(1, "broken")
    after = json.loads(run.summary.read_bytes())
    assert (after["outcome"], after["exit_code"], after["error"]) == ("failed", 1, "broken")
    assert metrics(run.metrics).keys() == old.keys()
    assert (
        metrics(run.metrics)["zipbatch_last_success_timestamp_seconds"]
        == old["zipbatch_last_success_timestamp_seconds"]
    )
    run.refresh()
    assert json.loads(run.summary.read_bytes()) == after, "a late tick does not bring a run back to life"


def test_a_long_run_refreshes_its_reports_by_itself(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from zipbatch.stages.purify import run as stage

    monkeypatch.setattr(screens, "REFRESH_EVERY_S", 0.05)
    file, seen = tmp_path / "run.json", list[str]()
    whole = stage.publish_version

    def slow(*arguments: object, **named: object) -> object:
        assert wait_for(lambda: file.exists() and json.loads(file.read_bytes())["counts"]["done"] == 3)
        seen.append(json.loads(file.read_bytes())["outcome"])
        return whole(*arguments, **named)

    monkeypatch.setattr(stage, "publish_version", slow)
    options = ("--purifier", "blur", "--store", tmp_path / "pur", "--summary", file)
    assert zipbatch("purify", shards, *options).code == 0
    assert seen == ["running"]
    assert json.loads(file.read_bytes())["outcome"] == "done"


# ---- the ticker


def test_a_ticker_survives_errors_tells_them_once_and_ends(caplog: pytest.LogCaptureFixture):
    calls: list[int] = []

    def job() -> None:
        calls.append(1)
        raise OSError(28, "No space left on device")

    ticker = Ticker((0.01, job))
    ticker.start()
    assert wait_for(lambda: len(calls) > 3)
    ticker.stop()
    count = len(calls)
    time.sleep(0.05)
    assert len(calls) == count
    assert [record.message for record in caplog.records if "No space left" in record.message] != []
    assert len(caplog.records) == 1


def test_a_ticker_that_hangs_does_not_keep_the_process():
    code = (
        "import time; from zipbatch.cli.render import Ticker\n"
        "ticker = Ticker((0.01, lambda: time.sleep(600))); ticker.start(); time.sleep(0.2)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode == 0


# ---- lines


def test_off_a_terminal_a_start_line_and_one_a_minute(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(screens, "LINE_EVERY_S", 0.02)
    from zipbatch.stages.purify import run as stage

    whole = stage.publish_version
    monkeypatch.setattr(stage, "publish_version", lambda *a, **k: (time.sleep(0.2), whole(*a, **k))[1])
    options = ("purify", shards, "--purifier", "blur", "--store")
    first, *others = zipbatch(*options, tmp_path / "a").err.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d purifying in: 3 shards: 0 done before; no earlier run tells .*", first)
    assert any(re.search(r"purifying in: 3/3 shards 12 images .*reused 0 failed 0", line) for line in others)

    ran = zipbatch("--log-format", "json", *options, tmp_path / "b")
    lines = [json.loads(line) for line in ran.err.splitlines()]
    assert {"run", "time", "level"} <= lines[0].keys()
    assert lines[-1]["progress"]["shards"] == {"done": 3, "total": 3}
    assert zipbatch("-q", *options, tmp_path / "c").err == ""


def test_a_second_run_tells_how_long_it_may_take(shards: Path, tmp_path: Path):
    options = ("--purifier", "median", "--store", tmp_path / "pur")
    assert zipbatch("purify", shards, *options).code == 0
    write_source(tmp_path / "more", counts={"test": 12}, shards=5)
    dry = zipbatch("purify", tmp_path / "more", *options, "--dry-run", "--json").json
    assert 0 <= dry["estimated_seconds"] < 60
    assert dry["bytes"] == sum(file.stat().st_size for file in (tmp_path / "more").glob("*.tar"))
    text = zipbatch("purify", tmp_path / "more", *options, "--dry-run").out
    assert re.search(r"less than a minute, as \d shards? before took", text)
    assert not re.search(r"[{}\[\]]|None|True|False", text)
    assert max(map(len, text.splitlines()[1:])) <= 80
    other = zipbatch("purify", tmp_path / "more", *options[2:], "--purifier", "blur", "--dry-run").out
    assert "no earlier shard of this purifier" in other


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
@pytest.mark.parametrize("what", ["work", "purifying " + "a-long-name" * 6])
def test_the_line_of_a_terminal_fits_it(width: int, what: str):
    from rich.console import Console

    shown = Screen(RunContext(), lines=False)
    parts = (Part("shards", 1, 3), Part("images", 97, 180))
    shown.show(Progress(what=what, parts=parts, per_s=4.1, notes=("reused 0", "failed 0")))
    console = Console(width=width, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(shown.line(width))
    (line,) = capture.get().splitlines()
    assert len(line.rstrip()) <= width
    assert "1/3 shards" in line
    if width >= 80:
        assert "1/3 shards 97/180 images 4.1/s ETA -:-- reused 0 failed 0" in line


def test_a_terminal_shows_a_bar_in_images_and_results_after_it(shards: Path, tmp_path: Path):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "zipbatch", "purify", shards, "--purifier", "blur", "--store", tmp_path / "pur"]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    with subprocess.Popen([*map(str, command)], stderr=theirs, stdout=subprocess.PIPE, env=environment) as process:
        os.close(theirs)
        seen = b""
        while True:
            try:
                seen += os.read(ours, 65536)
            except OSError:
                break
            if process.poll() is not None and not seen:
                break
        out = process.stdout.read().decode() if process.stdout else ""
        assert process.wait(60) == 0
    os.close(ours)
    assert "purifying in" in seen.decode()
    assert re.search(r"3/3 shards 12 images", seen.decode())
    assert "3 shards, 12 images: 3 computed" in out
