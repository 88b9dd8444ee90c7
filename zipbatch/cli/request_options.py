"""Options of a command, made from the fields of its request."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import click
from click.core import ParameterSource
from pydantic.fields import FieldInfo

from zipbatch.cli.number import Number
from zipbatch.config import Request, pairs, validate
from zipbatch.config.request import Option, flag_of, option_of

_Command = Callable[..., None]


def options_of(
    model: type[Request],
    *,
    first: Iterable[str] = (),
    last: Iterable[str] = (),
    without: Iterable[str] = (),
    name: str = "request",
) -> Callable[[_Command], _Command]:
    """Give a command an option for each field of ``model``; it is called with the model as ``request``.

    The model is made of what the user gave alone, so that its ``model_fields_set`` says what that was.

    Args:
        model: the request.
        first: fields whose options help lists before the others; ``last`` after them.
        without: fields that the command finds out in another way, from its arguments, and fills in itself: the model is
            given to it as a function of them then.
        name: what the command calls the model.
    """
    left_out = set(without)
    order = [field for field in _in_order(model, first, last) if field not in left_out]
    fields = {field: model.model_fields[field] for field in order}

    def decorate(command: _Command) -> _Command:
        @wraps(command)
        def gathered(**given: Any) -> None:
            values = {field: _value(about, field, given.pop(field)) for field, about in fields.items()}
            asked = {field: value for field, value in values.items() if _is_given(field)}

            def request(**found: Any) -> Request:
                return validate(model, asked | found, where="settings given as flags")

            command(**{name: request if left_out else request()}, **given)

        with_options: _Command = gathered
        for field, about in reversed(fields.items()):
            with_options = option_for(field, about)(with_options)
        return with_options

    return decorate


def _is_given(name: str) -> bool:
    source = click.get_current_context().get_parameter_source(name)
    return source is not ParameterSource.DEFAULT


def option_for(name: str, field: FieldInfo) -> Callable[[_Command], _Command]:
    """The option of one field."""
    said, flag, kind = option_of(field), flag_of(name, field), _without_none(field.annotation)
    default, text = field.get_default(call_default_factory=True), _help(said)
    if kind is bool:
        names = flag if default is False else f"{flag}/--no-{flag.removeprefix('--')}"
        return click.option(names, name, is_flag=True, default=default, help=text)
    settings: dict[str, Any] = {"help": text, "metavar": said.metavar, "required": field.is_required()}
    if get_origin(kind) in {tuple, dict}:
        item, metadata = _item(get_args(kind)[0]) if get_origin(kind) is tuple else (str, [])
        return click.option(flag, name, type=_click_type(item, metadata), multiple=True, **settings)
    if not field.is_required() and default is not None:
        settings |= {"default": default, "show_default": said.default is None}
    return click.option(flag, name, type=_click_type(kind, field.metadata), **settings)


def _help(said: Option) -> str:
    return said.help if said.default is None else f"{said.help}  [default: {said.default}]"


def _without_none(kind: Any) -> Any:
    """``int`` of ``int | None``."""
    if get_origin(kind) in {Union, types.UnionType}:
        kinds = [one for one in get_args(kind) if one is not types.NoneType]
        return kinds[0] if len(kinds) == 1 else str
    return kind


def _item(kind: Any) -> tuple[Any, list[Any]]:
    """An item's type and what is said beside it: ``float`` and its limits of ``Annotated[float, Field(gt=0)]``."""
    if get_origin(kind) is not Annotated:
        return kind, []
    item, *beside = get_args(kind)
    return item, [entry for field in beside for entry in (field.metadata if isinstance(field, FieldInfo) else [field])]


def _click_type(kind: Any, metadata: Iterable[Any]) -> Any:
    """With the limits that the metadata have."""
    if get_origin(kind) is Literal:
        return click.Choice(get_args(kind))
    limits = _limits(metadata)
    if kind is int and limits:
        return click.IntRange(**limits)
    if kind is float:
        return Number(**limits) if limits else click.FLOAT
    if kind is Path:
        return click.Path(path_type=Path)
    return click.types.convert_type(kind)


def _limits(metadata: Iterable[Any]) -> Mapping[str, Any]:
    limits: dict[str, Any] = {}
    for entry in metadata:
        if isinstance(entry, annotated_types.Ge):
            limits["min"] = entry.ge
        elif isinstance(entry, annotated_types.Gt):
            limits |= {"min": entry.gt, "min_open": True}
        elif isinstance(entry, annotated_types.Le):
            limits["max"] = entry.le
        elif isinstance(entry, annotated_types.Lt):
            limits |= {"max": entry.lt, "max_open": True}
    return limits


def _value(field: FieldInfo, name: str, given: Any) -> Any:
    """What Click found, as the request takes it: pairs as a mapping, in which null is none."""
    kind = _without_none(field.annotation)
    if get_origin(kind) is not dict:
        return given
    found: Mapping[str, object] = pairs(given, flag_of(name, field))
    if get_args(kind)[1:] == (Any,):
        found = {key: None if text == "null" else text for key, text in found.items()}
    return found


def _in_order(model: type[Request], first: Iterable[str], last: Iterable[str]) -> list[str]:
    at_end = list(last)
    return list(dict.fromkeys([*first, *(field for field in model.model_fields if field not in at_end), *at_end]))
