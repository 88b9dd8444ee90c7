"""Which purifier is asked for, and its settings: a preset or a method, with single settings on top."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from functools import lru_cache

from zipbatch.config import DEFAULTS, Settings, find_config, read_config, validate
from zipbatch.errors import UsageError
from zipbatch.purifiers import PURIFIERS, ChainSettings, Purifier
from zipbatch.spelling import setting
from zipbatch.stages.purify.request import CHAIN, PurifierRequest
from zipbatch.stages.purify.step_settings import is_of_step, with_step_settings

log = logging.getLogger(__name__)
DEFAULT_PRESET = DEFAULTS["purifiers"]
SINGLE_PRESET = "balanced-v1"
"""What single settings are of where no preset is named: they are ZIP's, and the default is a chain."""


def chosen_purifier(asked: PurifierRequest) -> tuple[str, Settings]:
    """The purifier's name and its settings: a preset (or file), or a method's defaults, with single ones on top.

    Settings are not held against a prior yet.

    Raises:
        UsageError: unknown preset or method, settings that do not fit or do not apply.
    """
    preset, method, given = asked.preset, asked.method, asked.flags
    of_steps = {name: value for name, value in asked.assigned.items() if is_of_step(name)}
    assigned = {name: value for name, value in asked.assigned.items() if name not in of_steps}
    if preset is None and method is None and (given or assigned):
        preset = SINGLE_PRESET
        warn_once(f"settings of zip are given, and no preset: taking {preset}, not {DEFAULT_PRESET}, which is a chain")
    method, values, where = _preset_or_method(preset, method)
    kind = PURIFIERS[method]
    _check_names(kind, method, given, assigned)
    validate(kind.settings_type, values, where=where)
    merged = {**values, **given, **assigned}
    settings = validate(kind.settings_type, merged, where="settings given one by one")
    if not of_steps:
        return method, settings
    merged["steps"] = _steps_with(of_steps, merged.get("steps", ChainSettings.DEFAULT_STEPS), method)
    return method, validate(kind.settings_type, merged, where="settings given one by one")


def named_preset(asked: PurifierRequest) -> str | None:
    """The preset that is asked for, or taken where nothing is; None where a method or a chain stands for itself."""
    return asked.preset if asked.preset or asked.method else DEFAULT_PRESET


def _preset_or_method(preset: str | None, method: str | None) -> tuple[str, dict[str, object], str]:
    """A purifier's name, the settings that a preset has of it, and where both are from, for messages."""
    values: dict[str, object] = {}
    where = setting("purifier", method)
    if preset is not None or method is None:
        file = find_config("purifiers", preset or DEFAULT_PRESET)
        values, where = read_config(file), str(file)
        chosen = str(values.pop("method", CHAIN if isinstance(values.get("steps"), list) else "zip"))
        if method is not None and method != chosen:
            raise UsageError(f"{file} is a preset of {chosen}, not of {setting('purifier', method)}")
        method = chosen
    if method not in PURIFIERS:
        raise UsageError(f"{where}: unknown purifier {method!r}; known: {', '.join(PURIFIERS)}")
    return method, values, where


def _steps_with(assigned: Mapping[str, object], steps: object, method: str) -> list[Mapping[str, object]]:
    """Steps, as they are written and found sound, with single settings written into them."""
    if method != CHAIN:
        name, value = next(iter(assigned.items()))
        raise UsageError(
            f"{setting('set', {name: value})}: the purifier {method} is no chain, so its settings have no step before "
            f"them; it has: {', '.join(PURIFIERS[method].settings_type.model_fields)}"
        )
    assert isinstance(steps, list | tuple)
    return with_step_settings(steps, assigned)


def _check_names(kind: type[Purifier], method: str, flags: Iterable[str], assigned: Mapping[str, object]) -> None:
    """Raises ``UsageError`` for a setting that the purifier does not have, or that is given twice."""
    known = kind.settings_type.model_fields
    for name in flags:
        flag = f"‹{name}›"
        if method == CHAIN:
            raise UsageError(
                f"{flag} does not apply to a chain of purifiers, as several presets are: say it of a step, "
                f"{setting('set', {f'zip.{name}': '…'})}, or take one purifier: {setting('preset', SINGLE_PRESET)}"
            )
        if name not in known:
            raise UsageError(f"{flag} does not apply to the purifier {method}")
        if name in assigned:
            raise UsageError(f"{flag} and {setting('set', {name: assigned[name]})} both set {name}; give one")
    for name, value in assigned.items():
        if name not in known:
            of_step = f"; of a step it is set by its number or method: {setting('set', {f'1.{name}': value})}"
            raise UsageError(
                f"{setting('set', {name: value})}: the purifier {method} has no such setting; it has: "
                f"{', '.join(known)}{of_step if method == CHAIN else ''}"
            )


@lru_cache
def warn_once(message: str) -> None:
    """Warn once, however often a prior is opened."""
    log.warning(message)
