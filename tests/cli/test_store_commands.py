"""``zipbatch store ls|show|urls|verify`` as scripts call them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import webdataset as wds

from tests.making import files_below, write_source, zipbatch
from zipbatch.atomic import sha256_file
from zipbatch.shards import read_shard


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two datasets; ``two`` has two versions."""
    folder = tmp_path_factory.mktemp("commands")
    for name in ("one", "two"):
        write_source(folder / name, counts={"train": 2, "test": 6})
    for name, transform, tag in (("one", "blur:2", "a"), ("two", "blur:4", "b"), ("two", "gray", "c")):
        command = ["purify", folder / name, "--purifier", "blur", "--transform", transform, "--store", folder / "pur"]
        ran = zipbatch(*command, "--tag", tag, "--latest")
        assert ran.code == 0, ran.err
    return folder / "pur"


def test_ls(made: Path):
    found = zipbatch("store", "ls", "--store", made, "--json").json["versions"]
    assert [(v["dataset"], v["tags"], v["purifier"]["settings"]["transforms"]) for v in found] in (
        [("one", ["a", "latest"], ["blur:2"]), ("two", ["b"], ["blur:4"]), ("two", ["c", "latest"], ["gray"])],
        [("one", ["a", "latest"], ["blur:2"]), ("two", ["c", "latest"], ["gray"]), ("two", ["b"], ["blur:4"])],
    )  # two runs of one second have no order
    text = zipbatch("store", "ls", "--store", made)
    assert text.code == 0
    assert all(v["version"] in text.out for v in found)


def test_show(made: Path):
    shown = zipbatch("store", "show", "two@b", "--store", made, "--json").json
    assert shown["counts"] == {"test": {"shards": 2, "samples": 6}, "train": {"shards": 2, "samples": 2}}
    assert [(row["split"], row["shard"], row["samples"]) for row in shown["shards"]] == [
        ("test", "test-000000.tar", 3),
        ("test", "test-000001.tar", 3),
        ("train", "train-000000.tar", 1),
        ("train", "train-000001.tar", 1),
    ]
    text = zipbatch("store", "show", f"two@{shown['version']}", "--store", made, "--wide")
    assert text.code == 0
    assert all(row["output"] in text.out for row in shown["shards"])
    later = zipbatch("store", "show", "two", "--store", made, "--json").json
    assert (later["version"] != shown["version"], later["parent"]) == (True, shown["version"])


def test_urls_are_ready_for_webdataset(made: Path):
    ran = zipbatch("store", "urls", "two@b", "--store", made, "--split", "test")
    urls = ran.out.splitlines()
    assert (ran.code, len(urls)) == (0, 2)
    assert all(Path(url).is_absolute() and sha256_file(Path(url)) == Path(url).stem for url in urls)
    found = list(wds.WebDataset(urls, shardshuffle=False).decode("rgb8"))
    before = [s for f in sorted((made.parent / "two").glob("test-*.tar")) for s in read_shard(f)]
    assert [(f["__key__"], f["cls"]) for f in found] == [(s.key, s.label()) for s in before]
    for image, clean in ((f["png"], s.image()) for f, s in zip(found, before, strict=True)):
        assert (image[::4, ::4] == image[3::4, 3::4]).all()
        assert (image != clean).any()


def test_urls_of_several_splits_and_all(made: Path):
    def count(*options: str) -> int:
        return len(zipbatch("store", "urls", "two", "--store", made, *options).out.splitlines())

    both = count("--split", "test", "--split", "train")
    assert (count(), both, count("--split", "train"), count("--split", "nope")) == (4, 4, 2, 0)


def test_verify_counts(made: Path):
    checked = zipbatch("store", "verify", "--store", made, "--json").json
    assert {k: v for k, v in checked.items() if k != "faults"} == {
        "objects": len(list((made / "objects").rglob("*.tar"))),
        "tasks": len(list((made / "tasks").rglob("*.json"))),
        "versions": 3,
        "tags": 5,
    }
    assert "all good" in zipbatch("store", "verify", "--store", made).out


def test_looking_changes_nothing(made: Path):
    before = files_below(made)
    for command in (["ls"], ["show", "one"], ["urls", "one"], ["verify"]):
        assert zipbatch("store", *command, "--store", made).code == 0
    assert files_below(made) == before


def test_one_input_in_two_datasets_is_stored_once(made: Path, tmp_path: Path):
    """The second dataset finds the tasks of the first."""
    base = ["--purifier", "blur", "--transform", "blur:2", "--store", tmp_path / "pur", "--json"]
    first = zipbatch("purify", made.parent / "one", *base).json
    count = len(files_below(tmp_path / "pur" / "objects"))
    second = zipbatch("purify", made.parent / "one", "--name", "again", *base).json
    assert ((first["computed"], second["computed"], second["reused"]), second["new_version"]) == ((4, 0, 4), True)
    assert len(files_below(tmp_path / "pur" / "objects")) == count


@pytest.mark.parametrize("command", [["ls"], ["show", "one"], ["urls", "one"], ["verify"]])
def test_no_store_there(tmp_path: Path, command: list[str]):
    ran = zipbatch("store", *command, "--store", tmp_path / "gone")
    assert (ran.code, ran.out) == (2, "")
    assert "gone: no store there" in ran.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["show", "urls"])
@pytest.mark.parametrize(
    ("reference", "part"),
    [
        ("two@nope", "two has the tags b, c, latest"),
        ("nope", "datasets there: one, two"),
        ("two@../x", "'../x'"),
        ("../two", "'../two'"),
        ("two@a/b", "'a/b'"),
    ],
)
def test_unknown_references(made: Path, command: str, reference: str, part: str):
    ran = zipbatch("store", command, reference, "--store", made)
    assert (ran.code, ran.out) == (2, "")
    assert part in ran.err
    assert "Traceback" not in ran.err


def test_a_closed_pipe_is_no_traceback(made: Path):
    script = f"{sys.executable} -m zipbatch store urls two --store {made} | true"
    ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert "Traceback" not in ran.stderr
