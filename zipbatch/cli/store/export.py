"""``zipbatch store export``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from zipbatch.cli.options import JSON, emit_json
from zipbatch.cli.render import screen
from zipbatch.cli.store.options import STORE
from zipbatch.storage import StoragePath


@click.command()
@click.argument("reference", metavar="NAME[@TAG]")
@click.argument("out", metavar="DIR", type=click.Path(path_type=Path))
@STORE
@click.option(
    "--as",
    "form",
    type=click.Choice(["shards", "images"]),
    default="shards",
    show_default=True,
    help="Shards under the names of their inputs, or a tree <split>/<class>/<key>.png.",
)
@click.option("--data", metavar="STAGED", help="What it was made from: its classes, and its manifest if it is staged.")
@click.option("--split", "splits", multiple=True, metavar="NAME", help="Only this split; repeats.")
@click.option("--copy", is_flag=True, help="Copy shards even where hard links would do.")
@click.option("--true-labels", is_flag=True, help="Sort images by what they show, not by the label of poisoned ones.")
@JSON
def export(
    reference: str,
    out: Path,
    store: StoragePath,
    form: str,
    data: str | None,
    splits: tuple[str, ...],
    copy: bool,
    true_labels: bool,
    as_json: bool,
) -> None:
    """Put a version into a plain folder DIR, which must be new, or have all of it already.

    Hard links share their bytes with the store: do not write into them, or say --copy. What is in quarantine stays in
    the store.

    \b
    Examples:
      zipbatch store export cifar10-badnets@nightly purified/ --data shards/cifar10-badnets --store pur/
      zipbatch store export incoming images/ --as images --store pur/
    """
    from zipbatch.datasets import open_dataset
    from zipbatch.stages.convert.export import export_images, export_shards
    from zipbatch.stages.convert.exported_files import ExportRequest
    from zipbatch.store import Store

    if form == "shards" and true_labels:
        raise click.UsageError("--true-labels goes with --as images; shards keep all their labels")
    if form == "images" and copy:
        raise click.UsageError("--copy goes with --as shards; images are files of their own in any case")
    opened = Store(store)
    version = opened.versions.read(reference)
    dataset = None if data is None else open_dataset([data])
    request = ExportRequest(
        store=opened, version=version, out=out, dataset=dataset, splits=splits, copy=copy, true_labels=true_labels
    )
    run = export_shards if form == "shards" else export_images
    with screen() as shown:
        what = f"exporting {version.reference}"
        shown.begin(what)
        done = run(request, on_progress=shown.counter(what, "images"))
    if as_json:
        emit_json({**asdict(done), "out": str(out)})
        return
    there = ", there already" if done.reused else ""
    click.echo(f"{out}: {done.samples} images of {done.shards} shards of {done.reference}{there}")
    if done.quarantined:
        click.echo(f"  {done.quarantined} more are in quarantine and stay there: see 'zipbatch store show {reference}'")
