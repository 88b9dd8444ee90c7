"""The exit code of a run that a signal stops, wherever the signal finds it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WITHIN_EXEC = """
import signal
from zipbatch.cli.main import cli, main

signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore it

def command(**_):
    exec("import os, signal, time; os.kill(os.getpid(), signal.{name}); time.sleep(60)")

cli.main = command
main()
"""


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_that_finds_a_run_within_exec(tmp_path: Path, name: str, code: int):
    (tmp_path / "stopped.py").write_text(WITHIN_EXEC.format(name=name))
    command = [sys.executable, "-m", "stopped"]
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": ""}
    ran = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert ran.returncode == code, ran.stderr
    assert "run the same command again" in ran.stderr
