"""``zipbatch store show``."""

from __future__ import annotations

import time
from dataclasses import asdict

import click

from zipbatch.cli.options import JSON, WIDE, emit_json, look
from zipbatch.cli.store.options import STORE
from zipbatch.storage import StoragePath


@click.command()
@click.argument("reference", metavar="NAME[@TAG]")
@STORE
@WIDE
@JSON
def show(reference: str, store: StoragePath, wide: bool, as_json: bool) -> None:
    """Show a version: purifier, images, bytes, what was computed and what reused, and its shards."""
    from zipbatch.report.versions import version_text
    from zipbatch.stages.purify.identity import describe
    from zipbatch.store import Store, reused
    from zipbatch.store.signatures import signed_by
    from zipbatch.store.sizes import object_sizes

    opened = Store(store)
    versions = opened.versions
    version = versions.read(reference)
    header = version.header
    value = {**version.header.model_dump(mode="json", exclude={"origin"}), "reused": asdict(reused(opened, version))}
    if signed := signed_by(opened, header.dataset, header.version):
        value["signed_by"] = signed
    value["shards"] = [row.value() for row in version.rows]
    if as_json:
        emit_json(value)
        return
    where = {"computed": "computed", "found": "found in the store", "parent": f"as in parent {header.parent}"}
    known = [f"{count} {where[name]}" for name, count in value["reused"].items() if count is not None]
    sizes = object_sizes(opened, version.rows)
    text = version_text(
        header,
        [(row, sizes.get(row.output)) for row in version.rows],
        tags=sorted(tag for tag, there in versions.tags.of(header.dataset).items() if there == header.version),
        purifier=describe(header.purifier),
        origin=f"{len(version.rows)}{': ' if known else ''}{', '.join(known)}",
        signed=signed,
        now_s=time.time(),
        look=look(wide=wide),
    )
    click.echo(text, nl=False)
    for row in version.rows:
        if row.quarantined:
            click.echo(f"  {row.shard}: {row.quarantined} quarantined  {opened.objects.path(row.objects[1])}")
