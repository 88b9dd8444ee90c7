"""``zipbatch store tag``."""

from __future__ import annotations

import click

from zipbatch.cli.options import JSON, emit_json
from zipbatch.cli.store.options import STORE
from zipbatch.storage import StoragePath


@click.command()
@click.argument("reference", metavar="NAME[@TAG-OR-VERSION]")
@click.argument("new", metavar="[NEWTAG]", required=False)
@STORE
@click.option("--delete", is_flag=True, help="Remove the tag NAME@TAG instead; its version stays.")
@JSON
def tag(reference: str, new: str | None, store: StoragePath, delete: bool, as_json: bool) -> None:
    """Make a tag, move one, or remove one.

    A tag keeps its version from 'gc'. 'latest' cannot be removed while there are versions.

    \b
    Examples:
      zipbatch store tag cifar10-badnets@nightly release-1 --store pur/
      zipbatch store tag cifar10-badnets@release-1 --delete --store pur/
    """
    from zipbatch.store import Store, parse_reference
    from zipbatch.store.tagging import delete_tag, point_tag

    if delete == (new is not None):
        raise click.UsageError("name NEWTAG to make or move a tag, or --delete to remove NAME@TAG")
    if delete and "@" not in reference:
        raise click.UsageError(f"--delete: say which tag, as in {reference}@TAG")
    dataset, old = parse_reference(reference)
    version = delete_tag(Store(store), dataset, old) if new is None else point_tag(Store(store), reference, new)
    if as_json:
        emit_json({"dataset": dataset, "tag": new or old, "version": version, "deleted": delete})
        return
    click.echo(f"{dataset}@{new or old}: {'removed, was' if delete else 'now'} version {version}")
