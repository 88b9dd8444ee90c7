"""Sixty faults at random moments, on a cluster of several raylets: nothing lost, nothing invented, the same bytes.

    python -m pytest -m slow -s tests/stages/test_fault_campaign.py

``ZIPBATCH_FAULTS`` sets their number, ``ZIPBATCH_FAULT_SEED`` another order of them.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from tests.making import write_source, zipbatch
from tests.stages.test_purify_faults import heed_interrupts, objects

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(3600)]
ROOT = Path(__file__).resolve().parents[2]
FAULTS = int(os.environ.get("ZIPBATCH_FAULTS", "60"))
SEED = int(os.environ.get("ZIPBATCH_FAULT_SEED", "0"))
SHARDS, NODES, FAULTS_A_ROUND = 48, 3, 20
SETTINGS = ("--steps", 60, "--transform", "blur:2", "--batch-size", 1, "--device", "cpu", "--name", "campaign")
IMPATIENT = """
import sys
from zipbatch.cluster import drive
drive.PULSE_S, drive.FROZEN_S = 0.5, 3.0
from zipbatch.cli.main import main
main()
"""
CODES = {  # negative where the signal comes before the command has taken charge of it
    "kill driver": {-signal.SIGKILL},
    "terminate driver": {143, -signal.SIGTERM},
    "interrupt driver": {130, -signal.SIGINT},
}


class Machine:
    """A head, some nodes, and a disk of their own for the stores."""

    def __init__(self, cluster: Cluster, disk: Path) -> None:
        self.cluster, self.disk = cluster, disk

    def remount(self, how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(self.disk)], check=True)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount a small tmpfs")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(NODES):
        cluster.add_node(num_cpus=1)
    yield Machine(cluster, disk)
    ray.shutdown()
    cluster.shutdown()
    subprocess.run(["umount", "-l", str(disk)], check=True)


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

    def __init__(self, machine: Machine, rng: random.Random) -> None:
        self._machine, self._rng = machine, rng
        self.done: Counter[str] = Counter()
        self.kinds: dict[str, Callable[[subprocess.Popen[str], Path], bool]] = {
            "kill worker": lambda run, store: self._signal_worker(signal.SIGKILL),
            "freeze worker": lambda run, store: self._signal_worker(signal.SIGSTOP),
            "lose node": self._lose_node,
            "full disk": self._fill,
            "read-only store": self._read_only,
            "store away": self._move_away,
            "kill driver": lambda run, store: self._signal_driver(run, signal.SIGKILL),
            "terminate driver": lambda run, store: self._signal_driver(run, signal.SIGTERM),
            "interrupt driver": lambda run, store: self._signal_driver(run, signal.SIGINT),
        }

    def one(self, run: subprocess.Popen[str], store: Path) -> str | None:
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

    def _lose_node(self, run: subprocess.Popen[str], store: Path) -> bool:
        node = self._rng.choice(list(self._machine.cluster.worker_nodes))
        self._machine.cluster.remove_node(node, allow_graceful=False)
        self._machine.cluster.add_node(num_cpus=1)
        return True

    def _fill(self, run: subprocess.Popen[str], store: Path) -> bool:
        filler = self._machine.disk / "filler"
        with filler.open("wb", buffering=0) as stream:
            try:
                while True:
                    stream.write(bytes(2**16))
            except OSError:
                pass
        time.sleep(self._rng.uniform(0.5, 2))
        filler.unlink()
        return True

    def _read_only(self, run: subprocess.Popen[str], store: Path) -> bool:
        try:
            self._machine.remount("ro")
        except subprocess.CalledProcessError:
            return False  # a file is just being written
        time.sleep(self._rng.uniform(0.5, 2))
        self._machine.remount("rw")
        return True

    def _move_away(self, run: subprocess.Popen[str], store: Path) -> bool:
        if not store.is_dir():
            return False
        away = store.with_name("away")
        store.rename(away)
        time.sleep(self._rng.uniform(0.5, 2))
        assert not store.exists(), "a worker made a store of its own where the store was away"
        away.rename(store)
        return True


def start(machine: Machine, source: Path, prior: Path, store: Path, log: Path) -> subprocess.Popen[str]:
    arguments = ("purify", source, "--prior", prior, "--store", store, *SETTINGS)
    where = ("--address", machine.cluster.address, "--workers", NODES, "--at-least", 1)
    with log.open("a") as stream:
        return subprocess.Popen(
            [sys.executable, "-c", IMPATIENT, *map(str, (*arguments, *where))],
            stdout=stream,
            stderr=stream,
            text=True,
            preexec_fn=heed_interrupts,  # noqa: PLW1509
        )


def one_round(machine: Machine, injector: Injector, source: Path, prior: Path, log: Path, rng: random.Random) -> int:
    """Run to the end through faults; how often the driver was started."""
    store, faults, starts = machine.disk / "pur", 0, 0
    while True:
        run, last = start(machine, source, prior, store, log), None
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
        if (store / "objects").exists():
            verified = zipbatch("store", "verify", "--store", store)
            assert verified.code == 0, verified.out
        if run.returncode == 0:
            return starts
        assert not any((store / "versions").rglob("*.json")), "a version was published though the run failed"


def test_a_campaign(machine: Machine, prior: Path, tmp_path: Path):
    source = write_source(tmp_path / "bare", counts={"test": 2 * SHARDS}, shards=SHARDS)
    undisturbed = tmp_path / "undisturbed"
    ran = zipbatch("purify", source, "--prior", prior, "--store", undisturbed, *SETTINGS, "--json")
    assert ran.code == 0, ran.err
    expected, rng = objects(undisturbed), random.Random(SEED)
    injector, began, rounds, starts = Injector(machine, rng), time.monotonic(), 0, 0
    while injector.done.total() < FAULTS:
        rounds += 1
        starts += one_round(machine, injector, source, prior, tmp_path / "log.txt", rng)
        store = machine.disk / "pur"
        assert objects(store) == expected
        shown = zipbatch("store", "show", "campaign@latest", "--store", store, "--json").json
        assert shown["version"] == ran.json["version"]
        assert sum(row["samples"] for row in shown["shards"]) == 2 * SHARDS
        store.rename(machine.disk / f"done-{rounds}")
    print(f"\n{injector.done.total()} faults in {time.monotonic() - began:.0f} s: {rounds} rounds, {starts} drivers")  # noqa: T201
    for kind, count in injector.done.most_common():
        print(f"  {count:3} {kind}")  # noqa: T201
