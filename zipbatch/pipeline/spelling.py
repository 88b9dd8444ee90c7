"""Settings as a pipeline's file has them."""

from __future__ import annotations

from functools import cache
from typing import Any

import yaml

from zipbatch.config.request import settings_within
from zipbatch.pipeline.stage_types import STAGE_TYPES
from zipbatch.spelling import Setting, Spell


def key_of(kind: str) -> Spell:
    """``resize: stretch``, ``quarantine: true``, ``gpus: N``: as a stage that runs ``kind`` has it, else as others do.

    What no stage has, such as the workers, is left to whom the run is started by.
    """

    def spell(named: Setting) -> str | None:
        path = _within(kind).get(named.name)
        if path is None and not any(named.name in _fields(one) for one in STAGE_TYPES):
            return None
        return _spelled(path or named.name, named)

    return spell


@cache
def _fields(kind: str) -> frozenset[str]:
    stage = STAGE_TYPES[kind]
    return frozenset({*stage.settings.model_fields, *stage.inputs})


@cache
def _within(kind: str) -> dict[str, str]:
    """What stands within a field: ``lr`` -> ``set.lr``."""
    within = settings_within(STAGE_TYPES[kind].settings)
    return {name: f"{key}.{name}" for name, (key, _) in within.items() if name not in _fields(kind)}


def _spelled(path: str, named: Setting) -> str:
    if not named.values:
        return path if named.blank is None else f"{path}: {named.blank}"
    text = _flow(named.values[0])
    outer, dot, inner = path.partition(".")
    return f"{outer}: {{{inner}: {text}}}" if dot else f"{path}: {text}"


def _flow(value: Any) -> str:
    """A value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=2**20, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")
