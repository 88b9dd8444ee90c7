"""Only what must be computed is, whatever came, went or changed; runs that meet on one store end right."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.making import files_below, purifier_spec, sample, write_shard, zipbatch
from zipbatch.atomic import sha256_file
from zipbatch.cluster import Workers
from zipbatch.datasets import ShardDataset, ShardRef
from zipbatch.shards import Sample
from zipbatch.stages.purify import run as purify_module
from zipbatch.stages.purify.job import PurifyJob
from zipbatch.stages.purify.plan import plan_purify
from zipbatch.stages.purify.publish import publish_version
from zipbatch.store import GcPolicy, Store, VersionRow, collect, find_garbage
from zipbatch.store.objects import Objects
from zipbatch.store.tasks import Tasks

BLUR = ("--purifier", "blur", "--device", "cpu")


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    """Six shards of two images."""
    for day in range(6):
        write_day(tmp_path / "in", day)
    return tmp_path / "in"


def write_day(folder: Path, day: int, *, seed: int = 0) -> None:
    samples = [sample(f"d{day}_{i}", None, seed=1000 * seed + 10 * day + i, size=8) for i in range(2)]
    write_shard(folder / f"day-{day:03d}.tar", samples)


def purified(*arguments: object) -> dict[str, Any]:
    ran = zipbatch("purify", *arguments, *BLUR, "--json")
    assert ran.code == 0, ran.err
    return ran.json


def objects(store: Path) -> dict[str, bytes]:
    return files_below(store / "objects")


def shown(store: Path) -> dict[str, Any]:
    return zipbatch("store", "show", "in", "--store", store, "--json").json


def test_every_kind_of_change_costs_what_it_must(incoming: Path, tmp_path: Path):
    store = tmp_path / "pur"
    first = purified(incoming, "--store", store)
    assert (first["computed"], first["reused"], len(objects(store))) == (6, 0, 6)

    for day in (6, 7):
        write_day(incoming, day)
    added = purified(incoming, "--store", store)
    assert (added["computed"], added["reused"], len(objects(store))) == (2, 6, 8)
    assert shown(store)["reused"] == {"computed": 2, "found": 0, "parent": 6}

    write_day(incoming, 3, seed=1)
    before = objects(store)
    changed = purified(incoming, "--store", store)
    assert (changed["computed"], changed["reused"]) == (1, 7)
    assert (before.items() <= objects(store).items(), len(objects(store))) == (True, 9)
    assert shown(store)["reused"] == {"computed": 1, "found": 0, "parent": 7}

    (incoming / "day-000.tar").unlink()
    removed = purified(incoming, "--store", store)
    assert (removed["computed"], removed["reused"], removed["shards"]) == (0, 7, 7)
    assert (removed["new_version"], len(objects(store))) == (True, 9)

    (incoming / "day-007.tar").rename(incoming / "day-099.tar")
    renamed = purified(incoming, "--store", store)
    assert (renamed["computed"], renamed["reused"], renamed["new_version"]) == (0, 7, True)
    assert [row["shard"] for row in shown(store)["shards"]][-1] == "day-099.tar"

    setting = purified(incoming, "--store", store, "--transform", "blur:4")
    assert (setting["computed"], setting["reused"]) == (7, 0)
    back = purified(incoming, "--store", store)
    assert (back["computed"], back["version"], back["new_version"]) == (0, renamed["version"], False)

    write_day(incoming, 3)
    again = purified(incoming, "--store", store)
    assert (again["computed"], again["reused"]) == (0, 7), "the shard of the day before was forgotten"
    assert shown(store)["reused"] == {"computed": 0, "found": 1, "parent": 6}
    assert zipbatch("store", "verify", "--store", store).code == 0


def test_bytes_are_those_of_a_run_from_nothing(incoming: Path, tmp_path: Path):
    purified(incoming, "--store", tmp_path / "pur")
    write_day(incoming, 1, seed=1)
    write_day(incoming, 6)
    grown = purified(incoming, "--store", tmp_path / "pur")
    fresh = purified(incoming, "--store", tmp_path / "new")
    assert grown["version"] == fresh["version"]
    assert objects(tmp_path / "new").items() <= objects(tmp_path / "pur").items()


def test_what_gc_took_in_the_middle_of_a_run_is_made_anew(
    incoming: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The objects are old, no version names them, and gc comes after the plan: the run begins again by itself."""
    store = Store(tmp_path / "pur")
    first = purified(incoming, "--store", store.root)
    store.versions.tags.remove("in", "latest")
    store.versions.remove("in", first["version"])
    for file in store.root.rglob("*.tar"):
        os.utime(file, (1, 1))
    for file in store.root.rglob("*.json"):
        os.utime(file, (1, 1))
    write_day(incoming, 6)
    collected = []

    def publish(*arguments: Any, **named: Any) -> Any:
        if not collected:
            collected.append(collect(store, find_garbage(store, GcPolicy())).objects)
        return real(*arguments, **named)

    real = purify_module._publish
    monkeypatch.setattr(purify_module, "_publish", publish)
    said = purified(incoming, "--store", store.root)
    assert collected == [6]
    assert (said["computed"], said["reused"], said["shards"]) == (6, 1, 7)
    assert zipbatch("store", "verify", "--store", store.root).code == 0


