"""Sixty faults at random moments, on a cluster of several raylets: nothing lost, nothing invented, the same bytes.

Once with the store on a disk, once in S3.

    python -m pytest -m slow -s tests/stages/test_fault_campaign.py

``ZIPBATCH_FAULTS`` sets their number, ``ZIPBATCH_FAULT_SEED`` another order of them.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from tests.making import write_source, zipbatch
from tests.object_store import S3Path, S3Server
from tests.stages.purify.test_purify_faults import heed_interrupts, objects
from zipbatch.storage import StoragePath

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(3600)]
ROOT = Path(__file__).resolve().parents[2]
FAULTS = int(os.environ.get("ZIPBATCH_FAULTS", "60"))
SEED = int(os.environ.get("ZIPBATCH_FAULT_SEED", "0"))
SHARDS, NODES, FAULTS_A_ROUND = 48, 3, 20
SETTINGS = ("--steps", 60, "--transform", "blur:2", "--batch-size", 1, "--device", "cpu", "--name", "campaign")
IMPATIENT = """
import sys
from zipbatch.cluster import driver
driver.HEARTBEAT_S, driver.FROZEN_S = 0.5, 3.0
from zipbatch.cli.main import main
main()
"""
CODES = {  # negative where the signal comes before the command has taken charge of it
    "kill driver": {-signal.SIGKILL},
    "terminate driver": {143, -signal.SIGTERM},
    "interrupt driver": {130, -signal.SIGINT},
}


class Disk:
    """A small disk of its own for the stores: it fills up, turns read-only, and the store goes away for a while."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self._folder, self._rng = folder, rng
        self._stores = itertools.count()
        self.kinds = {"full disk": self._fill, "read-only store": self._read_only, "store away": self._move_away}
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            pytest.skip("needs the right to mount a small tmpfs")

    def fresh(self) -> Path:
        return self._folder / f"pur-{next(self._stores)}"

    def close(self) -> None:
        subprocess.run(["umount", "-l", str(self._folder)], check=True)

    def _fill(self, store: Path) -> bool:
        filler = self._folder / "filler"
        with filler.open("wb", buffering=0) as stream:
            try:
                while True:
                    stream.write(bytes(2**16))
            except OSError:
                pass
        time.sleep(self._rng.uniform(0.5, 2))
        filler.unlink()
        return True

    def _read_only(self, store: Path) -> bool:
        try:
            self._remount("ro")
        except subprocess.CalledProcessError:
            return False  # a file is just being written
        time.sleep(self._rng.uniform(0.5, 2))
        self._remount("rw")
        return True

    def _remount(self, how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(self._folder)], check=True)

    def _move_away(self, store: Path) -> bool:
        if not store.is_dir():
            return False
        away = store.with_name("away")
        store.rename(away)
        time.sleep(self._rng.uniform(0.5, 2))
        assert not store.exists(), "a worker made a store of its own where the store was away"
        away.rename(store)
        return True


class Bucket:
    """Stores in S3: for a while its server has no time, hangs up, hangs, cuts answers short, or forgets to answer."""

    def __init__(self, server: S3Server, rng: random.Random) -> None:
        self._server, self._rng = server, rng
        self.kinds = {name: partial(self._fail, name) for name in ("503", "drop", "hang", "cut", "cut-put")}

    def fresh(self) -> S3Path:
        return S3Path.fresh()

    def close(self) -> None:
        pass

    def _fail(self, how: str, store: S3Path) -> bool:
        puts = how == "cut-put"
        with self._server.failing(lambda request: how if not puts or request.method == "PUT" else None):
            time.sleep(self._rng.uniform(0.5, 2))
        return True


@pytest.fixture(params=[Disk, Bucket])
def where(
    request: pytest.FixtureRequest, tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Disk | Bucket]:
    """Where the stores are."""
    if request.param is Bucket:
        monkeypatch.setenv("ZIPBATCH_REMOTE_TIMEOUT", "2")
        place: Disk | Bucket = Bucket(request.getfixturevalue("s3"), rng)
    else:
        place = Disk(tmp_path / "disk", rng)
    yield place
    place.close()


@pytest.fixture
def rng() -> random.Random:
    return random.Random(SEED)


