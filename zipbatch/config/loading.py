"""Find and read YAML settings; every mistake of a file is reported at once."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from zipbatch.errors import UsageError

Model = TypeVar("Model", bound=BaseModel)
DESCRIPTION = "description"
DEFAULTS = {"purifiers": "balanced", "victims": "resnet18", "priors": "small32"}
"""The preset of each group that is taken where none is named."""
MAX_CONFIG_BYTES = 256_000
MAX_CONFIG_DEPTH = 20
MAX_CONFIG_VALUES = 10_000
MAX_NUMBER_DIGITS = 100
MAX_OPEN_BRACKETS = 200  # some may stand in text
_BRACKET = re.compile(r"[\[\]{}]")
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_NOT_YAML = (yaml.YAMLError, RecursionError, ValueError, AttributeError, LookupError, TypeError, ArithmeticError)
"""What PyYAML makes of text that is none, and of tags whose values are not of their kind."""
_LISTED = 50
"""Mistakes that are told one by one."""
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 2, 120, 120


def _folder(kind: str) -> Path:
    """``configs`` or ``pipelines``: inside the installed package, or beside it in a source checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / kind
    return installed if installed.is_dir() else package.parent / kind


def list_configs(group: str) -> list[str]:
    """Names of the presets in ``configs/<group>`` (or ``pipelines``)."""
    folder = _folder("pipelines") if group == "pipelines" else _folder("configs") / group
    return sorted(file.stem for file in folder.glob("*.yaml"))


def list_schedules() -> list[Path]:
    """The files of ``pipelines/schedule``: what starts zipbatch from cron, systemd, Slurm or Kubernetes."""
    return sorted(file for file in (_folder("pipelines") / "schedule").iterdir() if file.is_file())


def find_config(group: str, name: str) -> Path:
    """The file of a preset by name, or ``name`` itself when it is a path to a YAML file.

    Raises:
        UsageError: neither.
    """
    if name.endswith((".yaml", ".yml")):
        if Path(name).is_file():
            return Path(name)
        raise UsageError(f"{name}: no such file")
    if name in list_configs(group):
        folder = _folder("pipelines") if group == "pipelines" else _folder("configs") / group
        return folder / f"{name}.yaml"
    raise UsageError(f"no preset {name!r} in {group}; there are: {', '.join(list_configs(group)) or 'none'}")


def read_config(path: Path) -> dict[str, object]:
    """The mapping in a YAML file, without its description; plain data only, no tags that run code.

    Raises:
        UsageError: not readable, not YAML, not a mapping.
    """
    values = _read(path)
    values.pop(DESCRIPTION, None)
    return values


def read_description(path: Path) -> str:
    """What a preset says of itself, "" where it says nothing. It decides nothing: ``read_config`` leaves it out.

    Raises:
        UsageError: as ``read_config``.
    """
    return " ".join(str(_read(path).get(DESCRIPTION, "")).split())


def _read(path: Path) -> dict[str, object]:
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise UsageError(f"{path}: over {MAX_CONFIG_BYTES} bytes; that is no config")
        values = _loaded(path.read_text(encoding="utf-8"))
    except _VastError as error:
        raise UsageError(f"{path}: {error}; that is no config") from error
    except (OSError, *_NOT_YAML) as error:
        raise UsageError(f"{path}: not readable as YAML: {error}") from error
    if not isinstance(values, dict):
        raise UsageError(f"{path}: must be a mapping of fields, is {type(values).__name__}")
    _check_plain(values, path, name="")
    return values


class _VastError(ValueError):
    """More than any config holds."""


