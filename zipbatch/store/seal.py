"""Small JSON files of the store that say by themselves whether they are as they were written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from zipbatch import atomic

SEAL = "seal"


def sealed(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields, and the digest of their canonical JSON."""
    return {**fields, SEAL: atomic.sha256_json(fields)}


def unsealed(data: bytes, *, required: bool = False) -> dict[str, Any]:
    """The fields of a file, without its seal, which must be theirs; files of older releases have none.

    Args:
        data: the file.
        required: whether there must be a seal: no release wrote such a file without.

    Raises:
        ValueError: no JSON object, a field was changed since it was sealed, or a seal that is ``required`` is missing.
    """
    try:
        value = json.loads(data)
        if not isinstance(value, dict):
            raise ValueError("no JSON object")  # noqa: TRY004 (one kind of error for damage)
        seal = value.pop(SEAL, None)
        if (required or seal is not None) and seal != atomic.sha256_json(value):
            raise ValueError("a field is not what was written")
    except RecursionError as error:
        raise ValueError(str(error)) from error
    return value
