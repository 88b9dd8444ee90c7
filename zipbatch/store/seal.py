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


def unsealed(data: bytes) -> dict[str, Any]:
    """The fields of a file, without its seal, which must be theirs; files of older releases have none.

    Raises:
        ValueError: no JSON object, or a field was changed since it was sealed.
    """
    try:
        value = json.loads(data)
        if not isinstance(value, dict):
            raise ValueError("no JSON object")  # noqa: TRY004 (one kind of error for damage)
        seal = value.pop(SEAL, None)
        if seal is not None and seal != atomic.sha256_json(value):
            raise ValueError("a field is not what was written")
    except RecursionError as error:
        raise ValueError(str(error)) from error
    return value
