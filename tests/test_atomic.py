"""Files and folders appear whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from tests.making import files_below
from zipbatch import atomic


def test_write_bytes_makes_folders_and_replaces(tmp_path: Path):
    final = tmp_path / "a" / "b.bin"
    atomic.write_bytes(final, b"one")
    atomic.write_bytes(final, b"two")
    assert files_below(tmp_path) == {"a/b.bin": b"two"}


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]):
    final = tmp_path / "x"
    atomic.write_bytes(final, b"old")

    def fail(stream: BinaryIO) -> None:
        stream.write(b"half")
        raise error

    with pytest.raises(error):
        atomic.write_with(final, fail)
    assert files_below(tmp_path) == {"x": b"old"}


def test_a_final_name_that_cannot_be_had_leaves_nothing(tmp_path: Path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        atomic.write_bytes(tmp_path / "taken", b"x")
    assert files_below(tmp_path) == {}


def test_publish_moves_in_one_step(tmp_path: Path):
    temp = atomic.temp_path(tmp_path / "in")
    temp.write_bytes(b"x")
    atomic.publish(temp, tmp_path / "out" / "x")
    assert files_below(tmp_path) == {"out/x": b"x"}


def test_temp_names_differ_and_are_hidden(tmp_path: Path):
    names = {atomic.temp_path(tmp_path).name for _ in range(100)}
    assert len(names) == 100
    assert all(name.startswith(atomic.TEMP_PREFIX) for name in names)


def test_whole_folder(tmp_path: Path):
    with atomic.whole_folder(tmp_path / "deep" / "out") as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "x").write_bytes(b"x")
        assert not (tmp_path / "deep" / "out").exists()
    assert files_below(tmp_path) == {"deep/out/sub/x": b"x"}


def test_whole_folder_takes_an_empty_folders_place(tmp_path: Path):
    (tmp_path / "out").mkdir()
    with atomic.whole_folder(tmp_path / "out") as folder:
        (folder / "x").write_bytes(b"x")
    assert files_below(tmp_path) == {"out/x": b"x"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_whole_folder_vanishes_on_any_exception(tmp_path: Path, error: type[BaseException]):
    def fail() -> None:
        with atomic.whole_folder(tmp_path / "out") as folder:
            (folder / "x").write_bytes(b"x")
            raise error

    with pytest.raises(error):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_whole_folder_never_replaces(tmp_path: Path):
    def make(final: Path) -> None:
        with atomic.whole_folder(final) as folder:
            (folder / "x").write_bytes(b"new")

    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_bytes(b"old")
    (tmp_path / "file").write_bytes(b"old")
    for name in ("full", "file"):
        with pytest.raises(FileExistsError, match=name):
            make(tmp_path / name)
    assert files_below(tmp_path) == {"full/x": b"old", "file": b"old"}


def test_whole_folder_loses_a_race_with_nothing_left(tmp_path: Path):
    def race() -> None:
        with atomic.whole_folder(tmp_path / "out") as folder:
            (folder / "x").write_bytes(b"mine")
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "x").write_bytes(b"theirs")

    with pytest.raises(OSError, match="not empty"):
        race()
    assert files_below(tmp_path) == {"out/x": b"theirs"}


def test_canonical_json_has_one_form_for_a_value():
    assert atomic.canonical_json({"b": [1, 2.5], "a": "ä"}) == '{"a":"ä","b":[1,2.5]}'.encode()
    assert atomic.sha256_json({"b": 1, "a": 2}) == atomic.sha256_json({"a": 2, "b": 1})
    assert atomic.sha256_json({"a": 1}) != atomic.sha256_json({"a": "1"})
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON compliant"):
            atomic.canonical_json(value)


def test_write_json_and_file_digest(tmp_path: Path):
    atomic.write_json(tmp_path / "x.json", {"ä": None})
    data = (tmp_path / "x.json").read_bytes()
    assert json.loads(data) == {"ä": None}
    assert data.endswith(b"}\n")
    assert atomic.sha256_file(tmp_path / "x.json") == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("of", "options"), [(atomic.whole_folder, {}), (atomic.mended_folder, {"last": "b"})], ids=["whole", "mended"]
)
def test_no_run_sweeps_a_folder_that_another_still_fills(tmp_path: Path, of: Any, options: dict[str, str]):
    """However long it has written nothing."""
    final = tmp_path / "final"
    final.mkdir()
    with of(final, **options) as folder:
        (folder / "b").write_bytes(b"new")
        long_ago = time.time() - 2 * atomic.ABANDONED_S / 3
        for path in (folder / "b", folder):
            os.utime(path, (long_ago, long_ago))
        atomic.sweep_folders(tmp_path)
        assert folder.is_dir()
    assert files_below(tmp_path) == {"final/b": b"new"}
