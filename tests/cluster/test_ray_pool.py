"""Workers as real Ray actors: outcomes, deaths, bounded reading, and a stdout of our own."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.job import Job
from zipbatch.cluster import Outcome, WorkerContext, Workers, run_tasks
from zipbatch.errors import DataError, WorkFailed

pytestmark = pytest.mark.ray
ROOT = Path(__file__).resolve().parents[2]
TWO = Workers(workers=2, device="cpu")


@dataclass(frozen=True)
class Acting:
    """Builds a worker that notes each start of a task in ``log`` and then does what the task's name says."""

    log: Path

    def __call__(self, context: WorkerContext) -> Callable[[Job], Any]:
        return Actor(self.log, context)


class Actor:
    """What each kind of task does."""

    def __init__(self, log: Path, context: WorkerContext) -> None:
        self._log, self._context = log, context

    def __call__(self, job: Job) -> Any:
        with self._log.open("a") as log:
            log.write(f"{job.name}\n")
        time.sleep(0.1)
        match job.name.partition("-")[0]:
            case "data":
                raise DataError("a.tar", "damaged", key="k1")
            case "disk":
                raise OSError(errno.ENOSPC, "No space left", "/pur/x")
            case "bug":
                raise ZeroDivisionError("by nought")
            case "lock":
                return threading.Lock()  # cannot be sent back
            case "poison":
                os.kill(os.getpid(), signal.SIGKILL)
            case "once" if self._log.read_text().splitlines().count(job.name) == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            case "far":
                for done in range(60):
                    self._context.progress(done)
                    time.sleep(0.1)
            case "print":
                print("noise on stdout", flush=True)  # noqa: T201
                print("noise on stderr", file=sys.stderr, flush=True)  # noqa: T201
        return os.getpid(), self._context.compute_threads, self._context.device


@dataclass(frozen=True)
class SlowlyBuilt(Acting):
    """Builds its worker in longer than Ray waits for an actor that is away."""

    def __call__(self, context: WorkerContext) -> Callable[[Job], Any]:
        time.sleep(5)
        return Actor(self.log, context)


@dataclass(frozen=True)
class Failing:
    """Builds no worker."""

    def __call__(self, _context: WorkerContext) -> Callable[[Job], Any]:
        raise DataError("weights", "damaged")


@dataclass(frozen=True)
class Run:
    """What a run gave, how far its reading ran ahead of that, how often each task was started, and what was logged."""

    outcomes: dict[str, Outcome]
    ahead: int
    starts: Counter[str]
    logged: list[logging.LogRecord]


class Listening(logging.Handler):
    """Keeps what is logged in this process."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def run(log: Path, names: Iterator[str], *, stop_after: int | None = None) -> Run:
    """Run tasks of these names; leave after ``stop_after`` outcomes."""
    log.touch()
    read = ahead = 0
    found: dict[str, Outcome] = {}

    def jobs() -> Iterator[Job]:
        nonlocal read
        for name in names:
            read += 1
            yield Job(name)

    listening = Listening()
    logging.getLogger("zipbatch").addHandler(listening)
    with closing(run_tasks(Acting(log), jobs(), TWO)) as outcomes:
        for outcome in outcomes:
            assert outcome.task.name not in found
            found[outcome.task.name] = outcome
            ahead = max(ahead, read - len(found))
            if len(found) == stop_after:
                break
    logging.getLogger("zipbatch").removeHandler(listening)
    return Run(found, ahead, Counter(log.read_text().splitlines()), listening.records)


@pytest.fixture(scope="module", autouse=True)
def _importable() -> Iterator[None]:
    """Ray's workers import this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]))
        yield


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Four bad tasks, then good ones without end; left after 24 outcomes."""

    def names() -> Iterator[str]:
        yield from ("data", "disk", "bug", "lock")
        for number in range(10**9):
            yield f"good-{number}"

    return run(tmp_path_factory.mktemp("endless") / "log", names(), stop_after=24)


def test_what_workers_log_is_logged_here(endless: Run):
    (record,) = [record for record in endless.logged if record.name == "zipbatch.cluster.guard"]
    host, _, pid = record.worker.rpartition(":")
    assert (host, int(pid)) in {(socket.gethostname(), pid) for pid in _pids(endless)}
    assert (record.levelname, record.getMessage()) == ("ERROR", "worker failed")
    assert "ZeroDivisionError: by nought" in record.exc_text


def _pids(ran: Run) -> set[int]:
    return {outcome.result[0] for outcome in ran.outcomes.values() if outcome.error is None}


@pytest.fixture(scope="module")
def deadly(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Fourteen tasks, of which one always kills its worker and one does so the first time."""
    names = [
        *(f"good-{i}" for i in range(5)),
        "poison",
        "good-5",
        "good-6",
        "once",
        *(f"good-{i}" for i in range(7, 12)),
    ]
    return run(tmp_path_factory.mktemp("deadly") / "log", iter(names))


