"""What a user need not type each time, and where it comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from zipbatch.errors import UsageError
from zipbatch.user_config import UserDefault, user_defaults


def write(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "zipbatch.toml"
    file.write_text(text)
    return file


def test_without_any_there_are_none(tmp_path: Path):
    assert user_defaults({}, tmp_path).settings == {}


def test_the_nearest_file_upwards_is_taken_and_paths_are_meant_from_it(tmp_path: Path):
    write(tmp_path, 'store = "far/"\n')
    near = write(tmp_path / "a", 'store = "pur/"\nprior = "embedded"\n')
    (tmp_path / "a" / "b").mkdir()
    found = user_defaults({}, tmp_path / "a" / "b")
    assert found.file == near
    assert found.settings == {
        "store": UserDefault(str(tmp_path / "a" / "pur"), str(near)),
        "prior": UserDefault("embedded", str(near)),
    }


@pytest.mark.parametrize("value", ["s3://bucket/pur", "hub:google/ddpm", "/abs/olute", "embedded"])
def test_what_is_no_relative_path_stays_as_it_is(tmp_path: Path, value: str):
    write(tmp_path, f'prior = "{value}"\n')
    assert user_defaults({}, tmp_path).settings["prior"].value == value


def test_the_environment_wins_over_the_file(tmp_path: Path):
    write(tmp_path, 'store = "pur/"\n')
    found = user_defaults({"ZIPBATCH_STORE": "elsewhere"}, tmp_path)
    assert found.settings["store"] == UserDefault("elsewhere", "ZIPBATCH_STORE")


def test_a_file_can_be_named_or_none_at_all(tmp_path: Path):
    write(tmp_path, 'store = "pur/"\n')
    other = write(tmp_path / "other", 'store = "/theirs"\n')
    assert user_defaults({"ZIPBATCH_CONFIG": str(other)}, tmp_path).settings["store"].value == "/theirs"
    assert user_defaults({"ZIPBATCH_CONFIG": "none"}, tmp_path).settings == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("store = pur/", "not readable as TOML"),
        ('stroe = "pur/"', "stroe: no such setting; there are: store, prior"),
        ("store = 3", "store = 3: must be a path or URL in quotes"),
        ('commands = "x"', "commands: must be tables"),
        ("[commands]\npurify = 3", "commands: must be tables"),
        ("store = '" + "x" * 70_000 + "'", "that is no config"),
    ],
)
def test_a_file_that_means_nothing_is_told(tmp_path: Path, text: str, told: str):
    file = write(tmp_path, text)
    with pytest.raises(UsageError, match=r"zipbatch\.toml") as raised:
        user_defaults({}, tmp_path)
    assert str(file) in str(raised.value)
    assert told in str(raised.value)


def test_a_named_file_must_be_there(tmp_path: Path):
    with pytest.raises(UsageError, match="no such file"):
        user_defaults({"ZIPBATCH_CONFIG": str(tmp_path / "nosuch.toml")}, tmp_path)
