"""Several raylets on one machine stand for nodes: workers that come late, leave, hang, and files that they are sent."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from tests.cluster.job import Job
from zipbatch.cluster import Outcome, WorkerContext, Workers, driver, run_tasks
from zipbatch.errors import UsageError

pytestmark = pytest.mark.ray
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Acting:
    """Builds a worker that notes each start of a task in ``log`` and then does what the task's name says."""

    log: Path
    weights: Path | None = None

    def __call__(self, context: WorkerContext) -> Callable[[Job], Any]:
        weights = None if self.weights is None else (context.local(self.weights), self._read(context))

        def work(job: Job) -> Any:
            with self.log.open("a") as log:
                log.write(f"{job.name} {os.getpid()}\n")
            first = sum(line.startswith(f"{job.name} ") for line in self.log.read_text().splitlines()) == 1
            match job.name.partition("-")[0]:
                case "freeze" if first:
                    os.kill(os.getpid(), signal.SIGSTOP)
                case "hang":
                    time.sleep(1000)
                case "slow":
                    for _ in range(20):
                        time.sleep(0.2)
                        context.heartbeat()
            time.sleep(0.1)
            return os.getpid(), weights

        return work

    def _read(self, context: WorkerContext) -> bytes:
        assert self.weights is not None
        return context.local(self.weights).read_bytes()


@pytest.fixture(scope="module")
def head() -> Iterator[Cluster]:
    """A head without CPUs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("RAY_AUTH_MODE", "disabled")
        started = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        yield started
        started.shutdown()


@pytest.fixture
def cluster(head: Cluster) -> Iterator[Cluster]:
    """The head, to which a test adds the nodes that work; they go with it."""
    yield head
    ray.shutdown()
    for node in list(head.worker_nodes):
        head.remove_node(node)


def on(cluster: Cluster, workers: int, **settings: Any) -> Workers:
    return Workers(workers=workers, address=cluster.address, device="cpu", **settings)


def run(log: Path, names: list[str], workers: Workers) -> dict[str, Outcome]:
    log.touch()
    return {outcome.task.name: outcome for outcome in run_tasks(Acting(log), map(Job, names), workers)}


def good(count: int) -> list[str]:
    return [f"good-{i}" for i in range(count)]


def test_files_of_the_driver_reach_every_worker(cluster: Cluster, tmp_path: Path):
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    weights = tmp_path / "weights.bin"
    weights.write_bytes(os.urandom(3_000_000))
    (tmp_path / "log").touch()
    setup = Acting(tmp_path / "log", weights)
    outcomes: list[Outcome] = []

    def workers() -> set[int]:
        return {outcome.result[0] for outcome in outcomes}

    def jobs() -> Iterator[Job]:
        """12 at least, and as many more as it takes until both workers are up: work begins with the first."""
        for number, name in enumerate(good(5000)):
            if number >= 12 and len(workers()) == 2:
                return
            yield Job(name)

    for outcome in run_tasks(setup, jobs(), on(cluster, 2), files=[weights]):
        outcomes.append(outcome)
    assert len(outcomes) >= 12
    assert len(workers()) == 2
    for outcome in outcomes:
        path, content = outcome.result[1]
        assert path != weights
        assert path.name == weights.name
        assert not path.exists()  # it was there while the worker was built
        assert content == weights.read_bytes()


def test_what_a_cluster_cannot_give_is_told_at_once(cluster: Cluster, tmp_path: Path):
    cluster.add_node(num_cpus=2)
    started = time.monotonic()
    with pytest.raises(UsageError, match=r"‹workers=3›: the Ray cluster has 2 CPUs; ask for 2 or fewer"):
        run(tmp_path / "log", good(1), on(cluster, 3))
    with pytest.raises(UsageError, match=r"‹gpus=8› ‹at_least=4›: the Ray cluster has 0 GPUs"):
        run(tmp_path / "log", good(1), Workers(gpus=8, address=cluster.address, at_least=4))
    assert time.monotonic() - started < 60


def test_a_busy_cluster_is_not_waited_for_without_end(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cluster.add_node(num_cpus=2)
    monkeypatch.setattr(driver, "START_TIMEOUT_S", 8.0)
    monkeypatch.setattr(driver, "HEARTBEAT_S", 1.0)
    ray.init(address=cluster.address, namespace="others", log_to_driver=False)

    @ray.remote(num_cpus=2)
    class Busy:
        def ping(self) -> int:
            return 1

    other = Busy.options(lifetime="detached", name="busy").remote()
    ray.get(other.ping.remote())
    ray.shutdown()
    with pytest.raises(UsageError, match=r"only 0 of 2 workers came up within 8 s; the cluster has 0 of 2 CPUs free"):
        run(tmp_path / "log", good(1), on(cluster, 2))


def test_workers_join_and_leave_in_the_middle(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One node at first; a second comes and works; the first goes, and nothing is lost nor blamed on a task."""
    monkeypatch.setattr(driver, "HEARTBEAT_S", 1.0)
    first, log = cluster.add_node(num_cpus=1), tmp_path / "log"
    log.touch()
    outcomes: dict[str, Outcome] = {}
    pids: list[int] = []
    second, handed_out = None, []

    def jobs() -> Iterator[Job]:
        """150 at least, and as many more as it takes until a node has come and another has gone."""
        for name in good(5000):
            if first is None and len(handed_out) >= 150:
                return
            handed_out.append(name)
            yield Job(name)

    for outcome in run_tasks(Acting(log), jobs(), on(cluster, 2, at_least=1)):
        outcomes[outcome.task.name] = outcome
        if outcome.result[0] not in pids:
            pids.append(outcome.result[0])
        if len(outcomes) == 5:
            second = cluster.add_node(num_cpus=1)
        if len(pids) == 2 and first is not None:
            cluster.remove_node(first, allow_graceful=False)
            first = None
    assert second is not None
    assert first is None
    assert sorted(outcomes) == sorted(handed_out)
    assert {outcome.error for outcome in outcomes.values()} == {None}
    assert list(outcomes.values())[-1].result[0] == pids[1]


def test_a_frozen_worker_is_replaced(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cluster.add_node(num_cpus=2)
    monkeypatch.setattr(driver, "FROZEN_S", 4.0)
    monkeypatch.setattr(driver, "HEARTBEAT_S", 1.0)
    outcomes = run(tmp_path / "log", ["freeze", *good(10)], on(cluster, 2))
    assert {outcome.error for outcome in outcomes.values()} == {None}
    assert len(outcomes) == 11


def test_a_task_that_hangs_is_given_up_and_one_that_moves_is_not(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cluster.add_node(num_cpus=2)
    monkeypatch.setattr(driver, "HEARTBEAT_S", 1.0)
    outcomes = run(tmp_path / "log", ["hang", "slow", *good(10)], on(cluster, 2, stall_s=3.0))
    assert outcomes.pop("hang").error == "killed or hung its worker 3 times; given up"
    assert {outcome.error for outcome in outcomes.values()} == {None}
    assert len(outcomes) == 11
