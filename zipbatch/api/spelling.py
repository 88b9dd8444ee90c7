"""Settings as Python has them."""

from __future__ import annotations

import json

from zipbatch.spelling import Setting


def keyword(named: Setting) -> str:
    """``resize="stretch"``, ``quarantine=True``, ``gpus=N``; a setting without a value by its name."""
    if named.values:
        return f"{named.name}={_literal(named.values[0])}"
    return named.name if named.blank is None else f"{named.name}={named.blank}"


def _literal(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_literal(key)}: {_literal(one)}' for key, one in value.items())}}}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
