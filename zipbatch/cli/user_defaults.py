"""A user's defaults as those of Click's options: a flag wins over the environment, that over ``zipbatch.toml``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from zipbatch.errors import UsageError
from zipbatch.user_config import COMMANDS, UserDefaults

_PYTHON = "python:"


class ConditionalOption(click.Option):
    """One whose default holds beside another option alone, or instead of it; Click does not fill it in."""


def default_map(defaults: UserDefaults, group: click.Group, context: click.Context, name: str) -> dict[str, Any]:
    """Click's ``default_map`` for a command and those below it.

    Args:
        defaults: the user's.
        group: the group that has the command.
        context: of the group.
        name: of the command that was typed.

    Raises:
        UsageError: the file names a command or a flag that there is not, or would run code; names the file and key.
    """
    if not (defaults.settings or defaults.commands):
        return {}
    _check_commands(defaults, group, context)
    command = group.get_command(context, name)
    return {} if command is None else {name: _of(defaults, command, context, name)}


def _of(defaults: UserDefaults, command: click.Command, context: click.Context, path: str) -> dict[str, Any]:
    if isinstance(command, click.Group):
        below = {name: command.get_command(context, name) for name in command.list_commands(context)}
        return {name: _of(defaults, one, context, f"{path} {name}") for name, one in below.items() if one is not None}
    options = {flag.lstrip("-"): one for one in command.params if isinstance(one, click.Option) for flag in one.opts}
    found: dict[str, Any] = {}
    for name, default in defaults.settings.items():
        if name in options and not isinstance(options[name], ConditionalOption):
            found[str(options[name].name)] = default.value
    for flag, value in defaults.commands.get(path, {}).items():
        where = f"{defaults.file}: [{COMMANDS}.{_quoted(path)}] {flag}"
        option = options.get(flag.replace("_", "-"))
        if option is None:
            raise UsageError(f"{where}: no such option of 'zipbatch {path}'; see 'zipbatch {path} --help'")
        _check_no_code(value, where)
        found[str(option.name)] = value
    return found


def _check_commands(defaults: UserDefaults, group: click.Group, context: click.Context) -> None:
    for path in defaults.commands:
        at: click.Command | None = group
        for name in path.split():
            at = at.get_command(context, name) if isinstance(at, click.Group) else None
        if at is None or isinstance(at, click.Group):
            raise UsageError(f"{defaults.file}: [{COMMANDS}.{_quoted(path)}]: no such command; see 'zipbatch --help'")


def _check_no_code(value: object, where: str) -> None:
    """A file that lies about is data: a function is run only where a command line names it."""
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, str) and one.startswith(_PYTHON):
            raise UsageError(f"{where} = {one!r}: functions of yours are named on the command line alone")


def _quoted(path: str) -> str:
    return f'"{path}"' if " " in path else path


def source_of(defaults: UserDefaults) -> list[Mapping[str, Any]]:
    """Each default with its value and where it comes from: rows for ``zipbatch config``."""
    rows: list[Mapping[str, Any]] = [
        {"setting": name, "value": default.value, "source": default.source}
        for name, default in defaults.settings.items()
    ]
    return rows + [
        {"setting": f"{path} --{flag.replace('_', '-')}", "value": value, "source": str(defaults.file)}
        for path, table in defaults.commands.items()
        for flag, value in table.items()
    ]
