"""Rows of images as files: CSV or JSON lines, as the file's name says."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from zipbatch import atomic
from zipbatch.errors import UsageError
from zipbatch.results import Result, dump

Row = TypeVar("Row", bound=Result)


def check_rows_file(path: Path, flag: str) -> Path:
    """A file that rows can be written to, told before the work.

    Raises:
        UsageError: its suffix is none of ``.csv`` and ``.jsonl``, or its folder is not there.
    """
    if path.suffix.lower() not in _LINES:
        raise UsageError(f"{flag} {path}: rows are written as {', '.join(_LINES)}; name such a file")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{flag} {path}: its folder is not there")
    if path.is_dir():
        raise UsageError(f"{flag} {path}: is a folder; name a file")
    return path


def write_rows(path: Path, kind: type[Row], rows: Iterable[Row]) -> None:
    """Publish rows of a kind, whose fields are the columns, in UTF-8; the file is there whole or not at all."""
    line_of = _LINES[path.suffix.lower()]

    def write(stream: BinaryIO) -> None:
        if line_of is _csv_line:
            stream.write(_csv_line({column: column for column in kind.model_fields}))
        for row in rows:
            stream.write(line_of(dump(row)))

    atomic.write_with(path, write)


def _csv_line(row: Mapping[str, Any]) -> bytes:
    """One line of RFC 4180, truth values as JSON has them."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(
        str(value).lower() if isinstance(value, bool) else value for value in row.values()
    )
    return text.getvalue().encode(errors="replace")


def _json_line(row: Mapping[str, Any]) -> bytes:
    return f"{json.dumps(row)}\n".encode()


_LINES: dict[str, Callable[[Mapping[str, Any]], bytes]] = {".csv": _csv_line, ".jsonl": _json_line}
