"""Ray's start and end: addresses that lead nowhere, signals at any moment, and a stderr of our own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.making import write_source, zipbatch

ROOT = Path(__file__).resolve().parents[2]
_Process = tuple[int, int]
"""Id and start, in ticks since boot."""


@pytest.fixture
def purify(tmp_path: Path) -> list[str]:
    """A command with two Ray workers, and what it leaves when it ends."""
    source = write_source(tmp_path / "in", counts={"day": 8}, shards=4)
    asked = ["purify", source, "--purifier", "median", "--store", tmp_path / "pur", "--workers", 2]
    return [*map(str, asked), "--summary", str(tmp_path / "summary.json")]


@pytest.fixture
def deaf() -> Iterator[int]:
    """The port of somebody who takes calls and never says a word."""
    with closing(socket.socket()) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield listening.getsockname()[1]


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("how", ["flag", "variable"])
def test_an_address_where_nobody_answers_is_told_at_once(
    purify: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str
):
    address = f"127.0.0.1:{free_port()}"
    if how == "variable":
        monkeypatch.setenv("RAY_ADDRESS", address)
    else:
        purify += ["--address", address]
    began = time.monotonic()
    ran = zipbatch(*purify)
    assert (ran.code, ran.out) == (2, "")
    assert f"{'RAY_ADDRESS' if how == 'variable' else '--address'} {address}: nobody answers there" in ran.err
    assert time.monotonic() - began < 20
    assert json.loads((tmp_path / "summary.json").read_text())["outcome"] == "failed"


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://127.0.0.1:8265", "'ray job submit' takes"),
        ("https://head", "'ray job submit' takes"),
        ("head", "is no HOST:PORT"),
        ("head:99999", "is no HOST:PORT"),
        ("tcp://head:6379", "is no HOST:PORT"),
        ("no-such-host.invalid:6379", "nobody answers there"),
    ],
)
def test_an_address_that_is_none(purify: list[str], address: str, words: str):
    ran = zipbatch(*purify, "--address", address)
    assert (ran.code, ran.out) == (2, "")
    assert f"--address {address}" in ran.err
    assert words in ran.err


@pytest.mark.ray
def test_who_takes_calls_but_is_no_ray_is_given_up(purify: list[str], deaf: int):
    """Within the limit, and what Ray writes meanwhile is JSON like all else."""
    code = (
        "import sys, zipbatch.cluster.connection as c\n"
        "from zipbatch.cli import main\n"
        "c.START_S = 3.0\n"
        f"sys.argv = {['zipbatch', '-v', '--log-format', 'json', *purify, '--address', f'127.0.0.1:{deaf}']!r}\n"
        "main()\n"
    )
    began = time.monotonic()
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 2
    assert time.monotonic() - began < 60
    lines = [json.loads(line) for line in ran.stderr.splitlines()]
    assert "cannot join a Ray cluster there" in lines[-1]["message"]


def _stopped(command: list[str], number: signal.Signals, *, after_s: float) -> tuple[int, str, float, set[_Process]]:
    """Tell a run to stop, ``after_s`` from when its work begins.

    Returns:
        Exit code, stderr, how long the way out took, and the processes that the run had below it when it was told.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "zipbatch", *command], cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        said = process.stderr.readline()  # it says what it is about to do, then Ray starts
        assert "purifying" in said
        time.sleep(after_s)
        family, sent = _below(process.pid), time.monotonic()
        process.send_signal(number)
        _, more = process.communicate(timeout=60)
        return process.returncode, said + more, time.monotonic() - sent, family


def _processes() -> dict[int, tuple[int, _Process]]:
    """Process id -> parent's id, and what tells it from a later one of that id; zombies are left out."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        if fields[0] != "Z":
            found[int(folder.name)] = int(fields[1]), (int(folder.name), int(fields[19]))
    return found


def _below(pid: int) -> set[_Process]:
    everything, wanted = _processes(), {pid}
    while more := {child for child, (parent, _) in everything.items() if parent in wanted} - wanted:
        wanted |= more
    return {everything[child][1] for child in wanted - {pid}}


def _check_stops(command: list[str], tmp_path: Path, moments: list[float]) -> None:
    families: set[_Process] = set()
    for turn, after_s in enumerate(moments):
        number, code = [(signal.SIGTERM, 143), (signal.SIGINT, 130)][turn % 2]
        returned, said, took, family = _stopped(command, number, after_s=after_s)
        families |= family
        if returned == 0 and turn:
            continue  # all was done before
        assert (returned, "run the same command again" in said) == (code, True), said
        assert took < 20
        summary = json.loads((tmp_path / "summary.json").read_text())
        assert (summary["outcome"], summary["exit_code"]) == ("interrupted", code)
        (tmp_path / "summary.json").unlink()
    until = time.monotonic() + 60  # agents of Ray's, whose raylet is gone, take their time to see it
    while (left := families & {process for _, process in _processes().values()}) and time.monotonic() < until:
        time.sleep(0.5)
    assert left == set()


@pytest.mark.ray
def test_a_signal_while_ray_starts_ends_the_run_in_order(purify: list[str], tmp_path: Path):
    _check_stops(purify, tmp_path, [0.3, 1.8])


@pytest.mark.ray
@pytest.mark.slow
def test_a_signal_at_any_moment_of_the_start(purify: list[str], tmp_path: Path):
    _check_stops(purify, tmp_path, [0.5 * i for i in range(16)])


@pytest.mark.ray
def test_too_long_a_folder_for_sockets_is_named(purify: list[str], tmp_path: Path):
    long = tmp_path / ("x" * 120)
    long.mkdir()
    environment = {**os.environ, "TMPDIR": str(long), "RAY_TMPDIR": str(long)}
    ran = subprocess.run(
        [sys.executable, "-m", "zipbatch", *purify],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 1
    assert f"{long}: too long a path for Ray's sockets" in ran.stderr
    assert "--workers 0 does without Ray" in ran.stderr
