"""``zipbatch store``."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict
from pathlib import Path

import click

from zipbatch.cli.care import COMMANDS, STORE
from zipbatch.cli.options import JSON, LATEST, WIDE, emit_json, look
from zipbatch.cli.screen import screen
from zipbatch.errors import UsageError, WorkFailed
from zipbatch.places import Place

log = logging.getLogger(__name__)


@click.group()
def store() -> None:
    """Look into a store of purified shards, or add to it."""


@store.command()
@STORE
@WIDE
@JSON
def ls(store: Place, wide: bool, as_json: bool) -> None:
    """List datasets, their versions and tags, with settings, images, bytes and age."""
    from zipbatch.report import versions_table
    from zipbatch.stages.purifier_identity import describe_settings
    from zipbatch.store import Store, Versions
    from zipbatch.store.sizes import version_sizes

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
    sizes = version_sizes(opened, [header for headers, _ in found.values() for header in headers])
    table = versions_table(found, settings=describe_settings, sizes=sizes, now_s=time.time(), look=look(wide=wide))
    click.echo(table, nl=False)


@store.command()
@click.argument("reference", metavar="NAME[@TAG]")
@STORE
@WIDE
@JSON
def show(reference: str, store: Place, wide: bool, as_json: bool) -> None:
    """Show a version: purifier, images, bytes, what was computed and what reused, and its shards."""
    from zipbatch.report import version_text
    from zipbatch.stages.purifier_identity import describe
    from zipbatch.store import Store, Versions, reused
    from zipbatch.store.sizes import object_sizes

    opened = Store(store)
    versions = Versions(opened)
    version = versions.read(reference)
    header = version.header
    value = {**version.header.model_dump(mode="json", exclude={"origin"}), "reused": asdict(reused(opened, version))}
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
        tags=sorted(tag for tag, there in versions.tags(header.dataset).items() if there == header.version),
        purifier=describe(header.purifier),
        origin=f"{len(version.rows)}{': ' if known else ''}{', '.join(known)}",
        now_s=time.time(),
        look=look(wide=wide),
    )
    click.echo(text, nl=False)
    for row in version.rows:
        if row.quarantined:
            click.echo(f"  {row.shard}: {row.quarantined} quarantined  {opened.object_path(row.objects[1])}")


@store.command()
@click.argument("reference", metavar="NAME[@TAG]")
@STORE
@click.option("--split", "splits", multiple=True, metavar="NAME", help="Only this split; repeats.")
def urls(reference: str, store: Place, splits: tuple[str, ...]) -> None:
    """Print one path or URL a line, in order: ready for webdataset.

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
    outputs = [row.output for row in version.rows if not splits or row.split in splits]
    for output, is_there in zip(outputs, opened.has_objects(outputs), strict=True):
        if not is_there:
            raise WorkFailed(f"{opened.object_path(output)}: missing; run purify again")
    for output in outputs:
        click.echo(str(opened.object_path(output)))


@store.command()
@STORE
@click.option("--repair", is_flag=True, help="Remove what is damaged; the next purify of the data makes it anew.")
@JSON
def verify(store: Place, repair: bool, as_json: bool) -> None:
    """Check every byte against its digest and every reference. Exit 1 when something is wrong."""
    from zipbatch.store import Store
    from zipbatch.store import verify as run

    with screen() as shown:
        what = f"checking {store}"
        shown.begin(what)
        checked = run(Store(store), repair=repair, on_progress=shown.counter(what, "objects"))
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


@store.command(name="import")
@click.argument("folder", type=click.Path(path_type=Path))
@STORE
@click.option("--data", required=True, metavar="STAGED", help="The staged dataset (or shards) that was purified.")
@click.option("--name", metavar="NAME", help="Name of the dataset in the store.  [default: that of STAGED]")
@click.option("--tag", metavar="TAG", help="Tag of the version, beside 'latest'.")
@LATEST
@click.option(
    "--split", "splits", multiple=True, metavar="NAME", help="Only this split; repeats.  [default: all there]"
)
@click.option(
    "--map",
    "table",
    type=click.Path(path_type=Path),
    metavar="CSV",
    help="Which file is which sample: path,key or path,key,split, paths below FOLDER.",
)
@click.option(
    "--layout",
    type=click.Choice(["keys", "zip"]),
    default="keys",
    show_default=True,
    help="How files say which sample they are: by their names, or as the published ZIP code leaves them.",
)
@JSON
def import_(
    folder: Path,
    store: Place,
    data: str,
    name: str | None,
    tag: str | None,
    latest: bool | None,
    splits: tuple[str, ...],
    table: Path | None,
    layout: str,
    as_json: bool,
) -> None:
    """Take images in FOLDER that something else purified as a version, to be evaluated like any other.

    Files are FOLDER/<split>/<anything>/<key>.<extension>, one for each sample of STAGED. Where names do not say which
    sample an image is, --map must. The published ZIP code numbers its pictures in the order of shuffled batches, and
    leaves the original of each under the same number: --layout zip tells by its pixels which sample that is.

    \b
    Examples:
      zipbatch store import theirs/ --data shards/cifar10-badnets --store pur/ --tag theirs
      zipbatch store import pur/Mode3/Imagenette2/BadNet/sr_averagepooling/4.0/10 --layout zip \\
          --data shards/imagenette-badnets --store pur/ --tag published-code
    """
    from zipbatch.shards import open_dataset
    from zipbatch.stages.import_purified import ImportRequest, import_purified
    from zipbatch.stages.publish import check_tagged
    from zipbatch.store import Store

    dataset = open_dataset([data], name=name)
    request = ImportRequest(folder, dataset, Store(store), tag, table, splits, latest, layout == "zip")
    with screen() as shown:
        what = f"importing {dataset.name}"
        shown.begin(what)
        result = import_purified(request, on_progress=shown.counter(what, "images"))
    published = result.published
    if published.latest_left is not None:
        log.warning("%s", published.latest_left)
    if as_json:
        value = {"reference": result.reference, **asdict(published), "content_sha256": result.content_sha256}
        emit_json(value)
    else:
        click.echo(f"{result.reference}: version {published.version}{'' if published.new else ' (unchanged)'}")
        for split, counts in published.counts.items():
            click.echo(f"  {split:<14} {counts['samples']:>8} images in {counts['shards']} shards")
    check_tagged(published, dataset.name, tag)


for command in COMMANDS:
    store.add_command(command)
