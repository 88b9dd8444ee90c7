"""The rows of a version's list, and the file that holds them: gzipped JSON lines, perhaps a million."""

from __future__ import annotations

import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterable
from typing import Any, NamedTuple

from zipbatch import atomic


class VersionRow(NamedTuple):
    """One shard of a version, in the order of the input. A tuple: a version may have a million."""

    split: str
    shard: str
    output: str
    input: str
    samples: int

    def line(self) -> bytes:
        """Its line in the version's list: canonical JSON."""
        return atomic.canonical_json(self._asdict()) + b"\n"


_TYPES = (str, str, str, str, int)


def pack_rows(rows: Iterable[VersionRow]) -> bytes:
    """The list's file. Digests do not compress: the quickest level is within a few per cent of the best."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1, mtime=0) as stream:
        for row in rows:
            stream.write(row.line())
    return buffer.getvalue()


def unpack_rows(data: bytes) -> tuple[VersionRow, ...]:
    """The rows of a list's file.

    Raises:
        ValueError: it is damaged.
    """
    try:
        with gzip.open(io.BytesIO(data), "rt", encoding="utf-8", newline="\n") as lines:
            return tuple(map(_parse, lines))
    except (OSError, EOFError, zlib.error, RecursionError) as error:
        raise ValueError(str(error)) from error


def _parse(line: str) -> VersionRow:
    value = json.loads(line)
    if type(value) is dict and len(value) == len(_TYPES):
        row: tuple[Any, ...] = tuple(map(value.get, VersionRow._fields))
        if tuple(map(type, row)) == _TYPES:
            return VersionRow(sys.intern(row[0]), *row[1:])
    raise ValueError(f"{line[:80]!r} is not a row of a list")


def count_rows(rows: Iterable[VersionRow]) -> dict[str, dict[str, int]]:
    """Split -> how many ``shards`` and ``samples`` the rows have of it, in order of appearance."""
    counts: dict[str, dict[str, int]] = {}
    for row in rows:
        split = counts.setdefault(row.split, {"shards": 0, "samples": 0})
        split["shards"] += 1
        split["samples"] += row.samples
    return counts
