"""``zipbatch store ls``."""

from __future__ import annotations

import time

import click

from zipbatch.cli.options import JSON, WIDE, emit_json, look
from zipbatch.cli.store.options import STORE
from zipbatch.storage import StoragePath


@click.command()
@STORE
@WIDE
@JSON
def ls(store: StoragePath, wide: bool, as_json: bool) -> None:
    """List datasets, their versions and tags, with settings, images, bytes and age."""
    from zipbatch.report.versions import versions_table
    from zipbatch.stages.purify.identity import describe_settings
    from zipbatch.store import Store
    from zipbatch.store.sizes import version_sizes

    opened = Store(store)
    opened.require()
    versions = opened.versions
    found = {name: (versions.versions(name), versions.tags.of(name)) for name in versions.datasets()}
    if as_json:
        listing = [
            {**header.model_dump(mode="json"), "tags": sorted(t for t, v in tags.items() if v == header.version)}
            for headers, tags in found.values()
            for header in headers
        ]
        emit_json({"versions": listing})
        return
    sizes = version_sizes(opened, [header for headers, _ in found.values() for header in headers])
    table = versions_table(found, settings=describe_settings, sizes=sizes, now_s=time.time(), look=look(wide=wide))
    click.echo(table, nl=False)
