"""Places: paths stay paths, URLs speak the same words, and credentials have no place in them."""

from __future__ import annotations

import pickle
import sys
import threading
from pathlib import Path

import pytest

from tests.making import files_below, write_source, zipbatch
from tests.object_store import BUCKET, S3Path, S3Server
from zipbatch import storage
from zipbatch.errors import UsageError
from zipbatch.storage import StoragePath, Url, storage_path


def test_paths_stay_paths():
    assert storage_path("pur") == Path("pur")
    assert storage_path("/data/a b") == storage_path("file:///data/a b") == Path("/data/a b")
    assert storage_path("C:x") == Path("C:x")
    assert storage_path(Path("s3:/odd")) == Path("s3:/odd")


def test_urls_have_pathlibs_words():
    url = storage_path("s3://bucket/in/day-000.tar.gz")
    assert isinstance(url, Url)
    assert str(url) == "s3://bucket/in/day-000.tar.gz"
    assert (url.name, url.stem, url.suffix, str(url.parent)) == (
        "day-000.tar.gz",
        "day-000.tar",
        ".gz",
        "s3://bucket/in",
    )
    assert url.parent / "day-000.tar.gz" == url == url.absolute() == url.resolve()
    assert str(url.with_suffix(".jsonl")) == "s3://bucket/in/day-000.tar.jsonl"
    assert storage_path("S3://bucket/in/") == storage_path("s3://bucket/in")
    assert storage_path("s3://bucket").parent == storage_path("s3://bucket")
    assert pickle.loads(pickle.dumps(url)) == url


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("s3://AKIA:hunter2@bucket/key", r"s3://…@bucket/…: credentials do not belong in a URL"),
        ("https://user:hunter2@host/a.tar", "credentials do not belong"),
        ("s3://bucket/key?X-Amz-Signature=hunter2", r"s3://bucket/key…: a URL of a bucket and a key"),
        ("simplecache::s3://bucket/hunter2", "without '[?]' and '::'"),
        ("s3://", "names no place"),
        ("s3://bucket//key", "names no place"),
        ("s3://bucket/../key", "names no place"),
        ("file://pur", "name a whole path"),
    ],
)
def test_unfit_urls(text: str, said: str):
    if text.startswith("simplecache"):
        text = "s3://bucket::" + text
    with pytest.raises(UsageError, match=said) as caught:
        storage_path(text)
    assert "hunter2" not in str(caught.value)
    ran = zipbatch("store", "ls", "--store", text)
    assert ran.code == 2
    assert "hunter2" not in ran.err + ran.out


def test_an_unknown_or_missing_client_is_named(monkeypatch: pytest.MonkeyPatch):
    ran = zipbatch("store", "ls", "--store", "s4://bucket/pur")
    assert (ran.code, "not a kind of URL that fsspec knows" in ran.err) == (2, True)
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    for scheme in ("gs", "gcs"):
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, scheme, raising=False)  # imported before
    ran = zipbatch("store", "ls", "--store", "gs://bucket/pur")
    assert ran.code == 2
    assert "pip install 'zipbatch[gcs]'" in ran.err


def test_the_same_operations_at_either_kind_of_place(pur: StoragePath, tmp_path: Path):
    file = pur / "a" / "b" / "x.bin"
    with pytest.raises(FileNotFoundError):
        storage.stamp(file)
    with pytest.raises(FileNotFoundError):
        file.read_bytes()
    assert (file.is_file(), pur.is_dir(), pur.exists(), storage.names_in(pur)) == (False, False, False, [])
    assert list(storage.files_below(pur)) == []
    storage.put_bytes(file, b"one")
    before = storage.stamp(file)
    assert (before.size, file.read_bytes(), file.is_file(), pur.is_dir()) == (3, b"one", True, True)
    assert before.modified_s is not None
    storage.put_json(pur / "a" / "y.json", {"k": 1})
    temp = storage.workbench(pur) / "made"
    temp.parent.mkdir(parents=True, exist_ok=True)
    temp.write_bytes(b"two")
    storage.put_file(temp, file)
    assert not temp.exists()
    assert storage.stamp(file) != before
    assert storage.names_in(pur / "a") == ["b", "y.json"]
    assert list(storage.files_below(pur)) == [file, pur / "a" / "y.json"]
    assert list(storage.stamps_below(pur / "a")) == [
        ("b/x.bin", storage.stamp(file)),
        ("y.json", storage.stamp(pur / "a" / "y.json")),
    ]
    with storage.local_copy(file) as copy:
        assert copy.read_bytes() == b"two"
    assert storage.each(lambda p: p.is_file(), [file, pur / "no"], at=pur) == [True, False]
    file.unlink()
    file.unlink(missing_ok=True)
    assert set(files_below(pur)) == {"a/y.json"}


def test_updates_lose_nothing(pur: StoragePath):
    def add_one(content: bytes | None) -> bytes:
        return str(int(content or b"0") + 1).encode()

    threads = [threading.Thread(target=storage.update, args=(pur / "count", add_one)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (pur / "count").read_bytes() == b"5"


def test_other_stores_of_fsspecs(tmp_path: Path):
    store = f"memory://{tmp_path.name}/pur"
    assert zipbatch("store", "ls", "--store", store).code == 2
    file = storage_path(f"{store}/x")
    storage.put_bytes(file, b"data")
    storage.update(file, lambda content: (content or b"") + b"!")
    assert (file.read_bytes(), storage.stamp(file).size, storage.names_in(file.parent)) == (b"data!", 5, ["x"])
    with storage.local_copy(file) as copy:
        assert copy.read_bytes() == b"data!"
    assert list(storage.files_below(storage_path(store))) == [file]
    file.unlink()
    assert not file.exists()


def test_a_whole_run_in_another_store(tmp_path: Path):
    source, store = write_source(tmp_path / "in", counts={"test": 4}), f"memory://{tmp_path.name}/pur"
    ran = zipbatch("purify", source, "--purifier", "blur", "--store", store)
    assert ran.code == 0, ran.err
    verified = zipbatch("store", "verify", "--store", store)
    assert (verified.code, "2 objects, 2 tasks, 1 versions, 1 tags: all good" in verified.out) == (0, True)


def test_objects_that_mark_folders_are_no_files(s3: S3Server):
    folder = S3Path.fresh() / "in"
    for name in ("", "sub/"):
        s3.client().put_object(Bucket=BUCKET, Key=f"{folder.key}/{name}", Body=b"")
    (folder / "sub" / "x").write_bytes(b"x")
    assert storage.names_in(folder) == ["sub"]
    assert list(storage.files_below(folder)) == [folder / "sub" / "x"]
    assert (folder.is_dir(), folder.is_file(), (folder / "sub").is_file()) == (True, False, False)


def test_a_small_object_is_one_request(s3: S3Server, tmp_path: Path):
    (tmp_path / "x").write_bytes(bytes(300_000))
    target = S3Path.fresh() / "x"
    with s3.watched() as requests:
        storage.put_file(tmp_path / "x", target)
    assert [request.method for request in requests] == ["PUT"]
