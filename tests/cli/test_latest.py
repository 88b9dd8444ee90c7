"""Where the tag ``latest`` goes: with the line of another tag that names its version, unless it is asked away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.making import Ran, write_source, zipbatch

NIGHTLY = ("--purifier", "blur", "--tag", "nightly")
OTHER = ("--purifier", "median")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path / "in", counts={"test": 4}, shards=1)


@pytest.fixture
def purify(source: Path, tmp_path: Path):
    """Purifies the source into one store."""

    def start(*options: object) -> Ran:
        ran = zipbatch("purify", source, "--store", tmp_path / "pur", *options, "--json")
        assert ran.code == 0, ran.err
        return ran

    return start


def tags(tmp_path: Path) -> dict[str, str]:
    listed: list[dict[str, Any]] = zipbatch("store", "ls", "--store", tmp_path / "pur", "--json").json["versions"]
    return {tag: version["version"] for version in listed for tag in version["tags"]}


@pytest.mark.parametrize("own", [(), ("--tag", "experiment")])
def test_other_settings_leave_latest_with_the_nightly_and_say_so(purify, tmp_path: Path, own: tuple[str, ...]):
    night = purify(*NIGHTLY).json
    ran = purify(*OTHER, *own, "--summary", tmp_path / "s.json")
    (line,) = [line for line in ran.err.splitlines() if "in@latest stays" in line]
    assert "nightly" in line
    assert "--latest" in line
    assert ran.json["latest_left"] in line
    assert ran.json["latest_left"] in (tmp_path / "s.json").read_text()
    assert (tags(tmp_path)["latest"], tags(tmp_path)["nightly"]) == (night["version"], night["version"])
    assert ran.json["tags"] == list(own[1:])
    assert ran.json["reference"] == f"in@{own[1] if own else ran.json['version']}"


@pytest.mark.parametrize(
    "options",
    [(*OTHER, "--tag", "nightly"), (*OTHER, "--latest"), (*OTHER, "--tag", "latest")],
    ids=["its own tag", "asked", "named"],
)
def test_the_line_itself_and_who_asks_move_it(purify, tmp_path: Path, options: tuple[str, ...]):
    purify(*NIGHTLY)
    ran = purify(*options)
    assert (tags(tmp_path)["latest"], ran.json["latest_left"]) == (ran.json["version"], None)


def test_the_same_purifier_moves_it_under_any_tag(purify, source: Path, tmp_path: Path):
    purify(*NIGHTLY)
    write_source(source, counts={"train": 2}, shards=1)
    ran = purify("--purifier", "blur")
    assert (ran.json["tags"], tags(tmp_path)["latest"]) == (["latest"], ran.json["version"])
    assert tags(tmp_path)["nightly"] != ran.json["version"]


def test_without_another_tag_it_moves_as_ever(purify, tmp_path: Path):
    purify("--purifier", "blur")
    ran = purify(*OTHER)
    assert (ran.json["latest_left"], tags(tmp_path)) == (None, {"latest": ran.json["version"]})


def test_it_stays_when_told_to(purify, source: Path, tmp_path: Path):
    first = purify("--purifier", "blur").json
    ran = purify(*OTHER, "--no-latest")
    assert (tags(tmp_path), ran.json["tags"]) == ({"latest": first["version"]}, [])
    assert "--tag NAME" in ran.err
    both = zipbatch("purify", source, "--store", tmp_path / "pur", *OTHER, "--no-latest", "--tag", "latest")
    assert both.code == 2
    assert "contradict" in both.err


def test_an_import_leaves_it_likewise(purify, source: Path, tmp_path: Path):
    from zipbatch import images
    from zipbatch.shards import read_shard

    night = purify(*NIGHTLY).json
    for item in read_shard(source / "test-000000.tar"):
        file = tmp_path / "theirs" / "test" / f"{item.key}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(images.encode_png(255 - item.image()))
    asked = ("store", "import", tmp_path / "theirs", "--data", source, "--store", tmp_path / "pur", "--tag", "theirs")
    ran = zipbatch(*asked, "--json")
    assert (ran.code, ran.json["tags"], ran.json["reference"]) == (0, ["theirs"], "in@theirs"), ran.err
    assert "in@latest stays with nightly" in ran.err
    assert tags(tmp_path)["latest"] == night["version"]
    assert zipbatch(*asked, "--latest", "--json").json["tags"] == ["theirs", "latest"]


def test_the_listing_says_which_settings_a_tag_has(purify, tmp_path: Path):
    purify("--purifier", "blur", "--set", "transforms=blur:4", "--tag", "coarse")
    purify("--purifier", "jpeg", "--tag", "usual")
    lines = zipbatch("store", "ls", "--store", tmp_path / "pur").out.splitlines()
    settings: dict[str, str] = {}
    for line in lines:  # tags stand below their version
        if line.startswith("in "):
            row = line
        elif line.strip() in {"coarse", "usual"}:
            settings[line.strip()] = row
    assert "blur blur:4" in settings["coarse"]
    assert "jpeg" in settings["usual"]
    assert "blur" not in settings["usual"]


@pytest.mark.parametrize("more", [(), ("--tag", "nightly"), ("--tag", "other"), ("--latest",), ("--no-latest",)])
@pytest.mark.parametrize("quality", [50, 30])
def test_a_dry_run_names_the_tags_that_the_run_then_moves(
    purify, source: Path, tmp_path: Path, more: tuple[str, ...], quality: int
):
    purify("--purifier", "jpeg", "--set", "quality=50", "--tag", "nightly")
    asked = ("--purifier", "jpeg", "--set", f"quality={quality}", *more)
    planned = zipbatch("purify", source, "--store", tmp_path / "pur", *asked, "--dry-run").out
    (line,) = [line for line in planned.splitlines() if line.split()[:1] == ["tag"]]
    moved = purify(*asked).json["tags"]
    assert set(line.split(None, 1)[1].split(", ")) == (set(moved) or {"none"})
