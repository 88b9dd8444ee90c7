"""Pipelines: stages with names, references between them, and a matrix of cases that they are run for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from zipbatch.config.models import Settings

_REFERENCE = re.compile(r"\$\{([A-Za-z][A-Za-z0-9_-]*(?:\.[A-Za-z][A-Za-z0-9_-]*)?)\}")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")
_VALUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:+-]{0,39}")


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError("a name has letters, digits, _ and -, begins with a letter, 40 in all")
    return text


def _axis(value: Any) -> dict[str, Any]:
    """``[a, b]`` and ``{a: {field: 1}, b: {field: 2}}`` -> value by its text."""
    cases = {str(item): item for item in value} if isinstance(value, list) else value
    if not isinstance(cases, dict) or not cases:
        raise ValueError("an axis is a list of values, or a mapping of names to fields; not empty")
    if len({str(case) for case in cases}) < len(value):
        raise ValueError("an axis holds each value once")
    for text, case in cases.items():
        if not _VALUE.fullmatch(str(text)):
            raise ValueError(
                f"{text!r}: values name files: letters, digits and _ . : + -, a letter or digit first, 40 in all"
            )
        if isinstance(value, dict) and not isinstance(case, dict):
            raise ValueError(f"{text}: must be a mapping of fields")  # noqa: TRY004 (pydantic takes no TypeError)
    return {str(text): case for text, case in cases.items()}


Name = Annotated[str, AfterValidator(_name)]
Axis = Annotated[Any, AfterValidator(_axis)]


class PipelineConfig(Settings):
    """A pipeline file.

    ``vars`` are defaults that the command line may override. ``matrix`` axes are lists of values, or mappings of names
    to fields. ``stages`` come in any order; each says what to ``run`` and refers to variables, axes (``${axis}``,
    ``${axis.field}``) and other stages, and is run for every choice of the axes that it refers to, itself or through
    other stages, or of those in its list ``per``, and is then given all that its inputs make along the others.
    """

    about: str = ""
    vars: dict[Name, Any] = Field(default_factory=dict)
    matrix: dict[Name, Axis] = Field(default_factory=dict)
    stages: dict[Name, dict[str, Any]] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_once(self) -> PipelineConfig:
        names = [*self.vars, *self.matrix, *self.stages]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{repeated[0]!r} names two things; variables, axes and stages share one space of names")
        return self


def references(value: object) -> set[str]:
    """The names that a value of a stage refers to, without their fields."""
    if isinstance(value, str):
        return {name.split(".")[0] for name in _REFERENCE.findall(value)}
    if isinstance(value, Mapping):
        return set().union(*map(references, value.values()))
    if isinstance(value, list):
        return set().union(*map(references, value))
    return set()


def resolved(value: object, lookup: Callable[[str], object]) -> object:
    """``value`` with its references replaced.

    Args:
        value: of a stage, as read.
        lookup: reference (``name`` or ``name.field``) -> what it stands for. A text that is nothing but a reference
            becomes that, of whatever type; within longer text it is put in as text.

    Raises:
        ValueError: something that is no text within longer text.
    """
    if isinstance(value, Mapping):
        return {key: resolved(item, lookup) for key, item in value.items()}
    if isinstance(value, list):
        return [resolved(item, lookup) for item in value]
    if not isinstance(value, str):
        return value
    if whole := _REFERENCE.fullmatch(value):
        return lookup(whole[1])

    def as_text(match: re.Match[str]) -> str:
        found = lookup(match[1])
        if not isinstance(found, str | int | float):
            raise ValueError(f"{match[0]} is no text, so it cannot stand within {value!r}")  # noqa: TRY004
        return str(found)

    replaced = _REFERENCE.sub(as_text, value)
    if "${" in _REFERENCE.sub("", value):
        raise ValueError(f"{value!r}: a reference is ${{name}} or ${{axis.field}}")
    return replaced
