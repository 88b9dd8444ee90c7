"""``zipbatch store``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from zipbatch.cli.options import JSON, emit_json
from zipbatch.errors import UsageError, WorkFailed

STORE = click.option("--store", required=True, type=click.Path(path_type=Path), metavar="DIR", help="The store.")


@click.group()
def store() -> None:
    """Look into a store of purified shards."""


@store.command()
@STORE
@JSON
def ls(store: Path, as_json: bool) -> None:
    """List datasets, their versions and tags."""
    from zipbatch.report import versions_table
    from zipbatch.store import Store, Versions

    opened = Store(store)
    opened.require()
    versions = Versions(opened)
    found = {name: (versions.versions(name), versions.tags(name)) for name in versions.datasets()}
    if as_json:
        listing = [
            {**header.model_dump(mode="json"), "tags": sorted(t for t, v in tags.items() if v == header.version)}
            for headers, tags in found.values()
            for header in headers
        ]
        emit_json({"versions": listing})
        return
    click.echo(versions_table(found), nl=False)


@store.command()
@click.argument("reference", metavar="NAME[@TAG]")
@STORE
@JSON
def show(reference: str, store: Path, as_json: bool) -> None:
    """Show a version: purifier, counts, where it came from, and its shards."""
    from zipbatch.store import Store, Versions

    version = Versions(Store(store)).read(reference)
    value = {**version.header.model_dump(mode="json"), "shards": [row.model_dump(mode="json") for row in version.rows]}
    if as_json:
        emit_json(value)
        return
    shards = value.pop("shards")
    for key, entry in value.items():
        click.echo(f"{key}: {entry}")
    for row in shards:
        click.echo(f"  {row['split']:<14} {row['shard']:<28} {row['samples']:>7} images  {row['output']}")


@store.command()
@click.argument("reference", metavar="NAME[@TAG]")
@STORE
@click.option("--split", "splits", multiple=True, metavar="NAME", help="Only this split; repeats.")
def urls(reference: str, store: Path, splits: tuple[str, ...]) -> None:
    """Print one path a line, in order: ready for webdataset.

    \b
    Example:
      zipbatch store urls cifar10-badnets@latest --store pur/ --split test
    """
    from zipbatch.store import Store, Versions

    opened = Store(store)
    version = Versions(opened).read(reference)
    there = dict.fromkeys(row.split for row in version.rows)
    for split in splits:
        if split not in there:
            raise UsageError(f"{reference}: no split {split!r}; it has {', '.join(there)}")
    paths = [opened.object_path(row.output) for row in version.rows if not splits or row.split in splits]
    for path in paths:
        if not path.is_file():
            raise WorkFailed(f"{path}: missing; run purify again")
    for path in paths:
        click.echo(str(path))


@store.command()
@STORE
@click.option("--repair", is_flag=True, help="Remove damaged objects and records; the next purify computes them anew.")
@JSON
def verify(store: Path, repair: bool, as_json: bool) -> None:
    """Check every byte against its digest and every reference. Exit 1 when something is wrong."""
    from zipbatch.store import Store
    from zipbatch.store import verify as run

    checked = run(Store(store), repair=repair)
    if as_json:
        emit_json(asdict(checked))
    else:
        for fault in checked.faults:
            click.echo(f"FAULT {fault.where}: {fault.reason}")
        click.echo(
            f"{store}: {checked.objects} objects, {checked.tasks} tasks, {checked.versions} versions, "
            f"{checked.tags} tags: {'all good' if not checked.faults else f'{len(checked.faults)} faults'}"
        )
    if checked.faults:
        first = "" if repair else "run verify --repair, then "
        raise WorkFailed(f"{len(checked.faults)} faults; {first}run purify again to compute damaged shards anew")