def test_an_object_that_vanished_is_made_anew(incoming: Path, tmp_path: Path):
    store = tmp_path / "pur"
    first = purified(incoming, "--store", store)
    lost = sorted((store / "objects").rglob("*.tar"))[2]
    content = lost.read_bytes()
    lost.unlink()
    again = purified(incoming, "--store", store)
    assert (again["computed"], again["version"], again["new_version"]) == (1, first["version"], False)
    assert lost.read_bytes() == content


@pytest.mark.parametrize("keeps", ["size", "size and mtime", "nothing"])
@pytest.mark.parametrize("found_by", ["the parent's list", "its record"])
def test_a_damaged_object_is_made_anew(incoming: Path, tmp_path: Path, keeps: str, found_by: str):
    """Neither the same version nor a new one passes damage on."""
    store = tmp_path / "pur"
    first = purified(incoming, "--store", store)
    if found_by == "its record":
        assert zipbatch("purify", incoming, "--purifier", "median", "--store", store).code == 0
    damaged = Store(store).objects.path(Store(store).versions.read(f"in@{first['version']}").rows[2].output)
    content, times = damaged.read_bytes(), damaged.stat()
    damaged.chmod(0o644)
    damaged.write_bytes(content[:700] if keeps == "nothing" else content[:700] + b"\xff" + content[701:])
    if keeps == "size and mtime":
        os.utime(damaged, ns=(times.st_atime_ns, times.st_mtime_ns))
    write_day(incoming, 6)
    again = purified(incoming, "--store", store)
    assert (again["computed"], again["reused"], damaged.read_bytes() == content) == (2, 5, True)
    assert zipbatch("store", "verify", "--store", store).code == 0


