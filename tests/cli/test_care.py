"""``zipbatch store tag|gc|diff`` as people and scripts call them."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from tests.making import files_below, sample, write_shard, write_source, zipbatch

BLUR = ("--purifier", "blur")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of a dataset ``in``: shards blurred by 2, by 4, and by 2 with a new, a changed and a removed one."""
    folder = tmp_path_factory.mktemp("care")
    source, store = write_source(folder / "in", counts={"test": 6}, shards=3), folder / "pur"
    for tag, transform in (("first", "blur:2"), ("second", "blur:4")):
        ran = zipbatch("purify", source, *BLUR, "--transform", transform, "--store", store, "--tag", tag, "--latest")
        assert ran.code == 0, ran.err
    write_shard(source / "test-000001.tar", [sample("other", 1, seed=77)])
    write_shard(source / "test-000003.tar", [sample("new", 1, seed=78)])
    (source / "test-000000.tar").unlink()
    ran = zipbatch("purify", source, *BLUR, "--transform", "blur:2", "--store", store, "--tag", "third", "--latest")
    assert ran.code == 0, ran.err
    return store


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made.parent, tmp_path / "all")
    return tmp_path / "all" / "pur"


def ok(*arguments: object) -> Any:
    """What a command says with ``--json``."""
    ran = zipbatch(*arguments, "--json")
    assert ran.code == 0, ran.err
    return ran.json


def version(store: Path, tag: str) -> str:
    return str(ok("store", "show", f"in@{tag}", "--store", store)["version"])


def make_old(store: Path) -> None:
    then = time.time() - 30 * 86_400
    for folder in ("objects", "tasks", "versions"):
        for file in (store / folder).rglob("*"):
            os.utime(file, (then, then))


def test_tag_makes_and_moves(store: Path):
    first, second = version(store, "first"), version(store, "second")
    said = ok("store", "tag", "in@first", "release", "--store", store)
    assert said == {"dataset": "in", "tag": "release", "version": first, "deleted": False}
    ran = zipbatch("store", "tag", f"in@{second}", "release", "--store", store)
    assert (ran.code, ran.out) == (0, f"in@release: now version {second}\n")
    assert version(store, "release") == second
    ok("store", "tag", "in@first", "latest", "--store", store)
    assert version(store, "latest") == first
    assert zipbatch("store", "verify", "--store", store).code == 0


def test_a_tag_moved_by_hand_is_moved_by_later_runs_only(store: Path):
    source = store.parent / "in"
    ok("store", "tag", "in@first", "nightly", "--store", store)
    said = ok("purify", source, *BLUR, "--store", store, "--tag", "nightly")
    assert said["tags"] == ["nightly", "latest"]
    assert version(store, "nightly") == version(store, "third") == said["version"]


def test_tag_deletes_but_never_latest(store: Path):
    first = version(store, "first")
    ran = zipbatch("store", "tag", "in@first", "--delete", "--store", store)
    assert (ran.code, ran.out) == (0, f"in@first: removed, was version {first}\n")
    assert zipbatch("store", "show", "in@first", "--store", store).code == 2
    assert version(store, first) == first
    ran = zipbatch("store", "tag", "in@latest", "--delete", "--store", store)
    assert (ran.code, ran.out) == (2, "")
    assert "stays as long as in has versions" in ran.err


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("in@first",), "name NEWTAG"),
        (("in@first", "x", "--delete"), "name NEWTAG"),
        (("in", "--delete"), "say which tag, as in in@TAG"),
        (("in@gone", "--delete"), "in@gone: no such tag"),
        (("in@gone", "x"), "in has the tags first, latest, second, third"),
        (("gone", "x"), "datasets there: in"),
        (("in", "../x"), "'../x'"),
        (("in", "a/b"), "'a/b'"),
    ],
)
def test_tags_that_cannot_be(made: Path, arguments: tuple[str, ...], part: str):
    before = files_below(made)
    ran = zipbatch("store", "tag", *arguments, "--store", made)
    assert (ran.code, ran.out) == (2, "")
    assert part in ran.err
    assert files_below(made) == before


def test_a_tag_is_not_named_as_a_version(made: Path):
    ran = zipbatch("store", "tag", "in@first", version(made, "second"), "--store", made)
    assert (ran.code, ran.out) == (2, "")
    assert "is the id of a version" in ran.err


def test_gc_removes_nothing_without_yes(store: Path):
    make_old(store)
    ok("store", "tag", "in@second", "--delete", "--store", store)
    before = files_below(store)
    for more in ((), ("--dry-run",), ("--yes", "--dry-run")):
        said = ok("store", "gc", "--store", store, "--versions", "untagged", "--older-than", "0s", *more)
        assert (said["removed"], len(said["versions"]), said["objects"], said["tasks"]) == (False, 1, 3, 3)
        assert said["bytes"] > 3 * 1024
        assert (said["kept_versions"], said["kept_objects"]) == (2, 5)
    text = zipbatch("store", "gc", "--store", store, "--versions", "untagged", "--older-than", "0s")
    assert "1 versions, 3 objects" in text.out
    assert "--yes removes it" in text.out
    assert files_below(store) == before


