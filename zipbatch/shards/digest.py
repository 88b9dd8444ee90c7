"""A shard's bytes, held against the digest that is known of them: before they are read, and as they are."""

from __future__ import annotations

from collections.abc import Iterator

from zipbatch import storage
from zipbatch.errors import DataError
from zipbatch.shards.reader import read_shard
from zipbatch.shards.sample import Sample
from zipbatch.storage import StoragePath

STAGED = "its bytes are not those the manifest lists; stage the dataset again"
STORED = "its bytes are not those its name says; run 'zipbatch store verify --repair', then purify again"


def listed_digest(path: StoragePath, sha256: str | None, *, otherwise: str = STAGED) -> str:
    """The digest of a shard's bytes, which must be ``sha256`` where that is known.

    Raises:
        DataError: it is another, with ``otherwise`` as the reason.
    """
    digest = storage.sha256(path)
    if sha256 is not None and digest != sha256:
        raise DataError(path, otherwise)
    return digest


def read_listed(
    path: StoragePath, sha256: str | None, *, imageless: bool = False, otherwise: str = STAGED
) -> Iterator[Sample]:
    """``read_shard`` of bytes whose digest is ``sha256``, or is not known; a damaged shard is told before it is read.

    Raises:
        DataError: as ``listed_digest`` and ``read_shard``.
    """
    digest = listed_digest(path, sha256, otherwise=otherwise)
    yield from read_shard(path, sha256=digest, imageless=imageless)
