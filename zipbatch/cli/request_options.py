"""Options of a command, made from the fields of its request."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import click
from click.core import ParameterSource
from pydantic.fields import FieldInfo

from zipbatch.cli.number import Number
from zipbatch.cli.spelling import help_text
from zipbatch.cli.user_defaults import ConditionalOption
from zipbatch.config import Request, pairs, validate
from zipbatch.config.request import Option, flag_of, has_option, option_of
from zipbatch.user_config import SETTINGS, user_defaults

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
    offered = [one for field in order for one in _offered(field, model.model_fields[field])]

    def decorate(command: _Command) -> _Command:
        @wraps(command)
        def gathered(**given: Any) -> None:
            asked = _asked(offered, {one.name: given.pop(one.name) for one in offered})
            asked |= _own_defaults(model, asked)

            def request(**found: Any) -> Request:
                return validate(model, asked | found, where="settings given as flags")

            command(**{name: request if left_out else request()}, **given)

        with_options: _Command = gathered
        for one in reversed(offered):
            with_options = _option(one, lambda text: help_text(text, model))(with_options)
        return with_options

    return decorate


def option_for(name: str, field: FieldInfo) -> Callable[[_Command], _Command]:
    """The option of one field."""
    return _option(_Offered(name=name, field=field))


@dataclass(frozen=True, kw_only=True)
class _Offered:
    """A field that has a flag. Of an entry of a mapping, ``mapping`` is the request's field that has the mapping, and
    ``default`` what help says of the default.
    """

    name: str
    field: FieldInfo
    mapping: str | None = None
    default: str | None = None


def _offered(name: str, field: FieldInfo) -> list[_Offered]:
    """The field itself, or those of the model whose settings it holds."""
    said = option_of(field)
    if said.settings_of is None:
        return [_Offered(name=name, field=field)]
    entries = {key: entry for key, entry in said.settings_of.model_fields.items() if has_option(entry)}
    return [
        _Offered(name=key, field=entry, mapping=name, default=said.default or _default_text(entry))
        for key, entry in entries.items()
    ]


def _default_text(field: FieldInfo) -> str | None:
    """What help says of the default of a field; None where that is nothing."""
    value = option_of(field).default or field.get_default()
    return None if value is None else str(value)


def _asked(offered: Iterable[_Offered], values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that were given, by name, as the request takes them."""
    asked: dict[str, Any] = {}
    for one in offered:
        if _is_given(one.name):
            into = asked if one.mapping is None else asked.setdefault(one.mapping, {})
            into[one.name] = _value(one.field, one.name, values[one.name])
    return asked


def _own_defaults(model: type[Request], asked: Mapping[str, Any]) -> dict[str, str]:
    """The user's own defaults of settings that mean something beside others, or instead of them, alone."""
    found: dict[str, str] = {}
    for name in SETTINGS:
        said = option_of(model.model_fields[name]) if name in model.model_fields and name not in asked else Option()
        beside, instead_of = said.beside in asked, said.instead_of is not None and said.instead_of not in asked
        if (beside or instead_of) and (own := user_defaults().settings.get(name)) is not None:
            found[name] = own.value
    return found


def _is_given(name: str) -> bool:
    source = click.get_current_context().get_parameter_source(name)
    return source is not ParameterSource.DEFAULT


def _option(one: _Offered, in_help: Callable[[str], str] = str) -> Callable[[_Command], _Command]:
    field, flag, kind = one.field, flag_of(one.name, one.field), _without_none(one.field.annotation)
    said, whole = option_of(field), one.mapping is None
    default = field.get_default(call_default_factory=True) if whole else None
    shown = said.default if whole else one.default
    text = in_help(said.help if shown is None else f"{said.help}  [default: {shown}]".strip())
    if kind is bool:
        names = flag if default is False else f"{flag}/--no-{flag.removeprefix('--')}"
        return click.option(names, one.name, is_flag=True, default=default, help=text)
    settings: dict[str, Any] = {"help": text, "metavar": said.metavar, "required": whole and field.is_required()}
    if get_origin(kind) in {tuple, dict}:
        item, metadata = _item(get_args(kind)[0]) if get_origin(kind) is tuple else (str, [])
        return click.option(flag, one.name, type=_click_type(item, metadata), multiple=True, **settings)
    if default is not None and not field.is_required():
        settings |= {"default": default, "show_default": said.default is None}
    cls = ConditionalOption if said.beside or said.instead_of else click.Option
    return click.option(flag, one.name, type=_click_type(kind, field.metadata), cls=cls, **settings)


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
