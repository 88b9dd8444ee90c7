"""What a run leaves for those who were not there."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.making import files_below
from zipbatch import __version__
from zipbatch.report.counts import Counts
from zipbatch.report.run import ENDINGS, RunReport, Verdict, metrics_text, write_metrics, write_summary

REPORT = RunReport(
    run="20260131T030000Z-1f9a3c7e",
    command="purify",
    outcome="failed",
    exit_code=1,
    started=1_769_828_400.0,
    ended=1_769_828_461.5,
    error="1 of 9 shards failed",
    dataset="incoming",
    store="/srv/pur",
    counts=Counts(unit="shards", total=9, computed=3, reused=4, failed=1, samples=700),
    failed={"b.tar": "key 'x': no image"},
)
DONE = replace(REPORT, outcome="done", exit_code=0, error=None, failed={}, version="abc", tags=("nightly", "latest"))
FOUND = Verdict(
    finding="backdoored",
    findings=("nothing found", "backdoored"),
    flip_rate=0.25,
    suspects={'the "ship"': 27},
    asked=60,
    reused=40,
)


def parsed(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    """Values by metric and by the labels that are not the same everywhere, read by Prometheus' own parser."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        assert family.type == "gauge"
        assert family.documentation
        for line in family.samples:
            labels = {k: v for k, v in line.labels.items() if k not in {"command", "dataset"}}
            found.setdefault(line.name, {})[tuple(labels.values())] = line.value
    return found


def test_an_audit_tells_its_verdict_and_suspects(tmp_path: Path):
    report = replace(DONE, command="audit", exit_code=3, verdict=FOUND)
    found = parsed(metrics_text(report, last_success=None))
    assert found["zipbatch_last_run_verdict"] == {("nothing found",): 0, ("backdoored",): 1}
    assert found["zipbatch_last_run_suspect_images"] == {('the "ship"',): 27}
    assert found["zipbatch_last_run_flip_rate"] == {(): 0.25}
    write_summary(tmp_path / "run.json", report)
    audit = json.loads((tmp_path / "run.json").read_bytes())["audit"]
    measured = {"flip_rate": 0.25, "suspect_images": {'the "ship"': 27}}
    assert audit == {"verdict": "backdoored", **measured, "answers": {"asked": 60, "reused": 40}}
    assert found["zipbatch_last_run_answers"] == {("asked",): 60, ("reused",): 40}
    clean = replace(report, verdict=replace(FOUND, finding="nothing found", suspects={}))
    assert "zipbatch_last_run_suspect_images" not in parsed(metrics_text(clean, last_success=None))
    assert "audit" not in metrics_text(DONE, last_success=None)


def test_counts_add_up():
    counts = Counts(unit="shards", total=9, computed=3, reused=4, failed=1)
    assert (counts.done, counts.left) == (7, 1)
    assert Counts(unit="images", total=None, computed=3).left is None


def test_a_summary_has_everything(tmp_path: Path):
    write_summary(tmp_path / "run.json", REPORT)
    value = json.loads((tmp_path / "run.json").read_bytes())
    assert value.pop("host")
    assert value.pop("pid") > 0
    versions = value.pop("versions")
    assert versions["zipbatch"] == __version__
    assert {"python", "torch", "ray", "numpy"} <= versions.keys()
    assert value == {
        "format_version": 1,
        "run": "20260131T030000Z-1f9a3c7e",
        "command": "purify",
        "outcome": "failed",
        "exit_code": 1,
        "error": "1 of 9 shards failed",
        "started": "2026-01-31T03:00:00.000Z",
        "ended": "2026-01-31T03:01:01.500Z",
        "seconds": 61.5,
        "dataset": "incoming",
        "store": "/srv/pur",
        "version": None,
        "tags": [],
        "latest_left": None,
        "tags_left": {},
        "counts": {
            "unit": "shards",
            "total": 9,
            "done": 7,
            "computed": 3,
            "reused": 4,
            "failed": 1,
            "left": 1,
            "samples": 700,
            "quarantined": None,
        },
        "failed": [{"name": "b.tar", "reason": "key 'x': no image"}],
    }


