"""File systems without locks or without the syncing of folders: the work is done all the same, and said once."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from pathlib import Path

import pytest

from tests.making import files_below, write_source, zipbatch
from zipbatch import atomic, filesystem
from zipbatch.store.lock import RunLock

UNSUPPORTED = ["ENOSYS", "EINVAL", "ENOTSUP"]
REAL = ["EIO", "ENOSPC", "EDQUOT"]


@pytest.fixture(autouse=True)
def untold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystem, "_told", set())


def without_locks(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def refuse(_fd: int, _flags: int) -> None:
        raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))

    monkeypatch.setattr(fcntl, "flock", refuse)


def without_fsync(monkeypatch: pytest.MonkeyPatch, name: str, *, folders: bool) -> None:
    real = os.fsync

    def refuse(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode) == folders:
            raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))
        real(fd)

    monkeypatch.setattr(os, "fsync", refuse)


def purified(source: Path, store: Path) -> tuple[dict[str, bytes], str]:
    """The objects and tags of a store that a run has just made, and what the run said."""
    ran = zipbatch("purify", source, "--purifier", "blur", "--store", store, "--tag", "nightly", "--lock", "fail")
    if ran.code:
        ran = zipbatch("purify", source, "--purifier", "blur", "--store", store, "--tag", "nightly")
    assert ran.code == 0, ran.err
    assert zipbatch("store", "verify", "--store", store).code == 0
    return {name: data for name, data in files_below(store).items() if name.startswith("objects/")}, ran.err


@pytest.mark.parametrize("name", [*UNSUPPORTED, "ENOLCK"])
def test_a_store_without_locks_holds_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    source = write_source(tmp_path / "in", counts={"day": 6}, shards=3)
    usual, _ = purified(source, tmp_path / "usual")
    without_locks(monkeypatch, name)
    found, said = purified(source, tmp_path / "pur")
    assert found == usual
    assert said.count("its file system has no locks; going on without") == 1


@pytest.mark.parametrize("name", [*UNSUPPORTED, "EBADF", "EISDIR"])
def test_a_store_whose_folders_cannot_be_synced_holds_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    source = write_source(tmp_path / "in", counts={"day": 6}, shards=3)
    usual, _ = purified(source, tmp_path / "usual")
    without_fsync(monkeypatch, name, folders=True)
    found, said = purified(source, tmp_path / "pur")
    assert found == usual
    assert said.count("no fsync of folders; going on without") == 1


@pytest.mark.parametrize("folders", [False, True], ids=["files", "folders"])
@pytest.mark.parametrize("name", REAL)
def test_real_errors_are_errors_and_name_their_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, *, folders: bool
):
    without_fsync(monkeypatch, name, folders=folders)
    with pytest.raises(OSError, match=str(tmp_path)) as raised:
        atomic.write_bytes(tmp_path / "x", b"data")
    assert raised.value.errno == getattr(errno, name)
    if name != "ENOSPC":
        without_locks(monkeypatch, name)
        with (tmp_path / "y").open("wb") as stream, pytest.raises(OSError, match=str(tmp_path / "y")):
            atomic.hold(stream)


def test_temp_files_are_swept_by_age_alone_where_no_locks_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A neighbour that still writes has touched its file within the day."""
    paths = {age: atomic.temp_path(tmp_path) for age in (0.0, 3600.0, 2 * atomic.ABANDONED_S)}
    for age, path in paths.items():
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age,) * 2)
    without_locks(monkeypatch, "ENOSYS")
    atomic.sweep(tmp_path)
    assert [age for age, path in paths.items() if path.exists()] == [0.0, 3600.0]
    monkeypatch.undo()
    atomic.sweep(tmp_path)
    assert [age for age, path in paths.items() if path.exists()] == [0.0]


def test_a_run_lock_says_that_it_cannot_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = write_source(tmp_path / "in", counts={"day": 2}, shards=1)
    without_locks(monkeypatch, "ENOSYS")
    ran = zipbatch("purify", source, "--purifier", "blur", "--store", tmp_path / "pur", "--lock", "skip")
    assert ran.code == 2
    assert "cannot be locked" in ran.err
    assert "run without --lock" in ran.err


def test_who_holds_a_lock_still_holds_it(tmp_path: Path):
    file = tmp_path / "a.lock"
    one, two = RunLock(file), RunLock(file)
    assert one.take(run="a", now=0)
    assert not two.take(run="b", now=0)
    with file.open("rb") as stream, pytest.raises(BlockingIOError):
        filesystem.lock(stream, file, wait=False)
