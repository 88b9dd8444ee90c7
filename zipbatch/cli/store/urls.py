"""``zipbatch store urls``."""

from __future__ import annotations

import click

from zipbatch.cli.store.options import STORE
from zipbatch.errors import WorkFailed
from zipbatch.storage import StoragePath


@click.command()
@click.argument("reference", metavar="NAME[@TAG]")
@STORE
@click.option("--split", "splits", multiple=True, metavar="NAME", help="Only this split; repeats.")
def urls(reference: str, store: StoragePath, splits: tuple[str, ...]) -> None:
    """Print one path or URL a line, in order: ready for webdataset.

    \b
    Example:
      zipbatch store urls cifar10-badnets@latest --store pur/ --split test
    """
    from zipbatch.datasets.splits import check_splits
    from zipbatch.store import Store

    opened = Store(store)
    version = opened.versions.read(reference)
    there = dict.fromkeys(row.split for row in version.rows)
    check_splits(reference, there, splits)
    outputs = [row.output for row in version.rows if not splits or row.split in splits]
    for output, is_there in zip(outputs, opened.objects.have(outputs), strict=True):
        if not is_there:
            raise WorkFailed(f"{opened.objects.path(output)}: missing; run purify again")
    for output in outputs:
        click.echo(str(opened.objects.path(output)))
