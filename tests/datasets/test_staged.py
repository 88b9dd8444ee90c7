"""Opening datasets: staged folders, bare folders, tars and patterns; damage is named."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.making import CLASSES, sample, write_shard, write_source
from zipbatch.atomic import sha256_file
from zipbatch.datasets import open_dataset
from zipbatch.errors import DataError, UsageError
from zipbatch.shards import read_shard


@pytest.fixture
def copy(staged: Path, tmp_path: Path) -> Path:
    """A staged dataset that a test may damage."""
    return Path(shutil.copytree(staged, tmp_path / "copy"))


def bare(folder: Path, *names: str) -> Path:
    for i, name in enumerate(names):
        write_shard(folder / name, [sample(f"{i}", None, seed=i)])
    return folder


def test_staged_folder(staged: Path):
    dataset = open_dataset([str(staged)])
    assert (dataset.name, dataset.root, dataset.classes) == ("tiny-badnets", staged, CLASSES)
    assert dataset.splits == ("train", "test", "test_poisoned")
    assert dataset.manifest is not None
    assert {k: (v.shards, v.samples) for k, v in dataset.manifest.splits.items()} == {
        "train": (6, 24),
        "test": (3, 12),
        "test_poisoned": (3, 12),
    }
    assert [s.name for s in dataset.split("test")] == [f"test-{i:06d}.tar" for i in range(3)]
    assert dataset.split("nothing") == ()
    for shard in dataset.shards:
        assert shard.sha256 == sha256_file(shard.path)
        assert shard.samples == sum(1 for _ in read_shard(shard.path))


def test_staged_folder_under_another_name(staged: Path):
    assert open_dataset([str(staged)], name="other").name == "other"
    assert open_dataset([f"{staged}/."]).name == "tiny-badnets"


def test_bare_folder(tmp_path: Path):
    folder = bare(tmp_path / "in", "test-000001.tar", "test-000000.tar", "day-2.tgz", "train-0.tar.gz", "odd.tar")
    (folder / ".hidden.tar").write_bytes(b"")
    (folder / "notes.txt").write_text("x")
    dataset = open_dataset([str(folder)])
    assert [(s.split, s.name, s.sha256, s.samples) for s in dataset.shards] == [
        ("data", "day-2.tgz", None, None),
        ("data", "odd.tar", None, None),
        ("test", "test-000000.tar", None, None),
        ("test", "test-000001.tar", None, None),
        ("train", "train-0.tar.gz", None, None),
    ]
    assert (dataset.name, dataset.manifest, dataset.classes) == ("in", None, None)
    assert dataset.splits == ("data", "test", "train")


@pytest.mark.parametrize("stray", ["._a-0.tar", ".a-0.tar", "__MACOSX", "Thumbs.db"])
def test_what_a_bare_folder_holds_besides(tmp_path: Path, caplog: pytest.LogCaptureFixture, stray: str):
    bare(tmp_path, "a-0.tar", "a-1.tar")
    (tmp_path / stray).write_bytes(b"x")
    (tmp_path / "classes.txt").write_text("a\n")
    assert [s.name for s in open_dataset([str(tmp_path)]).shards] == ["a-0.tar", "a-1.tar"]
    assert caplog.text == ""
    (tmp_path / "a-2.tar.zst").write_bytes(b"x")
    (tmp_path / "more").mkdir()
    assert len(open_dataset([str(tmp_path)]).shards) == 2
    assert "not taken, for they are no shards (.tar, .tar.gz, .tgz): 2 (a-2.tar.zst, more)" in caplog.text


def test_bare_folder_with_classes(tmp_path: Path):
    assert open_dataset([str(write_source(tmp_path / "in"))]).classes == CLASSES


def test_single_tars_keep_the_order_given(tmp_path: Path):
    folder = bare(tmp_path / "in", "b.tar", "a.tar", "c.tar")
    dataset = open_dataset([str(folder / name) for name in ("c.tar", "a.tar", "b.tar")])
    assert ([s.name for s in dataset.shards], dataset.name) == (["c.tar", "a.tar", "b.tar"], "in")


def test_brace_patterns(tmp_path: Path):
    folder = bare(tmp_path / "in", *(f"day-{i:03d}.tar" for i in range(12)))
    dataset = open_dataset([f"{folder}/day-{{009..011}}.tar", f"{folder}/day-00{{3,1}}.tar"])
    assert [s.name for s in dataset.shards] == [f"day-{i:03d}.tar" for i in (9, 10, 11, 3, 1)]


def test_a_missing_shard_of_a_pattern_is_named(tmp_path: Path):
    folder = bare(tmp_path / "in", "day-0.tar")
    with pytest.raises(UsageError, match=r"day-1\.tar: no such"):
        open_dataset([f"{folder}/day-{{0..1}}.tar"])


def test_duplicate_shard_names(tmp_path: Path):
    one, two = bare(tmp_path / "one", "a.tar"), bare(tmp_path / "two", "a.tar")
    with pytest.raises(UsageError, match=r"a\.tar"):
        open_dataset([str(one), str(two)])
    with pytest.raises(UsageError, match=r"a\.tar"):
        open_dataset([str(one / "a.tar"), str(one / "a.tar")])


def test_nothing_there(tmp_path: Path):
    with pytest.raises(UsageError, match="no input"):
        open_dataset([])
    with pytest.raises(UsageError, match="gone: no such"):
        open_dataset([str(tmp_path / "gone")])
    with pytest.raises(UsageError, match="holds no shards"):
        open_dataset([str(tmp_path)])


@pytest.mark.parametrize("text", ["", "\n", "a\nb\na\n"])
def test_bad_class_names(tmp_path: Path, text: str):
    folder = bare(tmp_path / "in", "a.tar")
    (folder / "classes.txt").write_text(text)
    with pytest.raises(Exception, match=r"classes\.txt"):
        _ = open_dataset([str(folder)]).classes


def change_manifest(folder: Path, **fields: object) -> None:
    file = folder / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def change_row(folder: Path, number: int, **fields: object) -> None:
    file = folder / "shards.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[number] |= fields
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def drop_field(folder: Path) -> None:
    file = folder / "shards.jsonl"
    file.write_text(file.read_text().replace('"sha256":', '"sha":'))


def append_row(folder: Path) -> None:
    file = folder / "shards.jsonl"
    file.write_text(file.read_text() + file.read_text().splitlines()[-1] + "\n")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "not json": (lambda f: (f / "manifest.json").write_text("{"), "manifest.json"),
    "a list": (lambda f: (f / "manifest.json").write_text("[]"), "manifest.json"),
    "empty": (lambda f: (f / "manifest.json").write_text(""), "manifest.json"),
    "newer format": (lambda f: change_manifest(f, format_version=2), "format_version"),
    "unknown field": (lambda f: change_manifest(f, extra=1), "extra"),
    "unfit field": (lambda f: change_manifest(f, image_size=0), "image_size"),
    "shard cut": (lambda f: os.truncate(f / "test-000000.tar", 512), "test-000000.tar"),
    "shard list is not json": (lambda f: (f / "shards.jsonl").write_text("x\n"), "manifest.json"),
    "shard list of numbers": (lambda f: (f / "shards.jsonl").write_text("1\n"), "manifest.json"),
    "row without a field": (drop_field, "sha256"),
    "fewer samples": (lambda f: change_row(f, 0, samples=3), "shards.jsonl"),
    "other split": (lambda f: change_row(f, 0, split="test"), "shards.jsonl"),
    "cut short": (lambda f: (f / "shards.jsonl").write_text(""), "shards.jsonl"),
    "one row more": (append_row, "shards.jsonl"),
    "listed shard missing": (lambda f: (f / "test-000001.tar").unlink(), "test-000001.tar"),
    "name is a path": (lambda f: change_row(f, 0, shard="../copy/train-000000.tar"), "../copy/train-000000.tar"),
    "name is absolute": (lambda f: change_row(f, 0, shard="/etc/passwd"), "/etc/passwd"),
    "name is a folder": (lambda f: change_row(f, 0, shard=".."), "'..'"),
    "name is too long": (lambda f: change_row(f, 0, shard="x" * 5000 + ".tar"), "over 255 bytes"),
    "name has a zero byte": (lambda f: change_row(f, 0, shard="x\0.tar"), "is a path"),
    "name is half a surrogate": (lambda f: change_row(f, 0, shard="\ud800.tar"), "surrogates"),
    "split is half a surrogate": (lambda f: change_row(f, 0, split="\ud800"), "shards.jsonl"),
    "name is a number": (lambda f: change_row(f, 0, shard=5), "manifest.json"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_staged_folders(copy: Path, case: str):
    damage, named = DAMAGE[case]
    damage(copy)
    with pytest.raises(UsageError) as caught:
        open_dataset([str(copy)])
    assert str(copy) in str(caught.value)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    "line", [b"[" * 100_000, b'{"samples": "4"}', b'{"split": ["x"]}', b'{"samples": -4}', b"\xff"]
)
def test_damaged_lists_are_usage_errors(copy: Path, line: bytes):
    (copy / "shards.jsonl").write_bytes(line + b"\n")
    with pytest.raises(UsageError, match="not a staged dataset"):
        open_dataset([str(copy)])


def test_a_shard_listed_twice_is_refused(copy: Path):
    lines = (copy / "shards.jsonl").read_bytes().splitlines()
    (copy / "shards.jsonl").write_bytes(b"\n".join([*lines, lines[0]]) + b"\n")
    with pytest.raises(UsageError, match="two shards are named"):
        open_dataset([str(copy)])


def test_odd_paths(tmp_path: Path):
    with pytest.raises(UsageError, match="brace pattern"):
        open_dataset([str(tmp_path / "a{b.tar")])
    write_source(tmp_path / "d{x,y}", counts={"test": 4})
    assert len(open_dataset([str(tmp_path / "d{x,y}")]).shards) == 2
    (tmp_path / "d{x,y}" / "classes.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="UTF-8"):
        _ = open_dataset([str(tmp_path / "d{x,y}")]).classes
