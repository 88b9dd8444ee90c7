"""What a run came to, for those who were not there: a JSON summary, and a page for Prometheus."""

from __future__ import annotations

import os
import platform
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Literal, get_args

from zipbatch import __version__, atomic
from zipbatch.logs import utc
from zipbatch.report.counts import Counts

Ending = Literal["done", "nothing to do", "failed", "not tagged", "time is up", "interrupted"]
State = Ending | Literal["running"]
ENDINGS: tuple[Ending, ...] = get_args(Ending)
_LIBRARIES = ("torch", "torchvision", "numpy", "diffusers", "webdataset", "ray")
_SUCCESS = "zipbatch_last_success_timestamp_seconds"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What an audit came to: its finding, one of ``findings``, the share of answers that purifying changes, suspect
    images by class, and how many answers were asked for, or ``reused``: kept from before.
    """

    finding: str
    findings: tuple[str, ...]
    flip_rate: float
    suspects: Mapping[str, int]
    asked: int = 0
    reused: int = 0

    def as_json(self) -> dict[str, object]:
        """Everything by name."""
        return {
            "verdict": self.finding,
            "flip_rate": self.flip_rate,
            "suspect_images": dict(self.suspects),
            "answers": self.answers,
        }

    @property
    def answers(self) -> dict[str, int]:
        """How many, by where they came from."""
        return {"asked": self.asked, "reused": self.reused}


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """A run. ``started`` and ``ended`` are in seconds since 1970; ``failed`` has a reason by name.

    Of one that goes on, ``outcome`` is "running", there is no exit code, and ``ended`` is now.
    """

    run: str
    command: str
    outcome: State
    exit_code: int | None
    started: float
    ended: float
    error: str | None = None
    dataset: str | None = None
    store: str | None = None
    version: str | None = None
    tags: tuple[str, ...] = ()
    latest_left: str | None = None
    tags_left: Mapping[str, str | None] = field(default_factory=dict)
    counts: Counts | None = None
    failed: Mapping[str, str] = field(default_factory=dict)
    verdict: Verdict | None = None


def write_summary(path: Path, report: RunReport) -> None:
    """Publish a report as JSON; the file is there whole or not at all."""
    value = {
        "format_version": 1,
        "run": report.run,
        "command": report.command,
        "outcome": report.outcome,
        "exit_code": report.exit_code,
        "error": report.error,
        "started": utc(report.started),
        "ended": None if report.outcome == "running" else utc(report.ended),
        "seconds": round(report.ended - report.started, 3),
        "dataset": report.dataset,
        "store": report.store,
        "version": report.version,
        "tags": list(report.tags),
        "latest_left": report.latest_left,
        "tags_left": dict(report.tags_left),
        "counts": None if report.counts is None else report.counts.as_json(),
        "failed": [{"name": name, "reason": reason} for name, reason in sorted(report.failed.items())],
        **({} if report.verdict is None else {"audit": report.verdict.as_json()}),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "versions": {"zipbatch": __version__, "python": platform.python_version(), **_library_versions()},
    }
    atomic.write_json(path, value)


def _library_versions() -> dict[str, str]:
    """Versions of what decides results, without importing it."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def write_metrics(path: Path, report: RunReport) -> None:
    """Publish a report for the textfile collector of Prometheus' node_exporter.

    The time of the last success outlives runs that fail: it is taken from the file that is replaced. So is all that
    the file says of the last run that ended, as long as another goes on.
    """
    if report.outcome == "running":
        text = _of_the_last_run(path) + running_text(report)
    else:
        text = metrics_text(report, last_success=_last_success(path))
    atomic.write_bytes(path, text.encode(errors="replace"))


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _last_success(path: Path) -> float | None:
    found = re.search(rf"^{_SUCCESS}(?:{{.*}})? (\d+(?:\.\d+)?)$", _content(path), re.MULTILINE)
    return float(found.group(1)) if found else None


def _of_the_last_run(path: Path) -> str:
    """The lines of the file that tell of a run that has ended."""
    lines = re.findall(r"^(?:# (?:HELP|TYPE) )?zipbatch_last_\w+[ {].*$", _content(path), re.MULTILINE)
    return "".join(f"{line}\n" for line in lines)


