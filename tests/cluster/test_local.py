"""Workers in this process: outcomes, bounded reading, stopping, and no Ray."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.job import Job
from tests.making import write_source
from zipbatch.cluster import Outcome, WorkerContext, Workers, run_tasks
from zipbatch.errors import DataError, ZipbatchError

LOCAL = Workers(device="cpu")
ERRORS = {
    "data": (DataError("a.tar", "damaged", key="k1"), "a.tar: key 'k1': damaged"),
    "disk": (OSError(errno.ENOSPC, "No space left", "/pur/x"), "/pur/x: No space left; free some space and run again"),
    "nameless": (OSError("odd"), "I/O: odd"),
    "bug": (ZeroDivisionError("by nought"), "internal error: ZeroDivisionError: by nought (please report it)"),
}


def jobs(n: int) -> list[Job]:
    """Tasks ``0`` to ``n - 1``."""
    return [Job(str(i)) for i in range(n)]


def working(work: Callable[[Job], Any]) -> Callable[[WorkerContext], Callable[[Job], Any]]:
    """A setup whose worker is ``work``."""
    return lambda _context: work


def named(outcomes: Iterator[Outcome]) -> dict[str, Outcome]:
    """Outcomes by task name; each task has one only."""
    found = list(outcomes)
    assert max(Counter(outcome.task.name for outcome in found).values(), default=1) == 1
    return {outcome.task.name: outcome for outcome in found}


def test_every_task_gives_one_outcome():
    found = named(run_tasks(working(lambda job: int(job.name) ** 2), jobs(20), LOCAL))
    assert {name: outcome.result for name, outcome in found.items()} == {str(i): i * i for i in range(20)}
    assert {(outcome.error, outcome.tries) for outcome in found.values()} == {(None, 1)}


def test_no_tasks_no_outcomes():
    assert list(run_tasks(working(str), [], LOCAL)) == []


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_is_reported_once_and_the_others_go_on(kind: str):
    error, message = ERRORS[kind]
    calls: list[str] = []

    def work(job: Job) -> str:
        calls.append(job.name)
        if job.name == "2":
            raise error
        return "done"

    found = named(run_tasks(working(work), jobs(5), LOCAL))
    assert (found["2"].result, found["2"].error, found["2"].tries) == (None, message, 1)
    assert [found[name].result for name in "0134"] == ["done"] * 4
    assert sorted(calls) == list("01234")


@pytest.mark.parametrize("in_flight", [1, 2, 5])
def test_endless_tasks_are_read_only_as_far_as_needed(in_flight: int):
    drawn = count(1)
    read = 0

    def endless() -> Iterator[Job]:
        nonlocal read
        for read in drawn:
            yield Job(str(read))

    with closing(run_tasks(working(str), endless(), Workers(device="cpu", in_flight=in_flight))) as outcomes:
        for seen in range(1, 30):
            next(outcomes)
            assert read <= seen + in_flight
    assert read <= 29 + in_flight


def test_neighbours_overlap():
    both = threading.Barrier(2, timeout=30)
    found = named(run_tasks(working(lambda _job: both.wait()), jobs(6), LOCAL))
    assert {outcome.error for outcome in found.values()} == {None}


@pytest.mark.parametrize("kind", ERRORS)
def test_a_worker_that_cannot_be_built_ends_the_run_with_its_error(kind: str):
    error, message = ERRORS[kind]

    def setup(_context: WorkerContext) -> Callable[[Job], Any]:
        raise error

    with pytest.raises(ZipbatchError) as raised:
        list(run_tasks(setup, jobs(2), LOCAL))
    assert (str(raised.value), raised.value.exit_code) == (message, getattr(error, "exit_code", 1))


@pytest.mark.parametrize("leave", ["close", "exception"])
def test_leaving_stops_workers_at_their_next_safe_point(leave: str):
    started, stopped = threading.Event(), threading.Event()

    def setup(context: WorkerContext) -> Callable[[Job], Any]:
        def work(job: Job) -> None:
            if job.name == "0":
                return
            started.set()
            try:
                while True:
                    context.heartbeat()
                    time.sleep(0.01)
            finally:
                stopped.set()

        return work

    outcomes = run_tasks(setup, jobs(50), LOCAL)
    assert next(outcomes).task.name == "0"
    assert started.wait(30)
    assert not stopped.is_set()
    if leave == "close":
        outcomes.close()
    else:
        with pytest.raises(KeyboardInterrupt):
            outcomes.throw(KeyboardInterrupt)
    assert stopped.is_set()


def test_a_worker_knows_where_it_runs():
    seen: list[WorkerContext] = []

    def setup(context: WorkerContext) -> Callable[[Job], Any]:
        seen.append(context)
        return str

    list(run_tasks(setup, jobs(1), LOCAL))
    assert seen[0].device == "cpu"
    assert seen[0].compute_threads == len(os.sched_getaffinity(0))
    assert seen[0].label["pid"] == os.getpid()
    json.dumps(seen[0].label)


SCRIPT = """
import sys
from zipbatch.cli.main import _run
sys.argv[0] = "zipbatch"
code = _run()
loaded = sorted(name for name in sys.modules if name.split(".")[0] == "ray")
print("loaded:", loaded[:3])
sys.exit(code)
"""


def test_ray_is_not_imported_without_it(prior: Path, tmp_path: Path):
    source = write_source(tmp_path / "bare", counts={"test": 2}, shards=1)
    command = ["purify", source, "--prior", prior, "--steps", 1, "--store", tmp_path / "pur", "--workers", 0]
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, command)], capture_output=True, text=True, timeout=200, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "1 computed" in ran.stdout
    assert "loaded: []" in ran.stdout


def test_progress_of_tasks_in_hand_is_told():
    """By task, in units of its own; what has ended is not in hand any more; threads of nobody's task say nothing."""
    told: list[dict[str, int]] = []
    seen = threading.Event()

    def setup(context: WorkerContext) -> Callable[[Job], str]:
        def work(job: Job) -> str:
            context.progress(int(job.name))
            threading.Thread(target=context.progress, args=(99,)).start()
            assert seen.wait(30)
            return job.name

        return work

    def note(far: Mapping[str, int]) -> None:
        told.append(dict(far))
        if len(far) == 2:
            seen.set()

    outcomes = list(run_tasks(setup, jobs(4), Workers(device="cpu", in_flight=2), on_partial=note))
    assert sorted(outcome.result for outcome in outcomes) == ["0", "1", "2", "3"]
    assert {"0": 0, "1": 1} in told
    assert all(far == {name: int(name) for name in far} and len(far) <= 2 for far in told)
