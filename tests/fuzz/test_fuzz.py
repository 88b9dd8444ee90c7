"""A few dozen damaged inputs for each parser; ``python tests/fuzz/run.py`` takes thousands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.campaign import run
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_input_is_read_or_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if name == "onnx":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    result = run(name, tmp_path / "fuzz", inputs=max(6, 40 // TARGETS[name].cost), seed="quick")
    assert [f"input {found.index}: {found.how}" for found in result.findings] == []
    assert list((tmp_path / "cwd").iterdir()) == []
    assert sum(result.refused.values()) > 0 or name in {"task", "inputs", "yaml"}  # these take damage for absence
