"""Pipelines: stages with names, references between them, and a matrix of cases that they are run for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from zipbatch.config.settings import Settings

_REFERENCE = re.compile(r"\$\{([A-Za-z][A-Za-z0-9_-]*(?:\.[A-Za-z][A-Za-z0-9_-]*)?)\}")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")
SEED = "seed"
"""The axis that ``seeds`` of a pipeline make."""
_MOST_SEEDS, _MOST_SEED = 1000, 2**32 - 1
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


def _seeds(value: Any) -> tuple[int, ...]:
    """``3`` and ``[0, 1, 2]`` -> (0, 1, 2); null and nothing -> ()."""
    if value is None:
        return ()
    if _is_whole(value):
        value = range(value) if value <= _MOST_SEEDS else [0] * (_MOST_SEEDS + 1)
    if not isinstance(value, list | tuple | range) or not all(map(_is_whole, value)):
        raise ValueError("seeds are a list of whole numbers, [0, 1, 2], or how many there are from 0 on, 3")
    if odd := [seed for seed in value if not 0 <= seed <= _MOST_SEED]:
        raise ValueError(f"a seed is 0 to {_MOST_SEED}, not {odd[0]}")
    if len(value) > _MOST_SEEDS:
        raise ValueError(f"at most {_MOST_SEEDS} seeds")
    if repeated := [seed for seed in value if list(value).count(seed) > 1]:
        raise ValueError(f"{repeated[0]} is there twice; each seed counts once")
    if len(value) < 2:
        raise ValueError("a spread takes 2 seeds or more; for another one, say 'seed' in the stages")
    return tuple(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


Name = Annotated[str, AfterValidator(_name)]
Axis = Annotated[Any, AfterValidator(_axis)]
Seeds = Annotated[tuple[int, ...], BeforeValidator(_seeds)]


class PipelineConfig(Settings):
    """A pipeline file.

    ``vars`` are defaults that the command line may override. ``matrix`` axes are lists of values, or mappings of names
    to fields. ``stages`` come in any order; each says what to ``run`` and refers to variables, axes (``${axis}``,
    ``${axis.field}``) and other stages, and is run for every choice of the axes that it refers to, itself or through
    other stages, or of those in its list ``per``, and is then given all that its inputs make along the others.
    ``seeds`` are one more axis, ``seed``, which every stage that takes a seed and says none of its own refers to, and
    which no ``per`` gathers.
    """

    about: str = ""
    vars: dict[Name, Any] = Field(default_factory=dict)
    matrix: dict[Name, Axis] = Field(default_factory=dict)
    seeds: Seeds = ()
    stages: dict[Name, dict[str, Any]] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_once(self) -> PipelineConfig:
        names = [*self.vars, *self.matrix, *self.stages]
        if self.seeds and SEED in names:
            raise ValueError(f"seeds are an axis named {SEED!r}, and so is a variable, axis or stage; keep one of them")
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{repeated[0]!r} names two things; variables, axes and stages share one space of names")
        return self

    @property
    def axes(self) -> dict[str, Any]:
        """The axes of the matrix, and last that of the seeds: value by its text."""
        return {**self.matrix, **({SEED: {str(seed): seed for seed in self.seeds}} if self.seeds else {})}


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
