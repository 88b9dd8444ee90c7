"""Lists are unpacked whole or refused."""

from __future__ import annotations

import gzip

import pytest

from zipbatch.store import lists
from zipbatch.store.lists import unpacked_lines


def test_lines():
    assert unpacked_lines(gzip.compress(b"a\nb\n")) == [b"a", b"b"]
    assert unpacked_lines(gzip.compress(b"")) == []


@pytest.mark.parametrize(
    "data", [b"", b"x", gzip.compress(b"a\n")[:-4], gzip.compress(b"a\n") + b"x", gzip.compress(b"a") * 2, b"\x1f\x8b"]
)
def test_damage(data: bytes):
    with pytest.raises(ValueError, match="list"):
        unpacked_lines(data)


def test_a_bomb_is_unpacked_no_further_than_the_limit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lists, "MAX_BYTES", 1000)
    assert len(unpacked_lines(gzip.compress(b"a\n" * 500))) == 500
    with pytest.raises(ValueError, match="over 1000 bytes"):
        unpacked_lines(gzip.compress(b"a\n" * 501))