def test_objects_to_which_something_was_done_are_read_once(
    incoming: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A link to it, from an export or a backup, changes an object's ctime."""
    store, read = tmp_path / "pur", []
    purified(incoming, "--store", store)
    whole = Objects.sound
    monkeypatch.setattr(Objects, "sound", lambda self, name: (read.append(name), whole(self, name))[1])
    assert purified(incoming, "--store", store)["reused"] == 6 and not read
    assert zipbatch("store", "export", "in", tmp_path / "out", "--store", store).code == 0
    planned = zipbatch("purify", incoming, *BLUR, "--store", store, "--dry-run", "--json").json
    assert (planned["reused"], planned["to_look_at"], planned["to_compute"]) == (0, 6, 0)
    shown = zipbatch("purify", incoming, *BLUR, "--store", store, "--dry-run").out
    assert "6 to be read: done before, but touched since" in " ".join(shown.split())
    assert purified(incoming, "--store", store)["reused"] == 6 and len(read) == 6
    monkeypatch.setattr(Tasks, "peek", lambda *_: pytest.fail("the list alone tells"))
    assert zipbatch("purify", incoming, *BLUR, "--store", store, "--dry-run", "--json").json["reused"] == 6


def test_objects_are_read_only(incoming: Path, tmp_path: Path):
    """So that nobody writes through a link into the store."""
    store = tmp_path / "pur"
    write_shard(incoming / "day-000.tar", [sample("ok", None, seed=1, size=8), Sample("odd", {"png": b"no image"})])
    assert zipbatch("purify", incoming, *BLUR, "--quarantine", "--store", store).code == 0
    files = list((store / "objects").rglob("*.tar"))
    assert len(files) == 7 and all(file.stat().st_mode & 0o222 == 0 for file in files)
    assert zipbatch("store", "export", "in", tmp_path / "out", "--store", store).code == 0
    assert all(file.stat().st_mode & 0o222 == 0 for file in (tmp_path / "out").glob("*.tar"))
    assert zipbatch("purify", incoming, *BLUR, "--quarantine", "--store", store).code == 0
    assert zipbatch("store", "tag", "in", "kept", "--store", store).code == 0
    collect(Store(store), find_garbage(Store(store), GcPolicy(grace_s=0)))
    assert zipbatch("store", "verify", "--store", store).code == 0


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "zipbatch", "purify", *map(str, arguments), *BLUR, "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_runs_at_once_end_right(incoming: Path, tmp_path: Path):
    """Real processes: two of the same input, and one of them has more besides."""
    store = tmp_path / "pur"
    both = [start(incoming, "--store", store, "--tag", f"run{number}") for number in range(2)]
    ended = [(run.wait(120), *run.communicate()) for run in both]
    assert [code for code, _, _ in ended] == [0, 0], ended
    said = shown(store)
    assert len(list((store / "versions" / "in").glob("*.json"))) == 1
    assert len(objects(store)) == len(files_below(store / "tasks")) == 6
    listed = zipbatch("store", "ls", "--store", store, "--json").json["versions"]
    assert [(v["version"], v["tags"]) for v in listed] == [(said["version"], ["latest", "run0", "run1"])]
    assert zipbatch("store", "verify", "--store", store).code == 0
    assert files_below(store / "claims") == {}
    assert purified(incoming, "--store", store)["computed"] == 0


@pytest.mark.slow
def test_a_run_beside_gc_after_gc(tmp_path: Path):
    """Real processes: gc without any grace, again and again, while runs go back and forth between two settings."""
    source, store = tmp_path / "in", Store(tmp_path / "pur")
    for day in range(12):
        write_day(source, day)
    purified(source, "--store", store.root)
    loop = (
        "import sys, time, pathlib\n"
        "from zipbatch.store import *\n"
        "store, n = Store(pathlib.Path(sys.argv[1])), 0\n"
        "while not (store.root / 'stop').exists():\n"
        "    n += collect(store, find_garbage(store, GcPolicy(0.0, 2.0))).objects\n"
        "print(n)\n"
    )
    gc = subprocess.Popen([sys.executable, "-c", loop, str(store.root)], stdout=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            for transform in ("blur:2", "blur:4"):
                said = purified(source, "--store", store.root, "--transform", transform)
                rows = store.versions.read(f"in@{said['version']}").rows
                assert all(sha256_file(Path(str(store.objects.path(row.output)))) == row.output for row in rows)
    finally:
        (store.root / "stop").touch()
        removed = int(gc.communicate(timeout=60)[0])
    assert gc.returncode == 0
    assert removed >= 12, "gc never got anything to remove"
    (store.root / "stop").unlink()
    verified = zipbatch("store", "verify", "--store", store.root)
    assert verified.code == 0, verified.out


def test_planning_many_shards_is_quick(tmp_path: Path):
    """20,000 shards whose digests are known, all but ten in the parent version: 13 µs each, measured; allowed: 250."""
    store, count = Store(tmp_path / "pur"), 20_000
    store.prepare()
    digest = [hashlib.sha256(b"%d" % number).hexdigest() for number in range(count)]
    for number in range(256):
        (store.root / "objects" / f"{number:02x}").mkdir()
    for sha256 in digest[10:]:
        os.mknod(store.root / "objects" / sha256[:2] / f"{sha256}.tar")
    shards = tuple(
        ShardRef(split="test", name=f"s{n}.tar", path=tmp_path / f"s{n}.tar", sha256=digest[n], samples=3)
        for n in range(count)
    )
    rows = [VersionRow("test", s.name, digest[n], digest[n], 3) for n, s in enumerate(shards) if n >= 10]
    spec = purifier_spec(method="blur")
    publish_version(store, "d", spec.identity, rows=rows, tag=None, parent=None, started_ns=1)
    request = PurifyJob(dataset=ShardDataset(name="d", shards=shards), spec=spec, store=store, workers=Workers())
    started = time.process_time()
    plan = plan_purify(request)
    spent_s = time.process_time() - started
    assert (len(plan.rows), [task.name for task in plan.tasks]) == (count - 10, [f"s{n}.tar" for n in range(10)])
    assert spent_s < 5
