"""The rows of a version's list: one form for a list, nothing taken that is not a row."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from zipbatch import atomic
from zipbatch.store.rows import VersionRow, count_rows, pack_rows, unpack_rows
from zipbatch.store.versions import version_id

ROWS = (
    VersionRow("test", "test-000000.tar", "a" * 64, "b" * 64, 3),
    VersionRow("träin", 'odd "name"\n.tar', "c" * 64, "d" * 64, 0),
)
FIELDS = {"split": "test", "shard": "s.tar", "output": "a", "input": "b", "samples": 3}


def test_rows_come_back_as_they_were():
    packed = pack_rows(ROWS)
    assert unpack_rows(packed) == ROWS
    assert pack_rows(iter(ROWS)) == packed
    assert gzip.decompress(packed).splitlines()[0] == (
        b'{"input":"%s","output":"%s","samples":3,"shard":"test-000000.tar","split":"test"}' % (b"b" * 64, b"a" * 64)
    )
    assert unpack_rows(pack_rows([])) == ()


def test_the_id_is_the_digest_of_canonical_json():
    identity = {"method": "blur", "settings": {"transforms": ["blur:2"]}}
    for rows in ((), ROWS[:1], ROWS):
        value = {"dataset": "d", "purifier": identity, "list": [row.value() for row in rows]}
        assert version_id("d", identity, rows) == atomic.sha256_json(value)[:20]


@pytest.mark.parametrize(
    "value",
    [
        1,
        [],
        None,
        {},
        FIELDS | {"more": 1},
        {k: v for k, v in FIELDS.items() if k != "samples"},
        FIELDS | {"samples": "3"},
        FIELDS | {"samples": True},
        FIELDS | {"samples": 3.0},
        FIELDS | {"output": None},
        FIELDS | {"quarantined": 1},
        FIELDS | {"quarantined": 1, "quarantine": None},
        FIELDS | {"quarantined": 0, "quarantine": "c"},
        FIELDS | {"quarantined": -1, "quarantine": "c"},
        FIELDS | {"quarantine": "c"},
        FIELDS | {"other_images": 0},
        FIELDS | {"other_images": -1},
        FIELDS | {"other_images": True},
        FIELDS | {"other_images": 1, "quarantine": "c"},
        {k: v for k, v in FIELDS.items() if k != "samples"} | {"other_images": 1},
    ],
)
def test_what_is_no_row_is_refused(value: Any):
    with pytest.raises(ValueError, match="is not a row of a list"):
        unpack_rows(gzip.compress(json.dumps(value).encode() + b"\n"))


@pytest.mark.parametrize("line", [json.dumps(FIELDS | {"shard": "\ud800"}).encode(), b"[" * 100_000, b'"\xff"'])
def test_text_that_is_none_is_refused(line: bytes):
    with pytest.raises(ValueError, match=r"."):
        unpack_rows(gzip.compress(line + b"\n"))


@pytest.mark.parametrize(
    "data", [b"", b"x", gzip.compress(b"{\n", mtime=0), gzip.compress(b"\xff\n", mtime=0), pack_rows(ROWS)[:-4]]
)
def test_damaged_files(data: bytes):
    with pytest.raises(ValueError, match=r"."):
        unpack_rows(data)


SHORT = VersionRow("test", "s.tar", "a", "b", 3, 2, "c")


def test_rows_that_are_short_of_samples_say_so():
    assert unpack_rows(pack_rows([SHORT, ROWS[0]])) == (SHORT, ROWS[0])
    assert json.loads(SHORT.line()) == FIELDS | {"quarantined": 2, "quarantine": "c"}
    assert json.loads(SHORT._replace(quarantined=0, quarantine=None).line()) == FIELDS
    assert (SHORT.objects, ROWS[0].objects) == (("a", "c.quarantine"), ("a" * 64,))
    assert count_rows([SHORT, SHORT]) == {"test": {"shards": 2, "samples": 6, "quarantined": 4}}


def test_rows_that_hold_what_was_not_purified_say_so():
    kept, both = ROWS[0]._replace(other_images=4), SHORT._replace(other_images=1)
    assert unpack_rows(pack_rows([kept, both, SHORT])) == (kept, both, SHORT)
    assert json.loads(both.line()) == FIELDS | {"quarantined": 2, "quarantine": "c", "other_images": 1}
    assert count_rows([kept, both])["test"] == {"shards": 2, "samples": 6, "quarantined": 2, "other_images": 5}
    assert version_id("d", {}, [kept]) != version_id("d", {}, ROWS[:1])


def test_counts():
    assert count_rows([*ROWS, ROWS[0]._replace(samples=4)]) == {
        "test": {"shards": 2, "samples": 7},
        "träin": {"shards": 1, "samples": 0},
    }
