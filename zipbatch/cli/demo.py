"""``zipbatch demo``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zipbatch.cli.options import JSON, emit_json, progress_bar, worker_options

if TYPE_CHECKING:
    from zipbatch.stages.purify import PurifyProgress


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("demo-out"),
    show_default=True,
    metavar="DIR",
    help="Results.",
)
@click.option("--limit", type=click.IntRange(8), metavar="N", help="Only the first N images of the sample.")
@worker_options
@JSON
def demo(
    out: Path,
    limit: int | None,
    gpus: int | None,
    workers: int | None,
    address: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Poison, purify and evaluate the embedded CIFAR-10 sample, with the embedded prior and victims.

    No training, no download; a few minutes on two CPU cores.
    """
    from zipbatch.cluster import resolve_workers
    from zipbatch.config import DemoConfig, find_config, load_config
    from zipbatch.report import evaluation_table
    from zipbatch.stages.demo import demo as run

    config = load_config(find_config("pipelines", "demo"), DemoConfig)
    who = resolve_workers(gpus, workers, address, device)
    started = time.monotonic()
    with progress_bar("shards") as bar:
        task = bar.add_task("starting", total=None, note="")

        def report(what: str, progress: PurifyProgress | None) -> None:
            if progress is None:
                bar.console.print(f"{what} …", highlight=False)
                bar.update(task, description=what, total=None, completed=0, note="")
            else:
                rate = f"{progress.samples_per_s:.1f} images/s"
                bar.update(task, total=progress.shards, completed=progress.shards_done, note=rate)

        result = run(out, config, workers=who, limit=limit, report=report)
    if as_json:
        emit_json({"rows": result.rows, "store": str(result.store), "sheets": [str(s) for s in result.sheets]})
        return
    click.echo(evaluation_table(result.rows), nl=False)
    click.echo(f"\ndone in {time.monotonic() - started:.0f} s; look at:")
    for sheet in result.sheets:
        click.echo(f"  {sheet}   clean, poisoned, blurred, purified, with the victim's answers")
    click.echo(f"  {result.results}   the table with intervals and counts")
    click.echo(f"  zipbatch store ls --store {result.store}   the versioned store")
