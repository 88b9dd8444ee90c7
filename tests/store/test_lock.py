"""The lock of a run: who holds it, and that the dead hold nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from zipbatch.errors import UsageError
from zipbatch.storage import storage_path
from zipbatch.store.lock import RunLock, lock_file

HOLD = """
import sys, time; from pathlib import Path; from zipbatch.store.lock import RunLock
lock = RunLock(Path(sys.argv[1])); assert lock.take(run="theirs", now=0.0)
print("held", flush=True); time.sleep(600)
"""


def test_one_at_a_time(tmp_path: Path):
    file = tmp_path / "pur" / "locks" / "in.lock"
    mine, other = RunLock(file), RunLock(file)
    assert mine.take(run="a", now=1e9)
    assert not other.take(run="b", now=1e9)
    held = other.holder()
    assert held is not None
    assert (held.host, held.pid, held.since, held.run) == (
        socket.gethostname(),
        os.getpid(),
        "2001-09-09T01:46:40.000Z",
        "a",
    )
    mine.release()
    mine.release()
    assert other.take(run="b", now=1e9)
    assert (holder := mine.holder()) is not None
    assert holder.run == "b"


def test_a_dead_process_holds_nothing(tmp_path: Path):
    file = tmp_path / "in.lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, file], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        lock = RunLock(file)
        assert not lock.take(run="mine", now=0.0)
        assert (holder := lock.holder()) is not None
        assert (holder.pid, holder.run) == (process.pid, "theirs")
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert lock.take(run="mine", now=0.0)


@pytest.mark.parametrize("left", [b"", b"{", b'{"pid": 1}', b"[]", b"[" * 5000, b"\xff"])
def test_what_an_earlier_run_left_is_no_obstacle(tmp_path: Path, left: bytes):
    file = tmp_path / "in.lock"
    file.write_bytes(left)
    assert RunLock(file).holder() is None
    lock = RunLock(file)
    assert lock.take(run="a", now=0.0)
    assert json.loads(file.read_bytes())["run"] == "a"


def test_where_locks_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert lock_file(storage_path("/srv/pur"), "in") == Path("/srv/pur/locks/in.lock")
    assert lock_file(storage_path("file:///srv/pur"), "in") == Path("/srv/pur/locks/in.lock")
    monkeypatch.setenv("HOME", str(tmp_path))
    remote = [
        lock_file(storage_path(url), name)
        for url, name in (("s3://a/pur", "in"), ("s3://a/pur", "on"), ("s3://b/pur", "in"))
    ]
    assert len(set(remote)) == 3
    assert all(file.parent == tmp_path / ".cache" / "zipbatch" / "locks" for file in remote)
    assert lock_file(storage_path("s3://a/pur/"), "in") == remote[0]


def test_a_lock_that_cannot_be_had_says_why(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="run without ‹lock›"):
        RunLock(tmp_path / "file" / "in.lock").take(run="a", now=0.0)
