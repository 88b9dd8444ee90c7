"""``python -m tests.gpu``, which ``make gpu`` runs: what it says where there is no GPU, and its report."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.gpu import __main__ as gpu


def test_without_a_gpu_nothing_is_tested_and_that_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["gpu", "--report", str(tmp_path / "report.json")])
    assert gpu.main() == gpu.NOTHING_TESTED
    assert capsys.readouterr().err.endswith(": nothing was tested\n")
    assert not list(tmp_path.iterdir())


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpu, "find_spec", lambda name: None if name == "diffusers" else name)
    assert "lacks diffusers" in str(gpu._unfit())


def test_the_report_has_card_figures_and_outcomes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def tests(options: list[str], plugins: list[gpu.Report]) -> int:
        assert options[:2] == ["-m", "gpu"]
        for report in (
            phase("a", "setup", "passed"),
            phase("a", "call", "passed", user_properties=[("images_per_s", 7.5)]),
            phase("b", "setup", "skipped", longrepr=("file", 1, "Skipped: no ray")),
            phase("c", "call", "failed", longrepr="assert 1 == 2"),
        ):
            plugins[0].pytest_runtest_logreport(report)
        return 1

    monkeypatch.setattr(gpu, "_unfit", lambda: None)
    monkeypatch.setattr(gpu, "machine", lambda: {"card": "a card"})
    monkeypatch.setattr(pytest, "main", tests)
    monkeypatch.setattr("sys.argv", ["gpu", "--report", str(tmp_path / "report.json")])
    assert gpu.main() == 1
    told = json.loads((tmp_path / "report.json").read_text())
    assert (told["machine"], told["exit_code"]) == ({"card": "a card"}, 1)
    assert [(one["test"], one["outcome"], one.get("reason")) for one in told["tests"]] == [
        ("a", "passed", None),
        ("b", "skipped", "Skipped: no ray"),
        ("c", "failed", "assert 1 == 2"),
    ]
    assert told["tests"][0]["figures"] == {"images_per_s": 7.5}


def phase(name: str, when: str, outcome: str, **more: object) -> SimpleNamespace:
    fixed = {"nodeid": f"tests/gpu/test.py::{name}", "duration": 0.5, "longrepr": None, "user_properties": []}
    return SimpleNamespace(**{**fixed, "when": when, "outcome": outcome, **more})