def test_gc_with_yes(store: Path):
    make_old(store)
    second = version(store, "second")
    ok("store", "tag", "in@second", "--delete", "--store", store)
    assert ok("store", "gc", "--store", store, "--yes")["objects"] == 0, "no version is forgotten unasked"
    assert ok("store", "gc", "--store", store, "--yes", "--versions", "untagged")["versions"] == [], "it is too young"
    said = ok("store", "gc", "--store", store, "--yes", "--versions", "untagged", "--older-than", "0s")
    assert (said["removed"], said["versions"], said["objects"], said["tasks"]) == (True, [f"in@{second}"], 3, 3)
    checked = ok("store", "verify", "--store", store)
    assert (checked["objects"], checked["tasks"], checked["versions"], checked["faults"]) == (5, 5, 2, [])
    again = ok("purify", store.parent / "in", *BLUR, "--transform", "blur:4", "--store", store)
    assert (again["computed"], again["reused"]) == (3, 0)


@pytest.mark.parametrize("text", ["", "3", "1w", "-1d", "soon"])
@pytest.mark.parametrize("flag", ["--older-than", "--grace"])
def test_ages_that_are_none(made: Path, flag: str, text: str):
    ran = zipbatch("store", "gc", "--store", made, flag, text)
    assert (ran.code, ran.out) == (2, "")
    assert "is not a time such as 30d" in ran.err


@pytest.mark.parametrize("command", [["gc"], ["tag", "a", "b"], ["diff", "a", "b"], ["export", "a", "b"]])
def test_no_store_there(tmp_path: Path, command: list[str]):
    ran = zipbatch("store", *command, "--store", tmp_path / "gone")
    assert (ran.code, ran.out) == (2, "")
    assert "gone: no store there" in ran.err
    assert list(tmp_path.iterdir()) == []


def test_diff_of_settings(made: Path):
    said = ok("store", "diff", "in@first", "in@second", "--store", made)
    assert said["settings"] == {"settings.transforms": [["blur:2"], ["blur:4"]]}
    assert said["counts"] == {"test": [{"shards": 3, "samples": 6}, {"shards": 3, "samples": 6}]}
    assert (said["only_a"], said["only_b"], said["inputs"], said["same"]) == ([], [], [], 0)
    assert said["outputs"] == [f"test/test-00000{number}.tar" for number in range(3)]


def test_diff_of_shards(made: Path):
    said = ok("store", "diff", "in@first", "in", "--store", made)
    assert (said["a"], said["b"]) == tuple(f"in@{version(made, tag)}" for tag in ("first", "third"))
    assert (said["settings"], said["same"]) == ({}, 1)
    assert said["counts"]["test"][1] == {"shards": 3, "samples": 4}
    assert (said["only_a"], said["only_b"]) == (["test/test-000000.tar"], ["test/test-000003.tar"])
    assert said["inputs"] == said["outputs"] == ["test/test-000001.tar"]
    text = zipbatch("store", "diff", "in@first", "in", "--store", made)
    assert text.code == 0
    assert "only in b: test/test-000003.tar" in text.out
    assert "1 shards the same, 1 with another output, 1 from another input, 1 only in a, 1 only in b" in text.out


def test_diff_with_itself(made: Path):
    said = ok("store", "diff", "in", "in", "--store", made)
    assert (said["settings"], said["only_a"], said["only_b"], said["outputs"], said["same"]) == ({}, [], [], [], 3)


def test_show_says_what_was_reused(made: Path):
    first, third = (ok("store", "show", f"in@{tag}", "--store", made) for tag in ("first", "third"))
    assert first["reused"] == {"computed": 3, "found": 0, "parent": 0}
    assert third["reused"] == {"computed": 2, "found": 1, "parent": 0}, "its parent has another setting"
    text = " ".join(zipbatch("store", "show", "in@third", "--store", made).out.split())
    assert f"shards 3: 2 computed, 1 found in the store, 0 as in parent {version(made, 'second')}" in text


def test_show_of_a_version_whose_header_says_nothing(store: Path):
    """As older ones: what the parent's list tells is told."""
    source = store.parent / "in"
    write_shard(source / "test-000004.tar", [sample("newer", 1, seed=79)])
    said = ok("purify", source, *BLUR, "--transform", "blur:2", "--store", store)
    assert ok("store", "show", "in", "--store", store)["reused"] == {"computed": 1, "found": 0, "parent": 3}
    header = store / "versions" / "in" / f"{said['version']}.json"
    value = json.loads(header.read_text())
    del value["origin"], value["seal"]
    header.write_text(json.dumps(value))
    assert ok("store", "show", "in", "--store", store)["reused"] == {"computed": None, "found": None, "parent": 3}
