"""Options that several commands share, and how results are shown."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from zipbatch import atomic
from zipbatch.cli.number import Number
from zipbatch.cli.request_options import option_for, options_of
from zipbatch.cluster import WorkerRequest
from zipbatch.stages.purify.request import PurifyRequest
from zipbatch.storage import cache

if TYPE_CHECKING:
    from zipbatch.report.columns import Look

_Decorator = Callable[[Callable[..., None]], Callable[..., None]]
LATEST = option_for("latest", PurifyRequest.model_fields["latest"])
TRUST_MTIME = option_for("trust_mtime", PurifyRequest.model_fields["trust_mtime"])
JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
WIDE = click.option("--wide", is_flag=True, help="Show every column, however long.  [default: what fits 80]")
worker_options = options_of(WorkerRequest, name="who")
"""Who does the work; the command gets it as ``who``, a ``WorkerRequest``."""


def _with_options(command: Callable[..., None], options: Sequence[_Decorator]) -> Callable[..., None]:
    """A command with options, in the order in which help lists them."""
    for option in reversed(options):
        command = option(command)
    return command


def _into_environment(variable: str) -> Callable[[click.Context, click.Parameter, object], None]:
    """A flag that stands for an environment variable, so that workers on this machine find it too."""

    def note(_ctx: click.Context, _param: click.Parameter, value: object) -> None:
        if value is not None:
            os.environ[variable] = str(value)

    return note


def cache_options(command: Callable[..., None]) -> Callable[..., None]:
    """``--cache --cache-gb``: where copies of what lies in object stores are kept, and how much of it."""
    return _with_options(
        command,
        [
            click.option(
                "--cache",
                metavar="DIR",
                expose_value=False,
                callback=_into_environment(cache.FOLDER),
                help=f"Where copies of remote inputs are kept.  [default: ${cache.FOLDER}, else ~/.cache/zipbatch]",
            ),
            click.option(
                "--cache-gb",
                type=Number(0, min_open=True),
                metavar="GB",
                expose_value=False,
                callback=_into_environment(cache.SIZE_GB),
                help=f"Its size; what was not used for longest goes first.  [default: {cache.DEFAULT_GB:g}]",
            ),
        ],
    )


def look(*, wide: bool) -> Look:
    """How tables are shown: in colour on a terminal, unless NO_COLOR is set."""
    from zipbatch.report.columns import Look

    return Look(wide=wide, colour=sys.stdout.isatty() and not os.environ.get("NO_COLOR"))


def emit_json(value: Mapping[str, Any]) -> None:
    """One JSON document on stdout. Its texts stay as they are, also where one looks like a reference to a setting."""
    click.echo(atomic.readable_json(value, encoding=sys.stdout.encoding or "utf-8").replace("‹", "\\u2039"))
