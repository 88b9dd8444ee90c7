"""What the store keeps gzipped, unpacked within limits: lists of many lines, and notes."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

MAX_BYTES = 1024**3
"""Of a list as it unpacks: several million shards."""
MAX_LINE_BYTES = 1024**2
_GZIP = 31  # zlib's number for its own window and a gzip's head and checksum
_PIECE = 1 << 18


def unpacked_lines(data: bytes) -> Iterator[bytes]:
    """The lines of a gzipped list, one after the other: there may be a million, and a few bytes may claim more.

    Raises:
        ValueError: damaged, cut short, or unpacks to over ``MAX_BYTES``; also after lines that were sound.
    """
    rest = b""
    for piece in _pieces(data, MAX_BYTES):
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
        if len(rest) > MAX_LINE_BYTES:
            raise ValueError(f"a list with a line of over {MAX_LINE_BYTES} bytes")
    if rest:
        yield rest


def unpacked(data: bytes, *, limit: int) -> bytes:
    """What a gzip holds.

    Raises:
        ValueError: damaged, cut short, or unpacks to over ``limit`` bytes.
    """
    return b"".join(_pieces(data, limit))


def _pieces(data: bytes, limit: int) -> Iterator[bytes]:
    left = limit
    for piece in _unpacked(data):
        left -= len(piece)
        if left < 0:
            raise ValueError(f"a list that unpacks to over {limit} bytes")
        yield piece


def _unpacked(data: bytes) -> Iterator[bytes]:
    """Bit by bit, each of at most ``_PIECE`` bytes."""
    unpacking = zlib.decompressobj(_GZIP)
    try:
        for start in range(0, len(data), _PIECE):
            packed = data[start : start + _PIECE]
            while packed and not unpacking.eof:
                yield unpacking.decompress(packed, _PIECE)
                packed = unpacking.unconsumed_tail
            if packed:
                raise ValueError("a list that has more behind its end")
        yield unpacking.flush()
    except zlib.error as error:
        raise ValueError(f"not a gzipped list ({error})") from error
    if not unpacking.eof or unpacking.unused_data:
        raise ValueError("a list that is cut short, or has more behind its end")
