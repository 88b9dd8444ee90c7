"""Purify through the shell, killed and interrupted: what is left is valid, and a rerun ends with the same bytes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.making import Ran, files_below, write_source, zipbatch

SHARDS = 10
WAIT_S = 120.0
SETTINGS = (
    "--preset",
    "balanced-v1",
    "--steps",
    80,
    "--transform",
    "blur:2",
    "--batch-size",
    1,
    "--device",
    "cpu",
    "--name",
    "slow",
)


@dataclass(frozen=True)
class Process:
    """A process that cannot be mistaken for a later one with its number."""

    pid: int
    started: str
    title: str

    @property
    def alive(self) -> bool:
        """Whether it runs still; a zombie does not."""
        stat = _stat(self.pid)
        return stat is not None and stat[19] == self.started and stat[0] not in "ZX"

    @property
    def matters(self) -> bool:
        """Whether it could hold a GPU or a port; Ray's agents wait a minute before they follow their raylet."""
        return not re.match(r"ray::(Dashboard|RuntimeEnv)Agent|ray-.*agent|.*_agent/|.*agent\.py", self.title)


@dataclass(frozen=True)
class Undisturbed:
    """The input, and what a run that nothing disturbed left."""

    source: Path
    prior: Path
    objects: dict[str, bytes]
    version: str

    def arguments(self, store: Path) -> list[str]:
        return [str(a) for a in ("purify", self.source, "--prior", self.prior, "--store", store, *SETTINGS)]


def heed_interrupts() -> None:
    """What starts the tests in the background has them ignore Ctrl-C, and their children with them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Purify:
    """``python -m zipbatch purify`` in a session of its own, as a terminal would start it."""

    def __init__(self, undisturbed: Undisturbed, store: Path, *options: object) -> None:
        self._store = store
        self._err = (store.parent / "stderr.txt").open("w+")
        self._out = (store.parent / "stdout.txt").open("w+")
        self._family: dict[int, Process] = {}
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "zipbatch", *undisturbed.arguments(store), *map(str, options)],
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
            start_new_session=True,
            preexec_fn=heed_interrupts,  # noqa: PLW1509
        )

    def family(self) -> list[Process]:
        """Its descendants, those that it had before and has no more included."""
        for process in descendants(self.popen.pid):
            self._family[process.pid] = process
        return list(self._family.values())

    def wait_for_records(self, number: int) -> None:
        """Until so many shards are published; the run must be far from its end then."""
        wait_for(lambda: records(self._store) >= number or self.popen.poll() is not None)
        assert self.popen.poll() is None, self.ended().err
        assert records(self._store) < SHARDS - 2, "the shards are too quick for this test"

    def ended(self) -> Ran:
        """Its exit code and streams, once it has ended."""
        code = self.popen.wait(WAIT_S)
        self._out.seek(0)
        self._err.seek(0)
        return Ran(code, self._out.read(), self._err.read())

    def end(self) -> None:
        """Kill whatever is left."""
        for process in [*self.family()]:
            if process.alive:
                os.kill(process.pid, signal.SIGKILL)
        self.popen.kill()
        self.popen.wait(WAIT_S)
        self._out.close()
        self._err.close()


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/<pid>/stat after the command's name: state, parent … start time at 19."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, UnicodeDecodeError):
        return None


def descendants(root: int) -> list[Process]:
    """Children of a process, their children and so on."""
    stats = {int(p.name): _stat(int(p.name)) for p in Path("/proc").iterdir() if p.name.isdigit()}
    children: dict[int, list[int]] = {}
    for pid, stat in stats.items():
        if stat is not None:
            children.setdefault(int(stat[1]), []).append(pid)
    found, open_ = [], [root]
    while open_:
        for pid in children.get(open_.pop(), []):
            stat = stats[pid]
            assert stat is not None
            with contextlib.suppress(OSError):
                title = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found.append(Process(pid, stat[19], title.strip()))
            open_.append(pid)
    return found


def wait_for(condition: Callable[[], bool], *, limit_s: float = WAIT_S) -> None:
    """Poll until ``condition``; fail when it takes too long."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {limit_s:g} s in vain"
        time.sleep(0.02)