def test_metrics_are_what_prometheus_reads():
    values = parsed(metrics_text(DONE, last_success=None))
    assert values == {
        "zipbatch_last_success_timestamp_seconds": {(): 1_769_828_461.5},
        "zipbatch_last_run_timestamp_seconds": {(): 1_769_828_461.5},
        "zipbatch_last_run_duration_seconds": {(): 61.5},
        "zipbatch_last_run_exit_code": {(): 0},
        "zipbatch_last_run_outcome": {(name,): float(name == "done") for name in ENDINGS},
        "zipbatch_last_run_shards": {("computed",): 3, ("reused",): 4, ("failed",): 1, ("left",): 1},
        "zipbatch_last_run_samples": {(): 700},
    }


def test_the_last_success_outlives_failures(tmp_path: Path):
    file = tmp_path / "z.prom"
    write_metrics(file, REPORT)
    assert "zipbatch_last_success_timestamp_seconds" not in parsed(file.read_text())
    write_metrics(file, DONE)
    for code in (1, 130):
        write_metrics(file, replace(REPORT, exit_code=code, ended=REPORT.ended + 86_400 + code))
        values = parsed(file.read_text())
        assert values["zipbatch_last_success_timestamp_seconds"] == {(): DONE.ended}
        assert values["zipbatch_last_run_timestamp_seconds"] == {(): REPORT.ended + 86_400 + code}
        assert values["zipbatch_last_run_exit_code"] == {(): code}
    assert list(files_below(tmp_path)) == ["z.prom"]


def test_a_file_of_something_else_is_no_success(tmp_path: Path):
    file = tmp_path / "z.prom"
    for data in (b"\xff\xfe", b"zipbatch_last_success_timestamp_seconds nonsense\n", b""):
        file.write_bytes(data)
        write_metrics(file, REPORT)
        assert "zipbatch_last_success_timestamp_seconds" not in parsed(file.read_text())


@pytest.mark.parametrize("name", ['quote"', "back\\slash", "new\nline", "ü {x=}"])
def test_labels_are_escaped(name: str):
    families = text_string_to_metric_families(metrics_text(replace(DONE, dataset=name), last_success=None))
    assert {line.labels["dataset"] for family in families for line in family.samples} == {name}


def test_large_times_keep_their_milliseconds():
    text = metrics_text(replace(DONE, ended=9_999_999_999.123), last_success=None)
    assert math.isclose(parsed(text)["zipbatch_last_run_timestamp_seconds"][()], 9_999_999_999.123, abs_tol=1e-6)


def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path):
    write_metrics(tmp_path / "z.prom", DONE)
    before = files_below(tmp_path)
    with pytest.raises(OSError, match="nosuch"):
        write_metrics(tmp_path / "z.prom" / "nosuch" / "z.prom", DONE)
    assert files_below(tmp_path) == before


def test_the_manual_names_metrics_that_exist():
    manual = (Path(__file__).resolve().parent.parent.parent / "docs" / "operations.md").read_text()
    named = set(re.findall(r"zipbatch_last_[a-z_]+[a-z]", manual))
    assert len(named) > 4
    assert named <= parsed(metrics_text(replace(DONE, verdict=FOUND), last_success=None)).keys()
    (rules,) = re.findall(r"^```yaml\n(groups:\n.*?)^```$", manual, re.MULTILINE | re.DOTALL)
    (group,) = yaml.safe_load(rules)["groups"]
    assert all({"alert", "expr", "labels"} <= rule.keys() for rule in group["rules"])
    outcomes = {name for rule in group["rules"] for name in re.findall(r'outcome="([^"]+)"', rule["expr"])}
    assert outcomes <= set(ENDINGS)