@pytest.fixture
def cluster(where: Disk | Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head and some nodes, whose workers have the environment that ``where`` asks for."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(NODES):
        started.add_node(num_cpus=1)
    yield started
    ray.shutdown()
    started.shutdown()


def actors() -> list[int]:
    """Worker processes that are not stopped."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cmdline").read_bytes().startswith(b"ray::WorkerActor"):
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                found += [int(entry.name)] if state in "RSD" else []
        except OSError:
            continue  # it ended meanwhile
    return found


class Injector:
    """Does harm at random; each kind says whether it found something to harm."""

    def __init__(self, cluster: Cluster, where: Disk | Bucket, rng: random.Random) -> None:
        self._cluster, self._rng = cluster, rng
        self.done: Counter[str] = Counter()
        self.kinds: dict[str, Callable[[subprocess.Popen[str], Any], bool]] = {
            "kill worker": lambda run, store: self._signal_worker(signal.SIGKILL),
            "freeze worker": lambda run, store: self._signal_worker(signal.SIGSTOP),
            "lose node": lambda run, store: self._lose_node(),
            "kill driver": lambda run, store: self._signal_driver(run, signal.SIGKILL),
            "terminate driver": lambda run, store: self._signal_driver(run, signal.SIGTERM),
            "interrupt driver": lambda run, store: self._signal_driver(run, signal.SIGINT),
            **{kind: (lambda run, store, harm=harm: harm(store)) for kind, harm in where.kinds.items()},
        }

    def one(self, run: subprocess.Popen[str], store: StoragePath) -> str | None:
        """Inject the kind that was had least, chosen at random among equals."""
        least = min(self.done[kind] for kind in self.kinds)
        kind = self._rng.choice([kind for kind in self.kinds if self.done[kind] <= least + 1])
        if not self.kinds[kind](run, store):
            return None
        self.done[kind] += 1
        return kind

    def _signal_worker(self, how: signal.Signals) -> bool:
        if not (pids := actors()):
            return False
        os.kill(self._rng.choice(pids), how)
        return True

    def _signal_driver(self, run: subprocess.Popen[str], how: signal.Signals) -> bool:
        run.send_signal(how)
        run.wait(120)
        return True

    def _lose_node(self) -> bool:
        node = self._rng.choice(list(self._cluster.worker_nodes))
        self._cluster.remove_node(node, allow_graceful=False)
        self._cluster.add_node(num_cpus=1)
        return True


def start(cluster: Cluster, source: Path, prior: Path, store: StoragePath, log: Path) -> subprocess.Popen[str]:
    arguments = ("purify", source, "--prior", prior, "--store", store, *SETTINGS)
    workers = ("--address", cluster.address, "--workers", NODES, "--at-least", 1)
    with log.open("a") as stream:
        return subprocess.Popen(
            [sys.executable, "-c", IMPATIENT, *map(str, (*arguments, *workers))],
            stdout=stream,
            stderr=stream,
            text=True,
            preexec_fn=heed_interrupts,  # noqa: PLW1509
        )


def one_round(
    cluster: Cluster, injector: Injector, source: Path, prior: Path, store: Any, log: Path, rng: random.Random
) -> int:
    """Run to the end through faults; how often the driver was started."""
    faults, starts = 0, 0
    while True:
        run, last = start(cluster, source, prior, store, log), None
        starts += 1
        assert starts < 100, log.read_text()[-3000:]
        wait_until = time.monotonic() + 60
        while run.poll() is None and not actors() and time.monotonic() < wait_until:
            time.sleep(0.1)
        while run.poll() is None:
            time.sleep(rng.uniform(0.3, 2.5))
            if run.poll() is None and faults < FAULTS_A_ROUND and (kind := injector.one(run, store)):
                faults, last = faults + 1, kind
        assert run.returncode in CODES.get(last or "", {0, 1}) | {0, 1}, log.read_text()[-3000:]
        if (store / "objects").is_dir():
            verified = zipbatch("store", "verify", "--store", store)
            assert verified.code == 0, verified.out
        if run.returncode == 0:
            return starts
        assert not any((store / "versions").rglob("*.json")), "a version was published though the run failed"


def test_a_campaign(cluster: Cluster, where: Disk | Bucket, prior: Path, tmp_path: Path, rng: random.Random):
    source = write_source(tmp_path / "bare", counts={"test": 2 * SHARDS}, shards=SHARDS)
    undisturbed = tmp_path / "undisturbed"
    ran = zipbatch("purify", source, "--prior", prior, "--store", undisturbed, *SETTINGS, "--json")
    assert ran.code == 0, ran.err
    expected = objects(undisturbed)
    injector, began, rounds, starts = Injector(cluster, where, rng), time.monotonic(), 0, 0
    while injector.done.total() < FAULTS:
        rounds, store = rounds + 1, where.fresh()
        starts += one_round(cluster, injector, source, prior, store, tmp_path / "log.txt", rng)
        assert objects(store) == expected
        shown = zipbatch("store", "show", "campaign@latest", "--store", store, "--json").json
        assert shown["version"] == ran.json["version"]
        assert sum(row["samples"] for row in shown["shards"]) == 2 * SHARDS
    seconds = time.monotonic() - began
    print(f"\n{injector.done.total()} faults in {seconds:.0f} s: {rounds} rounds, {starts} drivers")  # noqa: T201
    for kind, count in injector.done.most_common():
        print(f"  {count:3} {kind}")  # noqa: T201
