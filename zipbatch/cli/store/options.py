"""What the store's subcommands share."""

from __future__ import annotations

import click

from zipbatch.storage import storage_path

STORE = click.option("--store", required=True, type=storage_path, metavar="DIR|URL", help="The store.")
_LISTED = 20


def list_names(what: str, names: tuple[str, ...]) -> None:
    """Print the first of many names, and how many more there are."""
    for name in names[:_LISTED]:
        click.echo(f"  {what} {name}")
    if len(names) > _LISTED:
        click.echo(f"  … and {len(names) - _LISTED} more")
