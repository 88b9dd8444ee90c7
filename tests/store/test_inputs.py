"""Remembered digests of bare shards: never wrong, and never missed."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from tests.making import files_below, write_source, zipbatch
from zipbatch.storage import StoragePath, stamp
from zipbatch.store import RememberedInputs, Store


@pytest.fixture
def store(pur: StoragePath) -> Store:
    store = Store(pur)
    store.prepare()
    return store


def test_remembers_across_runs(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shard = tmp_path / "ä b.tar"
    shard.write_bytes(b"one")
    inputs = RememberedInputs(store, "d")
    assert inputs.digest(shard) is None
    inputs.remember(shard, "1" * 64, stamp(shard))
    inputs.save()
    again = RememberedInputs(store, "d")
    assert again.digest(shard) == "1" * 64
    monkeypatch.chdir(tmp_path)
    assert again.digest(Path("ä b.tar")) == "1" * 64
    assert RememberedInputs(store, "e").digest(shard) is None


@pytest.mark.parametrize("change", ["size", "mtime"])
def test_forgets_a_changed_file(store: Store, tmp_path: Path, change: str):
    shard = tmp_path / "a.tar"
    shard.write_bytes(b"one")
    inputs = RememberedInputs(store, "d")
    inputs.remember(shard, "1" * 64, stamp(shard))
    inputs.save()
    stat = shard.stat()
    if change == "size":
        shard.write_bytes(b"three")
        os.utime(shard, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    else:
        shard.write_bytes(b"two")
        os.utime(shard, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert RememberedInputs(store, "d").digest(shard) is None


@pytest.mark.parametrize("how", ["in place", "renamed over", "linked over"])
@pytest.mark.parametrize("trust_mtime", [False, True])
def test_another_content_of_the_same_size_and_time(store: Store, tmp_path: Path, how: str, *, trust_mtime: bool):
    """Tars are padded to the same size, and copies keep times; inode and ctime tell."""
    shard, other = tmp_path / "a.tar", tmp_path / "b.tar"
    shard.write_bytes(b"one")
    inputs = RememberedInputs(store, "d")
    inputs.remember(shard, "1" * 64, stamp(shard))
    inputs.save()
    stat = shard.stat()
    if how == "in place":
        shard.write_bytes(b"two")
    else:
        other.write_bytes(b"two")
        shard.unlink()
        other.rename(shard) if how == "renamed over" else shard.hardlink_to(other)
    os.utime(shard, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    again = RememberedInputs(store, "d", trust_mtime=trust_mtime)
    assert again.digest(shard) == ("1" * 64 if trust_mtime else None)


def test_what_an_older_release_remembered_is_read_again(store: Store, tmp_path: Path):
    shard = tmp_path / "a.tar"
    shard.write_bytes(b"one")
    stat = shard.stat()
    line = json.dumps([str(shard.resolve()), stat.st_size, stat.st_mtime_ns, "1" * 64])
    store.write_file("inputs/d.jsonl.gz", gzip.compress(line.encode()))
    assert RememberedInputs(store, "d").digest(shard) is None
    assert RememberedInputs(store, "d", trust_mtime=True).digest(shard) == "1" * 64


@pytest.mark.parametrize("damage", [b"", b"not gzip", b"\x1f\x8b", "cut", "list", "fields"])
def test_survives_damage(store: Store, tmp_path: Path, damage: bytes | str):
    shard = tmp_path / "a.tar"
    shard.write_bytes(b"one")
    inputs = RememberedInputs(store, "d")
    inputs.remember(shard, "1" * 64, stamp(shard))
    inputs.save()
    file = store.root / "inputs" / "d.jsonl.gz"
    made = {"cut": file.read_bytes()[:-9], "list": gzip.compress(b"[1]\n"), "fields": gzip.compress(b'[1,null,3,"x"]')}
    file.write_bytes(made[damage] if isinstance(damage, str) else damage)
    again = RememberedInputs(store, "d")
    assert again.digest(shard) is None
    again.remember(shard, "2" * 64, stamp(shard))
    again.save()
    assert RememberedInputs(store, "d").digest(shard) == "2" * 64


def test_two_runs_remember_together(store: Store, tmp_path: Path):
    runs = [RememberedInputs(store, "d") for _ in range(2)]
    for number, inputs in enumerate(runs):
        inputs.release()
        shard = tmp_path / f"{number}.tar"
        shard.write_bytes(b"x")
        inputs.remember(shard, f"{number}" * 64, stamp(shard))
        inputs.save()
        assert inputs.digest(shard) == f"{number}" * 64
    again = RememberedInputs(store, "d")
    assert [again.digest(tmp_path / f"{number}.tar") for number in range(2)] == ["0" * 64, "1" * 64]
    again.release()
    assert again.digest(tmp_path / "0.tar") is None


def test_a_link_is_what_it_leads_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Files of one size and time: a link that is turned from one to the other is another input."""
    store = Store(tmp_path / "pur")
    store.prepare()
    (tmp_path / "days").mkdir()
    (tmp_path / "short").symlink_to(tmp_path / "days")
    for number, name in enumerate(("one", "two"), 1):
        file = tmp_path / "days" / f"{name}.tar"
        file.write_bytes(name.encode())
        os.utime(file, ns=(1, 1))
        inputs = RememberedInputs(store, "d")
        inputs.remember(file, f"{number}" * 64, stamp(file))
        inputs.save()
    again, link = RememberedInputs(store, "d"), tmp_path / "link.tar"
    for number, name in enumerate(("one", "two"), 1):
        link.unlink(missing_ok=True)
        link.symlink_to(tmp_path / "days" / f"{name}.tar")
        monkeypatch.chdir(tmp_path / "short")
        for path in (link, tmp_path / "short" / f"{name}.tar", Path(f"{name}.tar"), Path(f"../short/{name}.tar")):
            assert again.digest(path) == f"{number}" * 64, path


def test_saves_only_what_changed(store: Store, pur: StoragePath):
    RememberedInputs(store, "d").save()
    assert files_below(pur) == {}


def test_a_replaced_shard_is_computed_anew(tmp_path: Path, pur: StoragePath):
    source = write_source(tmp_path / "in", counts={"test": 6}, shards=3)
    command = ["purify", source, "--purifier", "blur", "--store", pur, "--json"]
    assert zipbatch(*command).json["computed"] == 3
    assert zipbatch(*command, "--dry-run").json["of_unknown_digest"] == 0
    first, second = source / "test-000000.tar", source / "test-000001.tar"
    first.write_bytes(second.read_bytes())
    ran = zipbatch(*command)
    assert (ran.json["computed"], ran.json["reused"], ran.json["new_version"]) == (0, 3, True)


def test_a_shard_of_the_same_size_and_time_is_purified_anew(tmp_path: Path):
    source = write_source(tmp_path / "in", counts={"test": 6}, shards=3)
    command = ["purify", source, "--purifier", "blur", "--store", tmp_path / "pur", "--json"]
    assert zipbatch(*command).json["computed"] == 3
    first, second = source / "test-000000.tar", source / "test-000001.tar"
    assert first.stat().st_size == second.stat().st_size
    times = first.stat().st_atime_ns, first.stat().st_mtime_ns
    first.write_bytes(second.read_bytes())
    os.utime(first, ns=times)
    assert zipbatch(*command, "--trust-mtime").json["new_version"] is False
    assert zipbatch(*command).json["new_version"] is True
