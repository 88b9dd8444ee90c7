"""Settings as the command line has them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from zipbatch.spelling import Setting, spelled

if TYPE_CHECKING:
    from zipbatch.config import Request

REQUESTS = (
    "zipbatch.cluster.request",
    "zipbatch.stages.adapt.request",
    "zipbatch.stages.audit.request",
    "zipbatch.stages.bench.request",
    "zipbatch.stages.convert.request",
    "zipbatch.stages.evaluate.request",
    "zipbatch.stages.poison.request",
    "zipbatch.stages.purify.request",
    "zipbatch.stages.train.request",
    "zipbatch.stages.tune.request",
)
"""The modules whose fields are flags; a name has the same flag in all of them."""
_WITHOUT_REQUEST = {"values": "--var"}
"""Of commands whose options are no request's fields, those that are named otherwise."""


def flag(named: Setting) -> str:
    """``--split test``, ``--quarantine``, ``--no-clean-label``, ``--set zip.steps=10``."""
    return _flag(named, _all_flags())


def help_text(text: str, request: type[Request]) -> str:
    """What a field of a request says of itself, with other fields of the request by their flags."""
    return spelled(text, lambda named: _flag(named, flags_of_request(request)))


def _flag(named: Setting, flags: Mapping[str, str]) -> str:
    name = flags.get(named.name) or f"--{named.name.replace('_', '-')}"
    if not named.values:
        return name if named.blank is None else f"{name} {named.blank}"
    (value,) = named.values
    if isinstance(value, bool):
        return name if value else f"--no-{name.removeprefix('--')}"
    if isinstance(value, list):
        return " ".join(f"{name} {_word(one)}" for one in value)
    if isinstance(value, dict):
        return " ".join(f"{name} {key}={_word(one)}" for key, one in value.items())
    return f"{name} {_word(value)}"


def _word(value: object) -> str:
    """A value as a shell takes it."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if text.split() == [text] else shlex.quote(text)


@cache
def _all_flags() -> dict[str, str]:
    requests = [request for module in REQUESTS for request in requests_of(module)]
    found = {name: own for request in requests for name, own in flags_of_request(request).items()}
    return {**_WITHOUT_REQUEST, **found}


def requests_of(module: str) -> Iterator[type[Request]]:
    """The requests that a module has."""
    from zipbatch.config import Request

    for found in vars(import_module(module)).values():
        if isinstance(found, type) and issubclass(found, Request):
            yield found


@cache
def flags_of_request(request: type[Request]) -> dict[str, str]:
    """Setting -> flag: its fields, those that stand in a field that is a mapping of settings included."""
    from zipbatch.config.request import flag_of, settings_within

    within = {name: flag_of(name, field) for name, (_, field) in settings_within(request).items()}
    return {**within, **{name: flag_of(name, field) for name, field in request.model_fields.items()}}
