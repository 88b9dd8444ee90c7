"""Groups of commands that import a command's module only when that command is used, so that ``--help`` stays quick."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click


class LazyGroup(click.Group):
    """Commands by name, in the order in which help lists them.

    Args:
        modules: name -> ``module:attribute`` of its command.
        settings: Click's.
    """

    def __init__(self, *, modules: Mapping[str, str], **settings: Any) -> None:
        super().__init__(**settings)
        self._modules = modules

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._modules)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = get_close_matches(args[0], self._modules, n=3)
            if near and "No such command" in error.message:
                told = f"{error.message} Did you mean {' or '.join(map(repr, near))}?"
                raise click.UsageError(told, ctx) from error
            raise

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._modules:
            return None
        module, attribute = self._modules[cmd_name].split(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command
