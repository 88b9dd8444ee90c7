"""Lists of the store: gzipped lines, unpacked within a limit."""

from __future__ import annotations

import zlib

MAX_BYTES = 1024**3
"""Of a list as it unpacks: several million shards."""
_GZIP = 31  # zlib's number for its own window and a gzip's head and checksum


def unpacked_lines(data: bytes) -> list[bytes]:
    """The lines of a gzipped list.

    Raises:
        ValueError: damaged, cut short, or unpacks to over ``MAX_BYTES``.
    """
    unpacking = zlib.decompressobj(_GZIP)
    try:
        text = unpacking.decompress(data, MAX_BYTES)
    except zlib.error as error:
        raise ValueError(f"not a gzipped list ({error})") from error
    if unpacking.unconsumed_tail:
        raise ValueError(f"a list that unpacks to over {MAX_BYTES} bytes")
    if not unpacking.eof or unpacking.unused_data:
        raise ValueError("a list that is cut short, or has more behind its end")
    return text.splitlines()