def metrics_text(report: RunReport, *, last_success: float | None) -> str:
    """A report in Prometheus' text format, version 0.0.4.

    Args:
        report: of the run that has just ended.
        last_success: when an earlier run succeeded, in seconds since 1970; counts when this one did not.
    """
    page = _page(report)
    if report.exit_code == 0:
        last_success = report.ended
    if last_success is not None:
        page.gauge(_SUCCESS, "When a run last ended with exit code 0.", last_success)
    page.gauge("zipbatch_last_run_timestamp_seconds", "When the last run ended.", report.ended)
    page.gauge("zipbatch_last_run_duration_seconds", "How long the last run took.", report.ended - report.started)
    if report.exit_code is not None:
        page.gauge("zipbatch_last_run_exit_code", "Exit code of the last run.", report.exit_code)
    outcomes: dict[str, float] = {name: name == report.outcome for name in ENDINGS}
    page.gauges("zipbatch_last_run_outcome", "1 for how the last run ended, 0 for the others.", "outcome", outcomes)
    _add_counts(page, report.counts, "zipbatch_last_run", "the last run")
    _add_verdict(page, report.verdict)
    return page.text


def running_text(report: RunReport) -> str:
    """How far a run has got that goes on, in the same format; gone from the file when it has ended."""
    page = _page(report)
    page.gauge("zipbatch_run_started_timestamp_seconds", "When the run that goes on began.", report.started)
    page.gauge("zipbatch_run_updated_timestamp_seconds", "When this was written.", report.ended)
    _add_counts(page, report.counts, "zipbatch_run", "the run that goes on")
    return page.text


def _page(report: RunReport) -> _Page:
    return _Page({"command": report.command, **({"dataset": report.dataset} if report.dataset else {})})


def _add_counts(page: _Page, counts: Counts | None, prefix: str, whose: str) -> None:
    if counts is None:
        return
    states = {"computed": counts.computed, "reused": counts.reused, "failed": counts.failed}
    states |= {} if counts.left is None else {"left": counts.left}
    page.gauges(f"{prefix}_{counts.unit}", f"What became of the {counts.unit} of {whose}.", "state", states)
    if counts.samples is not None:
        page.gauge(f"{prefix}_samples", "Images in what is done.", counts.samples)
    if counts.quarantined is not None:
        page.gauge(f"{prefix}_quarantined", "Images set aside.", counts.quarantined)


def _add_verdict(page: _Page, verdict: Verdict | None) -> None:
    if verdict is None:
        return
    findings: dict[str, float] = {name: name == verdict.finding for name in verdict.findings}
    page.gauges("zipbatch_last_run_verdict", "1 for what the last audit found, 0 for the others.", "verdict", findings)
    page.gauge("zipbatch_last_run_flip_rate", "Share of answers that purifying changes.", verdict.flip_rate)
    page.gauges("zipbatch_last_run_answers", "Answers of the victim, by where they came from.", "from", verdict.answers)
    if verdict.suspects:
        what = "Images that leave the class which is accused."
        page.gauges("zipbatch_last_run_suspect_images", what, "class", verdict.suspects)


class _Page:
    """Gauges in Prometheus' text format, all with the same labels."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        self._labels, self.text = labels, ""

    def gauge(self, name: str, about: str, value: float) -> None:
        """Add one value."""
        self._head(name, about)
        self._line(name, self._labels, value)

    def gauges(self, name: str, about: str, label: str, values: Mapping[str, float]) -> None:
        """Add values that one more label tells apart."""
        self._head(name, about)
        for text, value in values.items():
            self._line(name, {**self._labels, label: text}, value)

    def _head(self, name: str, about: str) -> None:
        self.text += f"# HELP {name} {about}\n# TYPE {name} gauge\n"

    def _line(self, name: str, labels: Mapping[str, str], value: float) -> None:
        inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        self.text += f"{name}{{{inside}}} {round(value, 3):.15g}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
