"""Packages follow a run beside it: what they are told, and that they neither slow it nor make it fail."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from zipbatch.report.progress import Part, Progress
from zipbatch.tracking import Choice, Following, TrackedRun, Tracker, following
from zipbatch.tracking.values import plain_name

RUN = TrackedRun("one", "r-1", {"lr": 0.1})


@dataclass
class Remembering:
    """Notes what it is told. ``hold`` makes it wait, ``fails`` makes every call an error."""

    calls: list[tuple[Any, ...]] = field(default_factory=list)
    hold: threading.Event | None = None
    fails: BaseException | None = None

    def progress(self, group: str, values: Mapping[str, float], step: int) -> None:
        if self.hold is not None:
            self.hold.wait(10)
        if self.fails is not None:
            raise self.fails
        self.calls.append((group, dict(values), step))

    def final(self, values: Mapping[str, float]) -> None:
        self.calls.append(("final", dict(values)))

    def end(self, *, ok: bool) -> None:
        self.calls.append(("end", ok))


def followed_by(monkeypatch: pytest.MonkeyPatch, tracker: Tracker, *, begin: BaseException | None = None) -> Following:
    def load(_choice: Choice) -> Any:
        def begun(run: TrackedRun) -> Tracker:
            assert run == RUN
            if begin is not None:
                raise begin
            return tracker

        return begun

    monkeypatch.setattr(Choice, "load", load)
    return Following((Choice("tensorboard"),), RUN)


def epoch(number: int, images: int, loss: float) -> Progress:
    return Progress(parts=(Part("epochs", number, 3), Part("images", images, 100)), per_s=50.0, measures={"loss": loss})


def test_it_is_told_steps_and_ends(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(following, "EVERY_S", 0.0)
    tracker = Remembering()
    run = followed_by(monkeypatch, tracker)
    run.progress(epoch(1, 20, 2.0))
    run.progress(epoch(2, 20, 1.5))
    run.progress(Progress(parts=(Part("steps", 7, 9),), measures={"eps-MSE": 0.5}), group="prior[a, b]")
    run.progress(Progress(what="waiting"))
    run.final({"ca": 0.9, "asr": None})
    run.close(ok=True)
    assert tracker.calls == [
        ("", {"loss": 2.0, "images_per_s": 50.0}, 20),
        ("", {"loss": 1.5, "images_per_s": 50.0}, 120),
        ("prior/a-b", {"eps-MSE": 0.5}, 7),
        ("final", {"ca": 0.9}),
        ("end", True),
    ]


def test_once_a_second_and_the_last_one_in_any_case(monkeypatch: pytest.MonkeyPatch):
    """Measures that stay while held-out images are measured are of the step at which they came."""
    tracker = Remembering()
    run = followed_by(monkeypatch, tracker)
    for images in range(10, 100, 10):
        run.progress(epoch(1, images, 3.0 - images / 100))
    for images in (1, 2, 3):
        run.progress(epoch(1, images, 3.0 - 90 / 100))
    run.close(ok=False)
    assert [(call[0], *call[2:]) for call in tracker.calls[:-1]] == [("", 10), ("", 90)]
    assert tracker.calls[-1] == ("end", False)


@pytest.mark.parametrize("error", [ValueError("http://me:secret@host is away\nmore"), SystemExit(3)])
def test_one_that_fails_is_told_once_and_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: BaseException
):
    monkeypatch.setattr(following, "EVERY_S", 0.0)
    tracker = Remembering(fails=error)
    run = followed_by(monkeypatch, tracker)
    for number in range(5):
        run.progress(epoch(1, number, float(number)))
    run.close(ok=True)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert warnings[0].startswith(f"no longer tracked with tensorboard: {type(error).__name__}")
    assert "secret" not in warnings[0]
    assert tracker.calls == []


def test_one_that_cannot_begin_is_left(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    run = followed_by(monkeypatch, Remembering(), begin=OSError("no server"))
    run.final({"ca": 1.0})
    run.close(ok=True)
    assert [record.getMessage() for record in caplog.records] == [
        "no longer tracked with tensorboard: OSError: no server; the run goes on"
    ]


def test_one_that_is_broken_is_left(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setitem(following.__dict__["Choice"].load.__globals__["TRACKERS"], "mlflow", "no.such.module:X")
    run = Following((Choice("mlflow"),), RUN)
    run.progress(epoch(1, 1, 1.0))
    run.close(ok=True)
    assert "no longer tracked with mlflow: ModuleNotFoundError" in caplog.text


def test_one_that_hangs_is_left_to_itself(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(following, "WAIT_S", 0.05)
    hold = threading.Event()
    run = followed_by(monkeypatch, Remembering(hold=hold))
    run.progress(epoch(1, 1, 1.0))
    run.close(ok=True)
    hold.set()
    assert "tensorboard has not written everything" in caplog.text


def test_nobody_follows():
    run = Following((), RUN)
    run.progress(epoch(1, 1, math.pi))
    run.final({"ca": 1.0})
    run.close(ok=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("purified[badnets, zip]", "purified/badnets-zip"),
        ("victims/../x//y:1", "victims/x/y_1"),
        ("blur blur:2", "blur blur_2"),
    ],
)
def test_names_that_all_packages_take(text: str, expected: str):
    assert plain_name(text) == expected
    assert ".." not in Path(plain_name(text)).parts
