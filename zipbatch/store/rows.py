"""The rows of a version's list, and the file that holds them: gzipped JSON lines, perhaps a million."""

from __future__ import annotations

import gzip
import io
import json
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple

from zipbatch import atomic
from zipbatch.store.lists import unpacked_lines
from zipbatch.store.records import QUARANTINE


class VersionRow(NamedTuple):
    """One shard of a version, in the order of the input. A tuple: a version may have a million.

    ``samples`` are those of the object ``output``; ``quarantined`` more lie in the quarantine shard of digest
    ``quarantine``. ``other_images`` of its samples' members are images that were kept as they are. A row without any is
    written without these fields, so that only versions that are short of samples, or hold what was not purified, say
    so, and have an id of their own.
    """

    split: str
    shard: str
    output: str
    input: str
    samples: int
    quarantined: int = 0
    quarantine: str | None = None
    other_images: int = 0

    @property
    def objects(self) -> tuple[str, ...]:
        """The names of the objects that it needs (``Store.object_path``)."""
        return (self.output,) if self.quarantine is None else (self.output, f"{self.quarantine}{QUARANTINE}")

    def value(self) -> dict[str, Any]:
        """Its fields as they are written."""
        fields = self._asdict()
        if not self.quarantined:
            del fields["quarantined"], fields["quarantine"]
        if not self.other_images:
            del fields["other_images"]
        return fields

    def line(self) -> bytes:
        """Its line in the version's list: canonical JSON."""
        return atomic.canonical_json(self.value()) + b"\n"


_WHOLE = VersionRow._fields[:5]
_WHOLE_TYPES = (str, str, str, str, int)
_MORE = {"quarantined": int, "quarantine": str, "other_images": int}


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
        ValueError: it is damaged, or larger than any list.
    """
    return parse_rows(unpacked_lines(data))


def parse_rows(lines: Iterable[bytes]) -> tuple[VersionRow, ...]:
    """The rows of a list's lines.

    Raises:
        ValueError: one is no row.
    """
    try:
        return tuple(map(_parse, lines))
    except RecursionError as error:
        raise ValueError(str(error)) from error


def _parse(packed: bytes) -> VersionRow:
    line = packed.decode()
    value = json.loads(line)
    if "\\u" in line:
        atomic.canonical_json(value)  # refuses half a surrogate, which nothing can be named by
    if type(value) is dict:
        fields, types = (_WHOLE, _WHOLE_TYPES) if len(value) == len(_WHOLE) else _more(value)
        row: tuple[Any, ...] = tuple(map(value.get, fields))
        if len(value) == len(fields) and tuple(map(type, row)) == types:
            return VersionRow(sys.intern(row[0]), *row[1:]) if len(row) == len(_WHOLE) else VersionRow(**value)
    raise ValueError(f"{line[:80]!r} is not a row of a list")


def _more(value: dict[str, Any]) -> tuple[tuple[str, ...], tuple[type, ...]]:
    """The fields of a row that says more, and their types; none for a count of 0 or half of what belongs together."""
    said = tuple(name for name in _MORE if name in value)
    counts = [value[name] for name in said if _MORE[name] is int]
    sound = all(type(count) is int and count > 0 for count in counts)
    if not sound or ("quarantined" in said) != ("quarantine" in said):
        return (), ()
    return (*_WHOLE, *said), (*_WHOLE_TYPES, *(_MORE[name] for name in said))


def count_rows(rows: Iterable[VersionRow]) -> dict[str, dict[str, int]]:
    """Split -> how many ``shards`` and ``samples`` it has; ``quarantined`` and ``other_images`` where there are any."""
    counts: dict[str, dict[str, int]] = {}
    for row in rows:
        split = counts.setdefault(row.split, {"shards": 0, "samples": 0})
        split["shards"] += 1
        split["samples"] += row.samples
        if row.quarantined:
            split["quarantined"] = split.get("quarantined", 0) + row.quarantined
        if row.other_images:
            split["other_images"] = split.get("other_images", 0) + row.other_images
    return counts