def test_results_come_back_from_two_processes(endless: Run):
    good = [outcome for name, outcome in endless.outcomes.items() if name.startswith("good")]
    assert len(good) == 20
    assert {(outcome.error, outcome.tries) for outcome in good} == {(None, 1)}
    assert len({outcome.result[0] for outcome in good}) == 2
    assert os.getpid() not in {outcome.result[0] for outcome in good}
    compute_threads = max(1, len(os.sched_getaffinity(0)) // 2)
    assert {outcome.result[1:] for outcome in good} == {(compute_threads, "cpu")}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("data", "a.tar: key 'k1': damaged"),
        ("disk", "/pur/x: No space left; free some space and run again"),
        ("bug", "internal error: ZeroDivisionError: by nought (please report it)"),
    ],
)
def test_an_error_is_reported_and_not_retried(endless: Run, name: str, message: str):
    outcome = endless.outcomes[name]
    assert (outcome.result, outcome.error, outcome.tries) == (None, message, 1)
    assert endless.starts[name] == 1


def test_a_result_that_cannot_be_sent_is_an_error_of_that_task(endless: Run):
    outcome = endless.outcomes["lock"]
    assert outcome.result is None
    assert outcome.error is not None
    assert outcome.error.startswith("internal error: ")
    assert endless.starts["lock"] == 1


def test_tasks_are_read_only_as_far_as_needed(endless: Run):
    assert endless.ahead <= TWO.count * TWO.in_flight
    assert sum(endless.starts.values()) <= 24 + TWO.count * TWO.in_flight


def test_a_task_that_kills_its_worker_is_given_up(deadly: Run):
    outcome = deadly.outcomes["poison"]
    assert (outcome.result, outcome.error, outcome.tries) == (None, "killed or hung its worker 3 times; given up", 3)
    assert 3 <= deadly.starts["poison"] <= 5  # a death in company is charged to nobody


def test_a_task_whose_worker_died_once_is_done_again(deadly: Run):
    outcome = deadly.outcomes["once"]
    assert outcome.error is None
    assert deadly.starts["once"] == 2
    assert outcome.tries <= 2


def test_neighbours_of_a_deadly_task_finish(deadly: Run):
    assert len(deadly.outcomes) == 14
    good = [outcome for name, outcome in deadly.outcomes.items() if name.startswith("good")]
    assert {(outcome.error, outcome.tries) for outcome in good} == {(None, 1)}
    assert len(good) == 12


def test_a_worker_that_cannot_be_built_ends_the_run_with_its_error():
    with pytest.raises(WorkFailed, match=r"^weights: damaged$"):
        list(run_tasks(Failing(), [Job("good")], TWO))


SCRIPT = """
import json, sys
from pathlib import Path
from tests.cluster.test_ray_pool import TWO, Acting, Job
from zipbatch.cluster import run_tasks
jobs = [Job(f"print-{i}") for i in range(6)]
print(json.dumps(sorted(outcome.task.name for outcome in run_tasks(Acting(Path(sys.argv[1])), jobs, TWO))))
"""


def test_prints_of_workers_never_reach_stdout(tmp_path: Path):
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "log")], capture_output=True, text=True, timeout=200, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == [f"print-{i}" for i in range(6)]
    assert "noise" not in ran.stdout + ran.stderr


SLOW_SCRIPT = """
import json, sys
from pathlib import Path
from tests.cluster.test_ray_pool import Acting, Job, SlowlyBuilt
from zipbatch.cluster import Workers, run_tasks
jobs = [Job("once"), *(Job(f"good-{i}") for i in range(3))]
outcomes = run_tasks(SlowlyBuilt(Path(sys.argv[1])), jobs, Workers(workers=1, device="cpu"))
print(json.dumps({o.task.name: [o.error, o.tries] for o in outcomes}))
"""


def test_a_worker_slow_to_come_back_costs_nobody_a_try_and_stdout_stays_clean(tmp_path: Path):
    ran = subprocess.run(
        [sys.executable, "-c", SLOW_SCRIPT, str(tmp_path / "log")],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    outcomes = json.loads(ran.stdout)
    assert {name: outcomes[name] for name in ("good-0", "good-1", "good-2")} == {
        f"good-{i}": [None, 1] for i in range(3)
    }
    assert outcomes["once"] in ([None, 1], [None, 2])


def test_progress_of_tasks_in_hand_is_told(tmp_path: Path):
    told: list[dict[str, int]] = []
    outcomes = run_tasks(
        Acting(tmp_path / "log"), [Job("far-0"), Job("far-1"), Job("good")], TWO, on_partial=told.append
    )
    assert {outcome.task.name for outcome in outcomes} == {"far-0", "far-1", "good"}
    for name in ("far-0", "far-1"):
        done = [far[name] for far in told if name in far]
        assert done == sorted(done)
        assert 0 < done[-1] < 60
    assert all(far.get("good", 0) == 0 for far in told)
