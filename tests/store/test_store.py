"""Objects, task records and names: content-addressed, object first, safe as paths."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from tests.making import files_below, sample, write_shard
from zipbatch.errors import DataError, UsageError
from zipbatch.shards import Sample
from zipbatch.storage import StoragePath, put_bytes, sha256
from zipbatch.store import LostObjectsError, Store, TaskRecord, check_name, parse_reference, task_key
from zipbatch.store import records as records_module

KEY = task_key("0" * 64, {"method": "blur"})


@pytest.fixture
def store(pur: StoragePath) -> Store:
    store = Store(pur)
    store.prepare()
    return store


def put(store: Store, *samples: Sample) -> str:
    with store.objects.new() as writer:
        for item in samples:
            writer.write(item)
        info = writer.finish()
        store.objects.publish(writer, info)
    return info.sha256


def record(output: str, **fields: object) -> TaskRecord:
    given = {"input_sha256": "0" * 64, "output_sha256": output, "samples_in": 1, "samples_out": 1} | fields
    return TaskRecord(**given, seconds=0.5, device="cpu", worker={}, versions={})


def test_an_object_lies_under_its_digest(store: Store, pur: StoragePath, tmp_path: Path):
    digest = put(store, sample("a", 1, seed=1))
    assert store.objects.has(digest)
    path = pur / "objects" / digest[:2] / f"{digest}.tar"
    assert (store.objects.path(digest), sha256(path)) == (path, digest)
    assert path.read_bytes() == write_shard(tmp_path / "s.tar", [sample("a", 1, seed=1)]).read_bytes()
    assert put(store, sample("a", 1, seed=1)) == digest
    assert list(store.objects.all()) == [path]


def test_a_failed_object_leaves_nothing(store: Store, pur: StoragePath, tmp_path: Path, cache: Path):
    def fail() -> None:
        with store.objects.new() as writer:
            writer.write(sample("a", 1, seed=1))
            writer.finish()
            raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        fail()
    assert files_below(tmp_path) == files_below(pur) == files_below(cache / "outgoing") == {}


def test_task_records_come_after_their_object(store: Store):
    with pytest.raises(LostObjectsError, match="was removed"):
        store.tasks.put(KEY, record("1" * 64))
    assert list(store.tasks.all()) == []
    digest = put(store, sample("a", 1, seed=1))
    store.tasks.put(KEY, record(digest))
    assert store.tasks.read(KEY) == record(digest)
    assert list(store.tasks.all()) == [(KEY, record(digest))]
    assert (store.root / "tasks" / KEY[:2] / f"{KEY}.json").is_file()


def test_a_task_without_its_object_is_still_to_do(store: Store):
    digest = put(store, sample("a", 1, seed=1))
    store.tasks.put(KEY, record(digest))
    store.objects.path(digest).unlink()
    assert store.tasks.read(KEY) is None
    assert store.tasks.read("f" * 64) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format_version": 2}', "[" * 50_000])
def test_a_damaged_record_is_still_to_do(store: Store, text: str):
    store.tasks.put(KEY, record(put(store, sample("a", 1, seed=1))))
    (store.root / "tasks" / KEY[:2] / f"{KEY}.json").write_text(text)
    assert store.tasks.read(KEY) is None
    assert list(store.tasks.all()) == [(KEY, None)]


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_only_digests_become_paths(store: Store, digest: str):
    with pytest.raises(DataError, match="not a digest"):
        store.objects.path(digest)


def test_task_key_is_of_input_and_identity():
    assert task_key("0" * 64, {"a": 1, "b": 2}) == task_key("0" * 64, {"b": 2, "a": 1})
    others = {task_key("1" * 64, {"a": 1}), task_key("0" * 64, {"a": 2}), task_key("0" * 64, {"a": 1})}
    assert len(others) == 3


BAD_NAMES = ["", "../x", "/x", "a/b", "a\\b", ".hidden", "-x", "a b", "a\n", "ä", "x" * 129, "a\0", "a@b", ".."]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_unfit_names(name: str):
    with pytest.raises(UsageError, match="use letters"):
        check_name(name, "--tag")


@pytest.mark.parametrize("name", ["a", "cifar10-badnets", "2024.01.31_b", "x" * 128, "a..b"])
def test_fit_names(name: str):
    assert check_name(name, "--tag") == name


def test_references():
    assert parse_reference("a") == parse_reference("a@") == ("a", "latest")
    assert parse_reference("a@nightly") == ("a", "nightly")
    for text in ("../x@y", "a@../y", "a@b@c", "@x"):
        with pytest.raises(UsageError):
            parse_reference(text)


def test_reading_makes_nothing(pur: StoragePath, tmp_path: Path):
    store = Store(pur)
    with pytest.raises(UsageError, match="no store there"):
        store.require()
    assert (store.tasks.read(KEY), store.objects.has("0" * 64), list(store.objects.all()), list(store.tasks.all())) == (
        None,
        False,
        [],
        [],
    )
    assert list(tmp_path.iterdir()) == []
    assert files_below(pur) == {}


def test_what_is_far_too_large_is_damaged_and_not_read(store: Store, pur: StoragePath, monkeypatch: pytest.MonkeyPatch):
    digest = put(store, sample("a", 1, seed=1))
    store.tasks.put(KEY, record(digest))
    put_bytes(pur / "x", b"four")
    put_bytes(pur / "empty", b"")
    assert (store.read_file("x", limit=4), store.read_file("empty", limit=4), store.read_file("y", limit=4)) == (
        b"four",
        b"",
        None,
    )
    with pytest.raises(ValueError, match="over the limit of 3 bytes"):
        store.read_file("x", limit=3)
    monkeypatch.setattr(records_module, "MAX_RECORD_BYTES", 100)
    assert store.tasks.read(KEY) is None
    assert list(store.tasks.all()) == [(KEY, None)]


def test_a_store_that_went_away_is_not_begun_anew(tmp_path: Path):
    """As when a disk is unmounted in mid-run: its empty folder is left, on a disk that nobody wants to fill."""
    store = Store(tmp_path / "pur")
    store.prepare()
    for half_way in (False, True):
        with contextlib.ExitStack() as stack:
            writer = stack.enter_context(store.objects.new()) if half_way else None
            (tmp_path / "pur").rename(tmp_path / "elsewhere")
            (tmp_path / "pur").mkdir()
            with pytest.raises(FileNotFoundError):
                if writer is None:
                    store.objects.new()
                else:
                    store.objects.publish(writer, writer.finish())
            with pytest.raises(FileNotFoundError, match="unmounted"):
                store.write_file("inputs/d.jsonl.gz", b"x")
            assert list((tmp_path / "pur").iterdir()) == []
        (tmp_path / "pur").rmdir()
        (tmp_path / "elsewhere").rename(tmp_path / "pur")


def test_prepare_says_what_is_wrong(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="cannot be written"):
        Store(tmp_path / "file" / "pur").prepare()
    assert files_below(tmp_path) == {"file": b"x"}