def records(store: Path) -> int:
    """How many shards the store has whole."""
    return sum(1 for _ in (store / "tasks").glob("??/*.json"))


def worker_pids(store: Path) -> set[int]:
    """The processes that published shards."""
    return {json.loads(f.read_bytes())["worker"]["pid"] for f in (store / "tasks").glob("??/*.json")}


def temps(store: Path) -> list[str]:
    """Files under temp names anywhere in the store."""
    return [name for name in files_below(store) if Path(name).name.startswith(".tmp-")]


def objects(store: Path) -> dict[str, bytes]:
    """Published objects with their bytes; temp files that a killed process had to leave are not among them."""
    return {n: data for n, data in files_below(store / "objects").items() if not Path(n).name.startswith(".tmp-")}


def version(store: Path) -> str:
    """The version that ``latest`` points to."""
    return (store / "tags" / "slow" / "latest").read_text().splitlines()[0]


@pytest.fixture(scope="module")
def undisturbed(prior: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Ten shards of a good part of a second each, purified once in this process."""
    folder = tmp_path_factory.mktemp("undisturbed")
    source = write_source(folder / "bare", counts={"test": 2 * SHARDS}, shards=SHARDS)
    asked = Undisturbed(source, prior, {}, "")
    ran = zipbatch(*asked.arguments(folder / "pur"))
    assert ran.code == 0, ran.err
    return Undisturbed(source, prior, objects(folder / "pur"), version(folder / "pur"))


@pytest.fixture
def purify(undisturbed: Undisturbed, tmp_path: Path) -> Iterator[Callable[..., Purify]]:
    """Starts ``purify`` on ``tmp_path/pur``; nothing it started outlives the test."""
    started: list[Purify] = []

    def start(*options: object) -> Purify:
        started.append(Purify(undisturbed, tmp_path / "pur", *options))
        return started[-1]

    yield start
    for run in started:
        run.end()


def check_same_in_the_end(undisturbed: Undisturbed, store: Path, *, published: int) -> None:
    """A rerun computes only what is missing and ends where an undisturbed run ends."""
    before = objects(store)
    assert len(before) >= published > 0
    assert before.items() <= undisturbed.objects.items(), "something half done was published"
    assert not (store / "versions").exists() or not any((store / "versions").rglob("*.json"))
    done = records(store)
    ran = zipbatch(*undisturbed.arguments(store), "--json")
    assert ran.code == 0, ran.err
    assert (ran.json["computed"], ran.json["reused"]) == (SHARDS - done, done)
    assert objects(store) == undisturbed.objects
    assert version(store) == ran.json["version"] == undisturbed.version
    verified = zipbatch("store", "verify", "--store", store)
    assert verified.code == 0, verified.out


@pytest.mark.ray
def test_a_killed_worker_changes_nothing(
    undisturbed: Undisturbed, purify: Callable[..., Purify], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ZIPBATCH_LOG_FORMAT", "json")
    run = purify("--workers", 2)
    run.wait_for_records(1)
    killed = next(iter(worker_pids(tmp_path / "pur")))  # of a worker that has shown that it works
    assert any(p.pid == killed and p.title.startswith("ray::WorkerActor") for p in run.family())
    os.kill(killed, signal.SIGKILL)
    ran = run.ended()
    assert ran.code == 0, ran.err
    assert objects(tmp_path / "pur") == undisturbed.objects
    assert version(tmp_path / "pur") == undisturbed.version
    assert worker_pids(tmp_path / "pur") - {killed}, "the dead worker made everything"
    lines = [json.loads(line) for line in ran.err.splitlines()]
    assert any("a worker died with" in line["message"] for line in lines)
    assert len({line["run"] for line in lines}) == 1
    assert zipbatch("store", "verify", "--store", tmp_path / "pur").code == 0


@pytest.mark.ray
def test_a_killed_driver_leaves_a_run_that_can_go_on(
    undisturbed: Undisturbed, purify: Callable[..., Purify], tmp_path: Path
):
    run = purify("--workers", 2)
    run.wait_for_records(2)
    family = run.family()
    assert any(process.title.startswith("ray::WorkerActor") for process in family)
    run.popen.kill()
    assert run.ended().code == -signal.SIGKILL
    wait_for(lambda: not any(process.alive for process in family if process.matters), limit_s=30)
    check_same_in_the_end(undisturbed, tmp_path / "pur", published=2)


@pytest.mark.parametrize(
    "case",
    [
        (0, signal.SIGINT, 130),
        (0, signal.SIGTERM, 143),
        pytest.param((0, signal.SIGHUP, 143), marks=pytest.mark.slow),
        pytest.param((2, signal.SIGINT, 130), marks=pytest.mark.ray),
        pytest.param((2, signal.SIGTERM, 143), marks=pytest.mark.ray),
    ],
)
def test_an_interrupted_run_says_so_and_can_go_on(
    undisturbed: Undisturbed,
    purify: Callable[..., Purify],
    tmp_path: Path,
    case: tuple[int, signal.Signals, int],
):
    workers, how, code = case
    report = tmp_path / "run.json"
    run = purify("--workers", workers, "--summary", report)
    run.wait_for_records(1)
    family = run.family()
    if how == signal.SIGINT:
        os.killpg(run.popen.pid, how)  # Ctrl-C reaches everything in the foreground
    else:
        run.popen.send_signal(how)
        run.popen.send_signal(how)  # a second one must not break the way out
    ran = run.ended()
    assert ran.code == code, ran.err
    assert ran.out == ""
    assert "run the same command again to go on" in ran.err
    assert "Traceback" not in ran.err
    told = re.search(rf"(\d+) of {SHARDS} shards are done, (\d+) left", ran.err)
    assert told, ran.err
    assert int(told[1]) + int(told[2]) == SHARDS
    value = json.loads(report.read_bytes())
    assert (value["outcome"], value["exit_code"], value["version"]) == ("interrupted", code, None)
    assert (value["counts"]["done"], value["counts"]["left"]) == (int(told[1]), int(told[2]))
    assert 0 <= records(tmp_path / "pur") - int(told[1]) <= 2 * max(1, workers), "those in hand may have been finished"
    wait_for(lambda: not any(process.alive for process in family if process.matters), limit_s=30)
    assert temps(tmp_path / "pur") == []
    check_same_in_the_end(undisturbed, tmp_path / "pur", published=1)


STUCK = r"""
import sys, time; from zipbatch.cli import main; from zipbatch.stages.purify.computing import BatchComputer
def stuck(*_):
    sys.stderr.write("stuck\n")
    while True:
        time.sleep(0.01)  # a batch that never ends: nothing looks whether the run is to stop
BatchComputer._compute = stuck
main()
"""


@pytest.mark.parametrize(
    ("how", "code"), [pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGTERM, 143)]
)
def test_one_more_signal_ends_a_run_at_once(undisturbed: Undisturbed, tmp_path: Path, how: signal.Signals, code: int):
    store, report = tmp_path / "pur", tmp_path / "run.json"
    command = [sys.executable, "-c", STUCK, *undisturbed.arguments(store), "--summary", str(report)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stderr is not None
        assert "purifying" in process.stderr.readline()
        assert process.stderr.readline() == "stuck\n"
        process.send_signal(how)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.5)  # it waits for the batch
        for _ in range(10):  # on a busy machine the first may have been heeded late, and the next be taken for its echo
            process.send_signal(how)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(2)
                break
        else:
            process.kill()
        assert process.returncode == code
        assert "stopped at once; 0 of 10 shards are done, 10 left; " in process.stderr.read()
    value = json.loads(report.read_bytes())
    assert (value["outcome"], value["exit_code"]) == ("interrupted", code)
    assert objects(store) == {}


@pytest.mark.slow
def test_a_signal_that_the_caller_ignores_stays_ignored(
    undisturbed: Undisturbed, purify: Callable[..., Purify], tmp_path: Path
):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        run = purify("--workers", 0)
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    run.wait_for_records(1)
    run.popen.send_signal(signal.SIGHUP)
    assert run.ended().code == 0
    assert version(tmp_path / "pur") == undisturbed.version
