"""Google Cloud Storage through gcsfs, against an emulator on this machine: what S3 is tested for, in short."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from gcp_storage_emulator.server import create_server

from tests.making import files_below, zipbatch
from zipbatch import storage
from zipbatch.storage import StoragePath
from zipbatch.storage.remote import client_for

BLUR = ("--purifier", "blur", "--device", "cpu")


@pytest.fixture(scope="module")
def bucket() -> Iterator[StoragePath]:
    """An empty bucket."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket="zipbatch-tests")
    server.start()
    logging.getLogger("gcsfs").setLevel(logging.ERROR)  # it asks for the bucket's kind, which needs an account
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        yield storage.storage_path("gs://zipbatch-tests")
    client_for.cache_clear()
    server.stop()


def test_a_file_from_birth_to_death(bucket: StoragePath, tmp_path: Path):
    file = bucket / "folder" / "x.txt"
    assert not file.is_file()
    storage.put_bytes(file, b"one")
    first = storage.stamp(file)
    assert (file.is_file(), file.read_bytes(), first.size, storage.names_in(bucket / "folder")) == (
        True,
        b"one",
        3,
        ["x.txt"],
    )
    assert storage.read_bytes(file, limit=3) == b"one"
    with pytest.raises(ValueError, match="over the limit of 2"):
        storage.read_bytes(file, limit=2)
    storage.update(file, lambda content: (content or b"") + b"!")
    assert (file.read_bytes(), storage.stamp(file) == first) == (b"one!", False)
    with storage.local_copy(file) as copy:
        assert copy.read_bytes() == b"one!"
    (tmp_path / "big").write_bytes(bytes(300_000))
    storage.put_file(tmp_path / "big", file)
    assert storage.stamp(file).size == 300_000
    file.unlink()
    assert [file.is_file(), storage.names_in(bucket / "folder")] == [False, []]
    with pytest.raises(FileNotFoundError):
        file.read_bytes()


def test_a_store_there_is_a_store_here(bucket: StoragePath, staged: Path, victim: Path, tmp_path: Path):
    there, here = bucket / "pur", tmp_path / "pur"
    runs = [zipbatch("purify", staged, *BLUR, "--store", store, "--json") for store in (there, here)]
    assert [run.code for run in runs] == [0, 0], runs[0].err
    assert runs[0].json["version"] == runs[1].json["version"]
    names = {name for name, _ in storage.stamps_below(there / "objects")}
    assert names == files_below(here / "objects").keys()
    again = zipbatch("purify", staged, *BLUR, "--store", there, "--json")
    assert (again.json["computed"], again.json["reused"]) == (0, 6)
    verified = zipbatch("store", "verify", "--store", there)
    assert (verified.code, "all good" in verified.out) == (0, True)
    asked = ("evaluate", victim, "--data", staged, "--purified", "tiny-badnets", "--json")
    rows = [zipbatch(*asked, "--store", store).json["rows"] for store in (there, here)]
    assert [row["ca"] for row in rows[0]] == [row["ca"] for row in rows[1]]
