"""An object store that fails: what passes is waited for, what does not is told, and nothing is half there."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.making import sample, write_source, zipbatch
from tests.object_store import BUCKET, SECRET, Request, S3Path, S3Server, times
from zipbatch import storage
from zipbatch.storage import retries
from zipbatch.storage.remote import client_for
from zipbatch.storage.retries import RefusedError, RetryPolicy, UnreachableError, with_retries
from zipbatch.store import Store


@pytest.fixture(scope="module", autouse=True)
def little_patience(s3: S3Server) -> Iterator[None]:
    """Tries of half a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZIPBATCH_REMOTE_TIMEOUT", "0.6")
        patch.setenv("ZIPBATCH_REMOTE_TRIES", "4")
        client_for.cache_clear()
        yield
    client_for.cache_clear()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """No real waiting between tries: the waits there would have been."""
    found: list[float] = []
    monkeypatch.setattr(retries, "time", SimpleNamespace(sleep=found.append))
    return found


@pytest.fixture
def stranger(waits: list[float]) -> Iterator[None]:
    """A process that has not been in contact with any store yet."""
    client_for.cache_clear()
    yield
    client_for.cache_clear()


@pytest.fixture
def file(waits: list[float]) -> S3Path:
    """An object, and a client that has been in contact."""
    made = S3Path.fresh() / "x.bin"
    made.write_bytes(b"content")
    assert made.is_file()
    waits.clear()
    return made


@pytest.mark.parametrize("what", ["drop", "503", "hang", "cut"])
def test_what_passes_is_waited_for(s3: S3Server, file: S3Path, waits: list[float], what: str):
    with s3.failing(times(3, what)):
        assert file.read_bytes() == b"content"
    assert 1 <= len(waits) <= 3  # aiohttp itself takes a second connection when one that was kept open breaks
    with s3.failing(times(2, what)), storage.local_copy(file) as copy:
        assert copy.read_bytes() == b"content"


@pytest.mark.parametrize(
    ("what", "said"), [("drop", "cannot be reached"), ("503", "503"), ("hang", "no answer in time")]
)
def test_what_does_not_pass_is_told(s3: S3Server, file: S3Path, waits: list[float], what: str, said: str):
    with s3.failing(times(100, what)), pytest.raises(UnreachableError, match=said) as caught:
        storage.put_bytes(file, b"new")
    assert str(file) in str(caught.value)
    assert "4 tries" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert file.read_bytes() == b"content"
    assert [0.25 * 2**n <= wait <= 0.5 * 2**n for n, wait in enumerate(waits[:3])] == [True] * 3


def test_an_interrupted_put_leaves_nothing_visible(s3: S3Server, file: S3Path, tmp_path: Path):
    (tmp_path / "x").write_bytes(bytes(3_000_000))
    target = file.parent / "big"
    with s3.failing(times(100, "drop", of=lambda r: r.method == "PUT")), pytest.raises(UnreachableError):
        storage.put_file(tmp_path / "x", target)
    assert [path.name for path in file.parent.rglob("*")] == ["x.bin"]
    assert s3.client().list_multipart_uploads(Bucket=BUCKET).get("Uploads", []) == []


def test_a_full_local_disk_is_not_the_stores_fault():
    calls: list[int] = []

    def full() -> None:
        calls.append(1)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        with_retries("s3://b/k", full, RetryPolicy())
    assert len(calls) == 1


@pytest.mark.parametrize(("variable", "text"), [("TIMEOUT", "soon"), ("TIMEOUT", "0"), ("TRIES", "0")])
def test_unfit_patience(monkeypatch: pytest.MonkeyPatch, stranger: None, variable: str, text: str):
    monkeypatch.setenv(f"ZIPBATCH_REMOTE_{variable}", text)
    ran = zipbatch("store", "ls", "--store", f"s3://{BUCKET}/pur")
    assert (ran.code, f"ZIPBATCH_REMOTE_{variable}={text}" in ran.err) == (2, True)


def purify_to(store: object, tmp_path: Path) -> list[object]:
    source = write_source(tmp_path / "in", counts={"test": 2}, shards=1)
    return ["purify", source, "--purifier", "blur", "--store", store]


