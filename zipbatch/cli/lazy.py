"""Groups of commands that import a command's module only when that command is used, so that ``--help`` stays quick."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click


@dataclass(frozen=True)
class Listed:
    """A command that is not imported yet: ``module:attribute``, and what it is for in one line of help.

    The line is said here, so that a list of commands imports none of them; it has room on a screen of 80 columns.
    """

    target: str
    about: str


class LazyGroup(click.Group):
    """Commands by name, in the order in which help lists them.

    Args:
        listed: the commands by name.
        settings: Click's.
    """

    def __init__(self, *, listed: Mapping[str, Listed], **settings: Any) -> None:
        super().__init__(**settings)
        self._listed = listed

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._listed)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As Click's, from the lines that are listed."""
        room = formatter.width - 6 - max(map(len, self._listed))
        about = {name: click.Command(name, help=one.about) for name, one in self._listed.items()}
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(room)) for name, command in about.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = get_close_matches(args[0], self._listed, n=3)
            if near and "No such command" in error.message:
                told = f"{error.message} Did you mean {' or '.join(map(repr, near))}?"
                raise click.UsageError(told, ctx) from error
            raise

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._listed:
            return None
        module, attribute = self._listed[cmd_name].target.split(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command
