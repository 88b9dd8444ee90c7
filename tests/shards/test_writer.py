"""The writer: equal samples give equal bytes, any tar reader opens them, nothing unpublished stays."""

from __future__ import annotations

import hashlib
import os
import tarfile
import time
from pathlib import Path

import pytest
import webdataset as wds

from tests.making import files_below, sample, write_shard
from zipbatch.shards import Sample, ShardWriter, read_shard

SAMPLES = [sample(key, i, seed=i) for i, key in enumerate(["b", "a/2", "a/10", "ä ö"])]


def test_same_samples_same_bytes(tmp_path: Path):
    first = write_shard(tmp_path / "one.tar", SAMPLES)
    time.sleep(1.1)  # tar times have a resolution of a second
    again = [Sample(s.key, dict(reversed(s.members.items())), "elsewhere") for s in SAMPLES]
    second = write_shard(tmp_path / "other" / "two.tar", again)
    assert first.read_bytes() == second.read_bytes()


def test_members_are_sorted_and_anonymous(tmp_path: Path):
    path = write_shard(tmp_path / "s.tar", [Sample("k", {"png": b"p", "json": b"{}", "cls": b"1", "a.b": b"x"})])
    with tarfile.open(path) as tar:
        members = tar.getmembers()
    assert [m.name for m in members] == ["k.a.b", "k.cls", "k.json", "k.png"]
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}


def test_order_kept_for_plain_webdataset(tmp_path: Path):
    path = write_shard(tmp_path / "s.tar", SAMPLES)
    found = list(wds.WebDataset(str(path), shardshuffle=False))
    assert [f["__key__"] for f in found] == [s.key for s in SAMPLES]
    assert [{k: f[k] for k in ("png", "cls")} for f in found] == [s.members for s in SAMPLES]
    decoded = list(wds.WebDataset(str(path), shardshuffle=False).decode("rgb8").to_tuple("png", "cls"))
    assert [label for _, label in decoded] == [0, 1, 2, 3]
    assert all((image == s.image()).all() for (image, _), s in zip(decoded, SAMPLES, strict=True))


def test_finish_says_what_was_written(tmp_path: Path):
    with ShardWriter(tmp_path) as writer:
        for item in SAMPLES:
            writer.write(item)
        info = writer.finish()
        writer.publish(tmp_path / "deep" / "s.tar")
    data = (tmp_path / "deep" / "s.tar").read_bytes()
    assert (info.sha256, info.size, info.samples) == (hashlib.sha256(data).hexdigest(), len(data), 4)
    assert list(files_below(tmp_path)) == ["deep/s.tar"]


def test_an_empty_shard_is_a_whole_tar(tmp_path: Path):
    path = write_shard(tmp_path / "s.tar", [])
    assert list(read_shard(path)) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("finished", [False, True])
def test_nothing_left_after_an_exception(tmp_path: Path, error: type[BaseException], finished: bool):
    def fail() -> None:
        with ShardWriter(tmp_path / "in") as writer:
            writer.write(SAMPLES[0])
            if finished:
                writer.finish()
            raise error

    with pytest.raises(error):
        fail()
    assert files_below(tmp_path) == {}


def test_nothing_left_without_publish(tmp_path: Path):
    with ShardWriter(tmp_path) as writer:
        writer.write(SAMPLES[0])
        writer.finish()
    assert files_below(tmp_path) == {}


def test_publish_before_finish_is_refused(tmp_path: Path):
    with pytest.raises(RuntimeError, match="finish"), ShardWriter(tmp_path) as writer:
        writer.write(SAMPLES[0])
        writer.publish(tmp_path / "s.tar")
    assert files_below(tmp_path) == {}


@pytest.mark.parametrize("key", ["../x", "/x", "a//b", "a\nb", "a\\b", "", ".", "k" * 5000])
def test_unfit_keys_are_refused(tmp_path: Path, key: str):
    with ShardWriter(tmp_path) as writer, pytest.raises(ValueError, match="key"):
        writer.write(Sample(key, SAMPLES[0].members))


def test_a_key_twice_is_refused(tmp_path: Path):
    with ShardWriter(tmp_path) as writer:
        writer.write(SAMPLES[0])
        with pytest.raises(ValueError, match="twice"):
            writer.write(SAMPLES[0])


def test_two_writers_in_one_folder_do_not_meet(tmp_path: Path):
    with ShardWriter(tmp_path) as one, ShardWriter(tmp_path) as two:
        assert one.temp != two.temp
        assert all(os.path.basename(w.temp).startswith(".tmp-") for w in (one, two))  # noqa: PTH119
