"""A shard's bytes, held against the digest that is known of them while they are read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from zipbatch import places
from zipbatch.errors import DataError
from zipbatch.places import Place


def listed_digest(path: Place, sha256: str | None) -> str:
    """The digest of a shard's bytes, which a manifest that lists one must agree with.

    Raises:
        DataError: it lists another.
    """
    digest = places.sha256(path)
    if sha256 is not None and digest != sha256:
        raise DataError(path, "its bytes are not those the manifest lists; stage the dataset again")
    return digest


@contextmanager
def held_to(path: Place, sha256: str | None) -> Iterator[str]:
    """Read a shard within: what is read there has the digest that this gives.

    Args:
        path: the shard.
        sha256: the digest that a manifest lists, None where nobody knows it.

    Raises:
        DataError: it has another digest, or was changed while it was read.
    """
    stamp = places.stamp(path)
    yield listed_digest(path, sha256)
    if places.stamp(path) != stamp:
        raise DataError(path, "changed while it was read; run again")
