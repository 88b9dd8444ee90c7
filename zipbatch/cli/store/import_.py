"""``zipbatch store import``."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

import click

from zipbatch.cli.options import JSON, LATEST, emit_json
from zipbatch.cli.render import screen
from zipbatch.cli.store.options import STORE
from zipbatch.storage import StoragePath

log = logging.getLogger(__name__)


@click.command(name="import")
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
    store: StoragePath,
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
    from zipbatch.datasets import open_dataset
    from zipbatch.stages.convert.import_purified import ImportRequest, import_purified
    from zipbatch.stages.purify.publish import check_tagged
    from zipbatch.store import Store

    dataset = open_dataset([data], name=name)
    request = ImportRequest(
        folder=folder,
        dataset=dataset,
        store=Store(store),
        tag=tag,
        table=table,
        splits=splits,
        latest=latest,
        zip_layout=layout == "zip",
    )
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
