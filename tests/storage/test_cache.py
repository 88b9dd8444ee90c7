"""Copies of objects: never stale, limited in size, never taken away from who reads them."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.object_store import Request, S3Path, S3Server
from zipbatch import storage
from zipbatch.errors import DataError, UsageError


@pytest.fixture
def own_cache(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of 1 MB."""
    monkeypatch.setenv("ZIPBATCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ZIPBATCH_CACHE_GB", "0.001")
    return tmp_path / "cache" / "objects"


def cached(folder: Path) -> list[str]:
    """Names of what is kept, without the digest."""
    return sorted(file.name.partition("-")[2] for file in folder.iterdir() if not file.name.startswith("."))


def put(name: str, data: bytes) -> S3Path:
    file = S3Path.fresh() / name
    file.write_bytes(data)
    return file


def read(file: storage.StoragePath) -> bytes:
    with storage.local_copy(file) as copy:
        return copy.read_bytes()


def gets(requests: list[Request]) -> int:
    return sum(request.method == "GET" for request in requests)


def test_a_second_look_downloads_nothing(s3: S3Server, own_cache: Path):
    file = put("a.tar", b"one")
    with s3.watched() as requests:
        assert read(file) == read(file) == b"one"
    assert gets(requests) == 1
    assert cached(own_cache) == ["a.tar"]


def test_a_changed_object_is_never_served_stale(s3: S3Server, own_cache: Path):
    file = put("a.tar", b"one")
    read(file)
    file.write_bytes(b"two")  # as long as before
    assert read(file) == b"two"


def test_a_damaged_copy_is_fetched_again(s3: S3Server, own_cache: Path):
    file = put("a.tar", b"one")
    for damage in (b"", b"two"):  # cut short, or as long as before
        read(file)
        next(own_cache.glob("*-a.tar")).write_bytes(damage)
        assert read(file) == b"one"


def test_the_least_recently_used_go_first(s3: S3Server, own_cache: Path):
    a, b, c = (put(f"{name}.tar", name.encode() * 400_000) for name in "abc")
    for file in (a, b, a, c):
        read(file)
    assert cached(own_cache) == ["a.tar", "c.tar"]


def test_what_is_in_use_stays(s3: S3Server, own_cache: Path):
    a, b, c = (put(f"{name}.tar", name.encode() * 900_000) for name in "abc")
    with storage.local_copy(a) as copy:
        read(b)
        read(c)
        assert copy.read_bytes() == b"a" * 900_000
        assert cached(own_cache) == ["a.tar", "c.tar"]
    read(b)
    assert cached(own_cache) == ["b.tar"]


def test_what_another_process_uses_stays(s3: S3Server, own_cache: Path):
    a, b = (put(f"{name}.tar", name.encode() * 900_000) for name in "ab")
    script = (
        "import sys; from zipbatch import storage\n"
        f"with storage.local_copy(storage.storage_path({str(a)!r})) as copy: print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        read(b)
        assert cached(own_cache) == ["a.tar", "b.tar"]
        process.communicate(b"")
    assert process.returncode == 0


def test_many_at_once_download_once(s3: S3Server, own_cache: Path):
    file, found = put("a.tar", b"one"), list[bytes]()
    threads = [threading.Thread(target=lambda: found.append(read(file))) for _ in range(8)]
    with s3.watched() as requests:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (found, gets(requests)) == ([b"one"] * 8, 1)


def test_an_object_that_changes_while_it_is_read(s3: S3Server, own_cache: Path):
    file, writes = put("a.tar", b"0"), list[int]()

    def rewrite(request: Request) -> None:
        if request.method == "GET":
            writes.append(len(writes))
            file.write_bytes(b"%d" % len(writes))

    with s3.failing(rewrite), pytest.raises(DataError, match=r"a\.tar: changes while it is read"):
        read(file)
    assert len(writes) == 3
    assert cached(own_cache) == []


def test_a_copy_past_the_cache_is_the_stores_own(s3: S3Server, own_cache: Path):
    file = put("a.tar", b"one")
    read(file)
    with s3.watched() as requests, storage.local_copy(file, cached=False) as copy:
        assert copy.read_bytes() == b"one"
    assert gets(requests) == 1
    assert not copy.exists()


@pytest.mark.parametrize("size", ["0", "-1", "much", "nan"])
def test_an_unfit_size(s3: S3Server, own_cache: Path, monkeypatch: pytest.MonkeyPatch, size: str):
    monkeypatch.setenv("ZIPBATCH_CACHE_GB", size)
    with pytest.raises(UsageError, match=f"ZIPBATCH_CACHE_GB={size}"):
        read(put("a.tar", b"one"))
