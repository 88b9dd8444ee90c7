"""Lists are unpacked whole or refused."""

from __future__ import annotations

import gzip

import pytest

from zipbatch.store import lists
from zipbatch.store.lists import unpacked, unpacked_lines


def test_lines():
    assert list(unpacked_lines(gzip.compress(b"a\nb\n", mtime=0))) == [b"a", b"b"]
    assert list(unpacked_lines(gzip.compress(b"a\n\nb", mtime=0))) == [b"a", b"", b"b"]
    assert list(unpacked_lines(gzip.compress(b"", mtime=0))) == []


def test_lines_across_the_pieces_in_which_they_are_unpacked(monkeypatch: pytest.MonkeyPatch):
    lines = [b"%d" % number * (number % 7) for number in range(300)]
    data = gzip.compress(b"\n".join(lines) + b"\n")
    for piece in (1, 2, 3, 50, len(data), 10**6):
        monkeypatch.setattr(lists, "_PIECE", piece)
        assert list(unpacked_lines(data)) == lines


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        gzip.compress(b"a\n", mtime=0)[:-4],
        gzip.compress(b"a\n", mtime=0) + b"x",
        gzip.compress(b"a", mtime=0) * 2,
        b"\x1f\x8b",
    ],
)
def test_damage(data: bytes):
    with pytest.raises(ValueError, match="list"):
        list(unpacked_lines(data))


def test_a_bomb_is_unpacked_no_further_than_the_limit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lists, "MAX_BYTES", 1000)
    assert len(list(unpacked_lines(gzip.compress(b"a\n" * 500)))) == 500
    with pytest.raises(ValueError, match="over 1000 bytes"):
        list(unpacked_lines(gzip.compress(b"a\n" * 501)))


def test_notes_are_unpacked_whole_or_refused():
    assert unpacked(gzip.compress(b"{}" * 500), limit=1000) == b"{}" * 500
    with pytest.raises(ValueError, match="over 999 bytes"):
        unpacked(gzip.compress(b"{}" * 500), limit=999)
    with pytest.raises(ValueError, match="list"):
        unpacked(gzip.compress(b"{}", mtime=0)[:-1], limit=999)


def test_a_line_is_held_no_further_than_its_limit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lists, "MAX_LINE_BYTES", 1000)
    monkeypatch.setattr(lists, "_PIECE", 100)
    assert len(list(unpacked_lines(gzip.compress(b"a" * 1000 + b"\n")))) == 1
    with pytest.raises(ValueError, match="a line of over 1000 bytes"):
        list(unpacked_lines(gzip.compress(b"a" * 1200)))