def _loaded(text: str) -> object:
    """The value of a YAML document, once its nodes are known to be few, with every alias and merge counted in full."""
    open_brackets = 0
    for bracket in _BRACKET.findall(text):
        open_brackets += 1 if bracket in "[{" else -1
        if open_brackets > MAX_OPEN_BRACKETS:  # PyYAML's scanner takes their number squared, before it says a word
            raise _VastError(f"over {MAX_CONFIG_DEPTH} levels")
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check_nodes(node, depth=0, left=[MAX_CONFIG_VALUES])
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _check_nodes(node: yaml.Node, *, depth: int, left: list[int]) -> None:
    """Aliases and merges can make a small file endless or vast, and numbers of many digits take ages to work out."""
    left[0] -= 1
    if depth > MAX_CONFIG_DEPTH or left[0] < 0:
        raise _VastError(f"over {MAX_CONFIG_DEPTH} levels or {MAX_CONFIG_VALUES} values")
    if isinstance(node, yaml.ScalarNode):
        if node.tag in _NUMBERS and len(node.value) > MAX_NUMBER_DIGITS:
            raise _VastError(f"line {node.start_mark.line + 1}: a number of {len(node.value)} characters")
    elif isinstance(node, yaml.MappingNode):
        for pair in node.value:
            for child in pair:
                _check_nodes(child, depth=depth + 1, left=left)
    else:
        for child in node.value:
            _check_nodes(child, depth=depth + 1, left=left)


def _check_plain(value: object, path: Path, *, name: str) -> None:
    """YAML knows dates, bytes and sets: text, numbers and null will do."""
    if isinstance(value, dict):
        if odd := [key for key in value if not isinstance(key, str | int | float | bool)]:
            raise UsageError(f"{path}: {name or 'settings'} has a key that is no text: {_SHORT.repr(odd[0])}")
        for key, item in value.items():
            _check_plain(item, path, name=f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for item in value:
            _check_plain(item, path, name=name)
    elif not (value is None or isinstance(value, str | int | float | bool)):
        raise UsageError(f"{path}: {name} = {_SHORT.repr(value)}: must be text, a number or null; put it in quotes")


def parse_scalar(text: str) -> object:
    """A value from the command line, as a YAML file would have it: ``24`` a number, ``null`` None, other text itself.

    Raises:
        UsageError: not YAML, or no single value.
    """
    try:
        value = _loaded(text)
    except _NOT_YAML as error:
        raise UsageError(f"{text!r}: not a value that YAML can hold: {error}") from error
    if isinstance(value, dict | list):
        raise UsageError(f"{text!r}: must be a single value")
    return value if isinstance(value, str | int | float | bool) or value is None else text


def pairs(values: Iterable[str], flag: str) -> dict[str, str]:
    """``("a=1", "b=2")`` -> ``{"a": "1", "b": "2"}``.

    Raises:
        UsageError: a text without ``=``, or a name that is given twice.
    """
    found: dict[str, str] = {}
    for value in values:
        name, equals, text = (part.strip() for part in value.partition("="))
        if not equals:
            raise UsageError(f"{flag} takes NAME=VALUE, got {value!r}")
        if name in found:
            raise UsageError(f"{flag} {name} is given twice: {found[name]!r} and {text!r}")
        found[name] = text
    return found


def load_config(path: Path, model: type[Model], overrides: Mapping[str, object] | None = None) -> Model:
    """Read ``path`` into ``model``; entries of ``overrides`` that are not None win over the file's.

    Raises:
        UsageError: unreadable, or with wrong fields; each is named with its value and what is allowed.
    """
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    return validate(model, {**read_config(path), **given}, where=str(path))


def validate(model: type[Model], values: Mapping[str, object], *, where: str) -> Model:
    """``values`` as a ``model``.

    Raises:
        UsageError: all wrong fields, a line each: field, value, what is allowed.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        allowed = ", ".join(model.model_fields)
        raise UsageError(f"{where}: unfit settings (fields: {allowed})\n{problems(error)}") from error


def problems(error: ValidationError) -> str:
    """What is wrong with each field, a line each. A list that lost its unfit items is not called too short as well."""
    found = error.errors(include_url=False)
    deeper = {e["loc"][:1] for e in found if len(e["loc"]) > 1}
    lines = [
        f"  {'.'.join(map(str, e['loc'])) or 'settings'} = {_SHORT.repr(e['input'])}: {e['msg']}"
        for e in found
        if not (e["type"] == "too_short" and e["loc"][:1] in deeper)
    ]
    more = [f"  and {len(lines) - _LISTED} more"] if len(lines) > _LISTED else []
    return "\n".join(lines[:_LISTED] + more)
