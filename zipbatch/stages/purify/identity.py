"""What the identity of a purifier says: its steps, whether they learn from a prior, and a line of it for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zipbatch.config import DEFAULTS, find_config, read_description
from zipbatch.purifiers.settings import SETTINGS
from zipbatch.stages.purify.request import CHAIN
from zipbatch.store import VersionHeader

_DEFAULT = DEFAULTS["purifiers"]
_SYMBOLS = {"transforms": "", "guidance_exponent": "k", "steps": "S", "eta": "eta", "start_step": "t0"}


def steps_of(identity: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The purifiers that an identity consists of, mostly itself alone."""
    return list(identity["settings"]["steps"]) if identity["method"] == CHAIN else [identity]


def learned(identity: Mapping[str, Any]) -> list[str]:
    """The steps of an identity without its prior that take settings from the prior's folder, by their method."""
    steps = steps_of(identity) if "method" in identity else []
    return [step["method"] for step in steps if any(step["settings"][name] is None for name in _learned(step)[:1])]


def _learned(step: Mapping[str, Any]) -> tuple[str, ...]:
    """The settings of a step that come with a prior where they are not given."""
    kind = SETTINGS.get(step["method"])
    return () if kind is None else kind.LEARNED


def describe(identity: Mapping[str, Any]) -> str:
    """One line for tables: ``zip blur:2+gray k=1 S=20 eta=1 t0=1000``, ``jpeg quality=50``."""
    if identity["method"] == CHAIN:
        many = [f"{step['draws']}x " if "draws" in step else "" for step in steps_of(identity)]
        return " > ".join(count + describe(step) for count, step in zip(many, steps_of(identity), strict=True))
    settings = _worth_telling(identity)
    known = [name for name in _SYMBOLS if name in settings]
    parts = [_part(name, settings[name]) for name in (*known, *(name for name in settings if name not in known))]
    return " ".join([str(identity["method"]), *parts])


def _worth_telling(step: Mapping[str, Any]) -> dict[str, Any]:
    """Its settings; where some come with a prior, without those, and of its own names only what one chose."""
    settings = dict(step.get("settings", {}))
    if not _learned(step):
        return settings
    changed = _changed(step)
    return {name: value for name, value in settings.items() if name in _SYMBOLS or name in changed}


def preset_text(name: str) -> str:
    """A preset and what it says of itself: ``balanced (default): As much …``."""
    about = read_description(find_config("purifiers", name))
    return f"{name}{' (default)' if name == DEFAULTS['purifiers'] else ''}{': ' if about else ''}{about}"


def describe_settings(header: VersionHeader) -> str:
    """What a version was purified with, as far as it differs from its purifier's defaults: ``zip k=14 t0=150``.

    A preset is not known any more, its settings are. A default of null, which a prior resolves, is told by its value.
    """
    identity = header.purifier
    steps = [{**step, "settings": _changed(step)} for step in steps_of(identity)]
    changed = {"steps": steps} if identity["method"] == CHAIN else steps[0]["settings"]
    usual = {"resize": None, "output_size": None, "seed": 0, "precision": "float32"}
    more = [_part(name, identity[name]) for name, value in usual.items() if identity.get(name, value) != value]
    return " ".join([describe({**identity, "settings": changed}), *more])


def _changed(step: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are not its purifier's defaults."""
    settings, kind = step.get("settings", {}), SETTINGS.get(step["method"])
    defaults = {} if kind is None else kind().model_dump(mode="json")
    return {
        name: value
        for name, value in settings.items()
        if name not in _learned(step) and (name not in defaults or defaults[name] != value)
    }


def _part(name: str, value: object) -> str:
    if name == "transforms" and isinstance(value, list | tuple):
        return "+".join(map(str, value))
    symbol = _SYMBOLS.get(name, name)
    return f"{symbol}={value:g}" if isinstance(value, int | float) else f"{symbol}={value}"
