"""Options of a command, made from the fields of its request."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
import click
from pydantic.fields import FieldInfo

from zipbatch.cli.number import Number
from zipbatch.config import Request, pairs, validate
from zipbatch.config.request import has_option, option_of

_Command = Callable[..., None]


def options_of(
    model: type[Request], *, first: Iterable[str] = (), without: Iterable[str] = ()
) -> Callable[[_Command], _Command]:
    """Give a command an option for each field of ``model``; it is called with the model as ``request``.

    Args:
        model: the request.
        first: fields whose options help lists before the others.
        without: fields that the command finds out in another way, from its arguments, and fills in itself: the model is
            given to it as a function of them then.
    """
    left_out = set(without)
    names = dict.fromkeys([*first, *model.model_fields])
    offered = [one for name in names if name not in left_out for one in _offered(name, model.model_fields[name])]

    def decorate(command: _Command) -> _Command:
        @wraps(command)
        def gathered(**given: Any) -> None:
            asked = _asked(offered, given)

            def request(**found: Any) -> Request:
                return validate(model, asked | found, where="settings given as flags")

            rest = {name: value for name, value in given.items() if name not in {one.name for one in offered}}
            command(request=request if left_out else request(), **rest)

        with_options: _Command = gathered
        for one in reversed(offered):
            with_options = _option(one)(with_options)
        return with_options

    return decorate


@dataclass(frozen=True)
class _Offered:
    """A field that has a flag. ``mapping`` is the field of the request that its value goes into, None for its own;
    of a mapping's entries, ``default`` is what help says of the default.
    """

    name: str
    field: FieldInfo
    mapping: str | None = None
    default: str | None = None

    @property
    def flag(self) -> str:
        """What it is called on the command line."""
        return flag_of(self.name, self.field)


def flag_of(name: str, field: FieldInfo) -> str:
    """``--batch-size``."""
    return option_of(field).flag or f"--{name.replace('_', '-')}"


def _offered(name: str, field: FieldInfo) -> list[_Offered]:
    """The field itself, or those of the model whose settings it holds."""
    said = option_of(field)
    if said.settings_of is None:
        return [_Offered(name, field)]
    entries = {key: entry for key, entry in said.settings_of.model_fields.items() if has_option(entry)}
    return [_Offered(key, entry, name, said.default or _default_text(entry)) for key, entry in entries.items()]


def _default_text(field: FieldInfo) -> str | None:
    """What help says of the default of a field; None where that is nothing."""
    value = option_of(field).default or field.get_default()
    return None if value is None else str(value)


def _asked(offered: Iterable[_Offered], given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that were given, by name, as the request takes them."""
    asked: dict[str, Any] = {}
    for one in offered:
        value = _value(one, given[one.name])
        if value is not None:
            (asked if one.mapping is None else asked.setdefault(one.mapping, {}))[one.name] = value
    return asked


def _option(one: _Offered) -> Callable[[_Command], _Command]:
    field, flag, kind = one.field, one.flag, _without_none(one.field.annotation)
    said, whole = option_of(field), one.mapping is None
    default = field.get_default(call_default_factory=True) if whole else None
    shown = said.default if whole else one.default
    text = said.help if shown is None else f"{said.help}  [default: {shown}]".strip()
    if kind is bool:
        names = flag if default is False else f"{flag}/--no-{flag.removeprefix('--')}"
        return click.option(names, one.name, is_flag=True, default=default, help=text)
    settings: dict[str, Any] = {"help": text, "metavar": said.metavar, "required": whole and field.is_required()}
    if get_origin(kind) in {tuple, dict}:
        item = get_args(kind)[0] if get_origin(kind) is tuple else str
        return click.option(flag, one.name, type=_click_type(item, field), multiple=True, **settings)
    if whole and not field.is_required() and default is not None:
        settings |= {"default": default, "show_default": said.default is None}
    return click.option(flag, one.name, type=_click_type(kind, field), **settings)


def _without_none(kind: Any) -> Any:
    """``int`` of ``int | None``."""
    if get_origin(kind) in {Union, types.UnionType}:
        kinds = [one for one in get_args(kind) if one is not types.NoneType]
        return kinds[0] if len(kinds) == 1 else str
    return kind


def _click_type(kind: Any, field: FieldInfo) -> Any:
    """With the limits that the field has."""
    if get_origin(kind) is Literal:
        return click.Choice(get_args(kind))
    limits = _limits(field)
    if kind is int and limits:
        return click.IntRange(**limits)
    if kind is float:
        return Number(**limits) if limits else click.FLOAT
    if kind is Path:
        return click.Path(path_type=Path)
    return click.types.convert_type(kind)


def _limits(field: FieldInfo) -> Mapping[str, Any]:
    limits: dict[str, Any] = {}
    for entry in field.metadata:
        if isinstance(entry, annotated_types.Ge):
            limits["min"] = entry.ge
        elif isinstance(entry, annotated_types.Gt):
            limits |= {"min": entry.gt, "min_open": True}
        elif isinstance(entry, annotated_types.Le):
            limits["max"] = entry.le
        elif isinstance(entry, annotated_types.Lt):
            limits |= {"max": entry.lt, "max_open": True}
    return limits


def _value(one: _Offered, given: Any) -> Any:
    """What Click found, as the request takes it: pairs as a mapping, in which null is none; nothing as None."""
    kind = _without_none(one.field.annotation)
    if get_origin(kind) is not dict:
        return None if given == () else given
    found: Mapping[str, object] = pairs(given, one.flag)
    if get_args(kind)[1:] == (Any,):
        found = {key: None if text == "null" else text for key, text in found.items()}
    return found or None
