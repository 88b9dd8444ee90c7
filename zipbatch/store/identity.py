"""What decides the bytes of a purified shard."""

from __future__ import annotations

from collections.abc import Mapping

from zipbatch.atomic import sha256_json


def task_key(input_sha256: str, identity: Mapping[str, object]) -> str:
    """SHA-256 of (input digest, purifier identity): the name of a piece of work, the same wherever it is done."""
    return sha256_json({"input": input_sha256, "purifier": identity})
