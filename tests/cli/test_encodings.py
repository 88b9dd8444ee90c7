"""What is printed and what is written, whatever the locale and whatever bytes names are made of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.making import write_source, zipbatch
from zipbatch.cli.main import COMMANDS

ODD = os.fsdecode(b"\xffodd\xe9")
"""A name that is not UTF-8."""


def run(*arguments: object, encoding: str = "utf-8", **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(  # noqa: PLW1510 (its code is the result)
        [sys.executable, "-m", "zipbatch", *map(str, arguments)],
        env={**os.environ, "PYTHONIOENCODING": encoding, **environment},
        capture_output=True,
        timeout=120,
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252:strict"])
def test_help_of_every_command_can_be_printed(encoding: str):
    """In one process: the streams are set up once, before any command."""
    code = (
        "import sys\n"
        "from zipbatch.cli.main import _print_what_can_be_printed, _run\n"
        "_print_what_can_be_printed()\n"
        f"for command in {[*COMMANDS]!r}:\n"
        "    sys.argv = ['zipbatch', command, '-h']\n"
        "    assert _run() == 0, command\n"
    )
    ran = subprocess.run(  # noqa: PLW1510 (asserted below)
        [sys.executable, "-c", code], env={**os.environ, "PYTHONIOENCODING": encoding}, capture_output=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    assert b"UnicodeEncodeError" not in ran.stderr


@pytest.mark.parametrize("encoding", ["ascii", pytest.param("latin-1", marks=pytest.mark.slow)])
def test_a_result_outlives_a_terminal_that_cannot_show_it(victim: Path, tmp_path: Path, encoding: str):
    """The table has letters that the terminal lacks; JSON says them all, escaped."""
    data = write_source(tmp_path / "日本", counts={"day": 3}, shards=1)
    table = run("evaluate", victim, "--data", data, encoding=encoding)
    assert table.returncode == 0, table.stderr
    assert b"no defence" in table.stdout
    printed = run("evaluate", victim, "--data", data, "--json", encoding=encoding)
    assert printed.returncode == 0
    assert json.loads(printed.stdout)["rows"][0]["data"] == str(data)


def test_a_shard_whose_name_cannot_be_listed_is_told_before_any_work(tmp_path: Path):
    data = write_source(tmp_path / "in", counts={"day": 3}, shards=1)
    (data / "day-000000.tar").rename(data / f"{ODD}.tar")
    ran = zipbatch("purify", data, "--purifier", "blur", "--store", tmp_path / "pur")
    assert (ran.code, ran.out) == (2, "")
    assert "is not UTF-8; rename it" in ran.err
    assert not (tmp_path / "pur").exists()


def test_folders_may_have_any_name(victim: Path, tmp_path: Path):
    """Input, store, summary, sheet: what is printed of them are the bytes that they have."""
    data = write_source(tmp_path / f"{ODD}-in", counts={"test": 3}, shards=1)
    store, summary, metrics = tmp_path / f"{ODD}-pur", tmp_path / "s.json", tmp_path / "m.prom"
    reports = ("--summary", summary, "--metrics", metrics)
    ran = run("purify", data, "--name", "in", "--purifier", "blur", "--store", store, *reports)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(summary.read_text())["store"] == str(store)
    assert metrics.read_bytes().decode()
    listed = run("store", "urls", "in", "--store", store)
    assert Path(os.fsdecode(listed.stdout.rstrip(b"\n"))).is_file()
    asked = ("evaluate", victim, "--data", data, "--purified", "in", "--store", store)
    ran = run(*asked, "--sheet", tmp_path / f"{ODD}.png", "--json")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["rows"][0]["data"] == str(data)
    assert (tmp_path / f"{ODD}.png").is_file()