def test_a_server_that_is_not_there_is_told_in_seconds(stranger: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
        started = time.monotonic()
        ran = zipbatch(*purify_to(f"s3://{BUCKET}/pur", tmp_path))
    assert time.monotonic() - started < 5
    assert ran.code == 1
    assert f"s3://{BUCKET}: cannot be reached" in ran.err
    assert ran.err.count("\n") == 1


def test_a_server_that_hangs_is_told_in_seconds(s3: S3Server, stranger: None, tmp_path: Path):
    started = time.monotonic()
    with s3.failing(times(1000, "hang")):
        ran = zipbatch(*purify_to(f"s3://{BUCKET}/pur", tmp_path))
    assert time.monotonic() - started < 10
    assert (ran.code, "no answer in time" in ran.err) == (1, True)


def test_a_missing_bucket(waits: list[float], tmp_path: Path):
    ran = zipbatch(*purify_to("s3://no-such-bucket/pur", tmp_path))
    assert ran.code == 2
    assert "there is no such bucket" in ran.err


def test_no_credentials(stranger: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    ran = zipbatch(*purify_to(f"s3://{BUCKET}/pur", tmp_path))
    assert ran.code == 2
    assert "no credentials" in ran.err


def test_access_denied_names_no_secret(s3: S3Server, file: S3Path):
    said = r"x\.bin: access denied \((403|AccessDenied)\); check the credentials"
    with s3.failing(times(100, "403")), pytest.raises(RefusedError, match=said) as caught:
        file.read_bytes()
    assert SECRET not in str(caught.value)


def test_a_verify_that_cannot_read_repairs_nothing(s3: S3Server, file: S3Path, tmp_path: Path):
    store = S3Path.fresh()
    assert zipbatch(*purify_to(store, tmp_path)).code == 0
    with s3.failing(times(1000, "503", of=lambda r: r.path.endswith(".tar"))):
        ran = zipbatch("store", "verify", "--repair", "--store", store)
    assert ran.code == 1
    assert "answers 503" in ran.err
    verified = zipbatch("store", "verify", "--store", store)
    assert (verified.code, "1 objects" in verified.out) == (0, True)


def test_a_tag_that_another_run_moves_in_between(s3: S3Server, file: S3Path):
    store = S3Path.fresh()
    versions, tag = Store(store).versions, store / "tags" / "d" / "latest"
    versions.tags.move("d", "latest", "aaaa", started_ns=1)
    left = [1]

    def meanwhile(request: Request) -> None:
        if request.method == "PUT" and "if-match" in request.headers and left.pop() == 1:
            left.append(0)
            tag.write_bytes(b"cccc\n3\n")

    with s3.failing(meanwhile):
        assert not versions.tags.move("d", "latest", "bbbb", started_ns=2)
    assert tag.read_bytes() == b"cccc\n3\n"


def test_a_tag_on_a_server_without_conditional_puts(s3: S3Server, file: S3Path):
    versions = Store(S3Path.fresh()).versions

    def plain(request: Request) -> str | None:
        return "501" if {"if-match", "if-none-match"} & set(request.headers) else None

    with s3.failing(plain):
        assert versions.tags.move("d", "latest", "bbbb", started_ns=2)
        assert not versions.tags.move("d", "latest", "aaaa", started_ns=1)
        assert versions.tags.move("d", "latest", "cccc", started_ns=3)
    assert versions.tags.read("d", "latest") == "cccc"


def test_a_put_whose_answer_is_lost_counts_once(s3: S3Server, file: S3Path):
    versions = Store(S3Path.fresh()).versions
    with s3.failing(times(1, "cut-put", of=lambda r: r.method == "PUT")):
        assert versions.tags.move("d", "latest", "aaaa", started_ns=1)
    assert versions.tags.read("d", "latest") == "aaaa"


def test_objects_are_sent_once_they_are_whole(s3: S3Server, file: S3Path, cache: Path):
    store = Store(S3Path.fresh())
    with s3.watched() as requests:
        with store.objects.new() as writer:
            writer.write(sample("k", 1, seed=1))
            info = writer.finish()
            assert requests == []
            store.objects.publish(writer, info)
        assert [r.method for r in requests] == ["PUT"]
    assert list((cache / "outgoing").iterdir()) == []
