"""One actor to a GPU, on a running Ray cluster that says it has eight."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.job import Job
from zipbatch.cluster import WorkerContext

pytestmark = pytest.mark.ray
ROOT = Path(__file__).resolve().parents[2]
GPUS = 8
SETTINGS = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
}


@dataclass(frozen=True)
class Look:
    """Builds a worker that says which GPU it was given, once all workers are there; imports no torch."""

    meeting: Path
    workers: int

    def __call__(self, context: WorkerContext) -> Look.Worker:
        return Look.Worker(context.label, self.meeting, self.workers)

    @dataclass(frozen=True)
    class Worker:
        """Answers with its process, its GPU as recorded and as the environment has it."""

        label: dict[str, object]
        meeting: Path
        workers: int

        def __call__(self, _job: Job) -> tuple[int, object, str | None]:
            (self.meeting / str(os.getpid())).touch()
            deadline = time.monotonic() + 150
            while len(list(self.meeting.iterdir())) < self.workers and time.monotonic() < deadline:
                time.sleep(0.05)
            return os.getpid(), self.label["cuda_visible_devices"], os.environ.get("CUDA_VISIBLE_DEVICES")


def processes_with(text: str) -> list[int]:
    """Living processes (zombies are not) whose command line has ``text``, this one left out."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and int(entry.name) != os.getpid() and text in (entry / "cmdline").read_text():
                found.append(int(entry.name))
        except (OSError, UnicodeDecodeError):
            continue  # it ended meanwhile
    return found


def free_port() -> int:
    """A TCP port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_head() -> Iterator[str]:
    """The address of a Ray cluster of eight claimed GPUs and two CPUs, all its processes gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="zr", dir="/tmp"))
    port = free_port()
    options = ["--head", "--num-gpus", GPUS, "--num-cpus", 2, "--port", port, "--temp-dir", folder]
    options += ["--include-dashboard", "false", "--object-store-memory", 100 * 1024**2, "--disable-usage-stats"]
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", *map(str, options)]
    try:
        with (folder / "start.log").open("wb") as log:  # a file: the daemons keep the stream open
            started = subprocess.run(
                command, env=os.environ | SETTINGS, stdout=log, stderr=log, timeout=200, check=False
            )
        assert started.returncode == 0, (folder / "start.log").read_text()
        yield f"127.0.0.1:{port}"
    finally:
        _end(str(folder))
        shutil.rmtree(folder, ignore_errors=True)


def _end(folder: str) -> None:
    for how in (signal.SIGTERM, signal.SIGKILL):
        for pid in processes_with(folder):
            try:
                os.kill(pid, how)
            except ProcessLookupError:
                continue
        deadline = time.monotonic() + 3
        while processes_with(folder) and time.monotonic() < deadline:
            time.sleep(0.1)


@pytest.fixture(scope="module")
def head() -> Iterator[str]:
    """The address of the running cluster."""
    with running_head() as address:
        yield address


SCRIPT = """
import json, sys, tempfile
from pathlib import Path
from tests.cluster.test_pinning import Job, Look
from zipbatch.cluster import Workers, run_tasks
from zipbatch.errors import UsageError
try:
    jobs = [Job(str(i)) for i in range(32)]
    workers = Workers(device="cpu", **json.loads(sys.argv[1]))
    with tempfile.TemporaryDirectory() as meeting:
        outcomes = list(run_tasks(Look(Path(meeting), workers.count), jobs, workers))
    print(json.dumps([[outcome.task.name, outcome.result, outcome.error] for outcome in outcomes]))
except UsageError as error:
    sys.exit(f"usage: {error}")
"""


def joined(*command: object) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own: Ray keeps what it once read of its authentication for a process's life."""
    return subprocess.run(
        [sys.executable, *map(str, command)],
        env=os.environ | SETTINGS,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def looked(**workers: object) -> subprocess.CompletedProcess[str]:
    """Run 32 tasks that look at their worker."""
    return joined("-c", SCRIPT, json.dumps(workers))


def test_every_actor_sees_one_gpu_and_no_two_the_same(head: str):
    ran = looked(gpus=GPUS, address=head)
    assert ran.returncode == 0, ran.stderr
    names, results, errors = zip(*json.loads(ran.stdout), strict=True)
    assert set(errors) == {None}
    assert sorted(map(int, names)) == list(range(32))
    seen = {tuple(result) for result in results}
    assert len(seen) == GPUS, "an actor saw no task, or changed its GPU"
    assert sorted(gpu for _, gpu, _ in seen) == [str(i) for i in range(GPUS)]
    assert all(recorded == visible for _, recorded, visible in seen)


@pytest.mark.parametrize(
    ("workers", "message"),
    [
        ({"gpus": GPUS + 1}, "‹gpus=9›: the Ray cluster has 8 GPUs; ask for 8 or fewer"),
        ({"workers": 3}, "‹workers=3›: the Ray cluster has 2 CPUs; ask for 2 or fewer"),
    ],
)
def test_more_workers_than_the_cluster_has(head: str, workers: dict[str, int], message: str):
    started = time.monotonic()
    ran = looked(**workers, address=head)
    assert time.monotonic() - started < 60
    assert (ran.returncode, ran.stdout) == (1, "")
    assert f"usage: {message}" in ran.stderr


def test_workers_on_cpu_cores_of_the_cluster(head: str):
    ran = looked(workers=2, address=head)
    assert ran.returncode == 0, ran.stderr
    assert len({result[0] for _, result, _ in json.loads(ran.stdout)}) == 2


def test_purify_on_eight_gpus(head: str, tmp_path: Path):
    from tests.making import files_below, write_source, zipbatch  # torch: not for the actors, which import this module

    source = write_source(tmp_path / "bare", counts={"test": 48}, shards=24)
    asked = ("purify", source, "--purifier", "blur")  # eight processes that load a prior take too long on two cores
    command = [*asked, "--store", tmp_path / "pur", "--address", head, "--device", "cpu", "--json"]
    ran = joined("-m", "zipbatch", *command, "--gpus", GPUS)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["computed"] == 24
    records = [json.loads(file.read_bytes()) for file in (tmp_path / "pur" / "tasks").glob("??/*.json")]
    assert len(records) == 24
    pairs = {(record["worker"]["pid"], record["worker"]["cuda_visible_devices"]) for record in records}
    assert {gpu for _, gpu in pairs} <= {str(i) for i in range(GPUS)}
    assert len(pairs) == len(dict(pairs)) == len({gpu for _, gpu in pairs})  # a process has a GPU, a GPU a process

    alone = zipbatch(*asked, "--store", tmp_path / "alone", "--workers", 0, "--device", "cpu")
    assert alone.code == 0, alone.err
    assert files_below(tmp_path / "pur" / "objects") == files_below(tmp_path / "alone" / "objects")


def test_purify_on_more_gpus_than_there_are(head: str, tmp_path: Path):
    from tests.making import write_source

    source = write_source(tmp_path / "bare", counts={"test": 2}, shards=1)
    asked = ("purify", source, "--purifier", "blur", "--store", tmp_path / "pur", "--device", "cpu")
    ran = joined("-m", "zipbatch", *asked, "--gpus", GPUS + 1, "--address", head)
    assert ran.returncode == 2
    assert "--gpus 9: the Ray cluster has 8 GPUs; ask for 8 or fewer" in ran.stderr
    assert ran.stdout == ""
