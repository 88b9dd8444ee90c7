"""Rows of images as CSV and JSON lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.making import files_below
from zipbatch.errors import UsageError
from zipbatch.report.per_image import check_rows_file, write_rows
from zipbatch.results import Result, dump
from zipbatch.results.base import Text


class OneImage(Result):
    key: Text
    score: float
    before: Text
    suspect: bool


COLUMNS = tuple(OneImage.model_fields)
ROWS = [
    OneImage(key="a/ü", score=0.5, before='a "class", or\ntwo', suspect=True),
    OneImage(key="b", score=0.0, before="\ud800", suspect=False),
]


def failing() -> Iterator[OneImage]:
    yield ROWS[0]
    raise KeyError("c")


def test_csv(tmp_path: Path):
    write_rows(tmp_path / "rows.csv", OneImage, ROWS)
    read = list(csv.reader(io.StringIO((tmp_path / "rows.csv").read_bytes().decode(), newline="")))
    assert read == [list(COLUMNS), ["a/ü", "0.5", 'a "class", or\ntwo', "true"], ["b", "0.0", "?", "false"]]


def test_json_lines(tmp_path: Path):
    write_rows(tmp_path / "rows.JSONL", OneImage, ROWS)
    read = [json.loads(line) for line in (tmp_path / "rows.JSONL").read_bytes().splitlines()]
    assert read == [dump(row) for row in ROWS]


def test_no_rows(tmp_path: Path):
    for name in ("rows.csv", "rows.jsonl"):
        write_rows(tmp_path / name, OneImage, [])
    assert files_below(tmp_path) == {"rows.csv": b"key,score,before,suspect\n", "rows.jsonl": b""}


def test_a_row_that_fails_leaves_what_was_there(tmp_path: Path):
    write_rows(tmp_path / "rows.csv", OneImage, ROWS)
    before = files_below(tmp_path)
    with pytest.raises(KeyError):
        write_rows(tmp_path / "rows.csv", OneImage, failing())
    assert files_below(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "words"),
    [("rows.xlsx", ".csv, .jsonl"), ("rows", ".csv, .jsonl"), ("no/rows.csv", "not there"), ("f.csv", "is a folder")],
)
def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path, name: str, words: str):
    (tmp_path / "f.csv").mkdir()
    with pytest.raises(UsageError, match=words):
        check_rows_file(tmp_path / name, "--per-image")
