"""``zipbatch store verify``."""

from __future__ import annotations

from dataclasses import asdict

import click

from zipbatch.cli.options import JSON, emit_json
from zipbatch.cli.render import screen
from zipbatch.cli.store.options import STORE
from zipbatch.errors import WorkFailed
from zipbatch.storage import StoragePath


@click.command()
@STORE
@click.option("--repair", is_flag=True, help="Remove what is damaged; the next purify of the data makes it anew.")
@JSON
def verify(store: StoragePath, repair: bool, as_json: bool) -> None:
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
