"""``zipbatch tune``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from zipbatch.cli.options import (
    BATCH_SIZE,
    JSON,
    PRECISION,
    SEED,
    STORE,
    WIDE,
    Number,
    WorkerFlags,
    cache_options,
    emit_json,
    look,
    worker_options,
)
from zipbatch.cli.screen import screen
from zipbatch.errors import UsageError

if TYPE_CHECKING:
    from zipbatch.places import Place


@click.command()
@click.argument("victim")
@click.option("--data", "data", required=True, multiple=True, metavar="STAGED|SHARDS", help="Suspect images; repeats.")
@click.option(
    "--prior",
    required=True,
    metavar="DIR|FILE.pt|URL|hub:NAME[@REV]",
    help="Diffusion model, as for 'zipbatch purify'; 'embedded' is the shipped one.",
)
@STORE
@click.option("--preset", metavar="NAME|FILE", help="Settings whose strength is tuned.  [default: balanced]")
@click.option(
    "--guidance-exponent",
    "exponents",
    multiple=True,
    type=Number(0, min_open=True),
    metavar="K",
    help="A strength to try beside the preset's; repeats.  [default: 8, 4, 2, 1/2, 1/4 times the preset's]",
)
@click.option("--split", "splits", multiple=True, metavar="NAME", help="Split; repeats.  [default: as in purify]")
@click.option("--shards", type=click.IntRange(1), metavar="N", help="Shards of each split to look at.  [default: all]")
@click.option(
    "--limit",
    type=Number(0, 1),
    default=0.02,
    show_default=True,
    metavar="SHARE",
    help="Attack success rate that may be left, as the answers let it be estimated.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE.yaml", help="Write the choice, for 'purify --preset'."
)
@SEED
@PRECISION
@BATCH_SIZE
@worker_options
@cache_options
@WIDE
@JSON
def tune(
    victim: str,
    data: tuple[str, ...],
    prior: str,
    store: Place,
    preset: str | None,
    exponents: tuple[float, ...],
    splits: tuple[str, ...],
    shards: int | None,
    limit: float,
    out: Path | None,
    seed: int,
    precision: str,
    batch_size: int,
    who: WorkerFlags,
    wide: bool,
    as_json: bool,
) -> None:
    """Choose how strongly to purify, from what VICTIM answers: no labels, no trigger, no look inside.

    VICTIM is a folder, an HTTP endpoint or a function of yours, as for 'zipbatch evaluate'.

    The data is purified at several strengths. When one class loses far more images than the others, it is taken for
    an attacker's target. A stronger setting than the preset's is chosen when that leaves more of those images in the
    class than the limit, a weaker one when there is good evidence (95 %) that it leaves no more. When no class stands
    out, the preset's own strength is kept.

    \b
    Example:
      zipbatch tune victims/theirs --data 'incoming/day-{000..009}.tar' --prior embedded --store pur/ --out ours.yaml
      zipbatch purify 'incoming/day-{000..099}.tar' --prior embedded --preset ours.yaml --store pur/
    """
    from zipbatch.report import tune_table
    from zipbatch.shards import open_dataset
    from zipbatch.stages.assets import prior_path
    from zipbatch.stages.tune import TuneRequest, ladder, some_shards, tune_report, write_preset
    from zipbatch.stages.tune import tune as run
    from zipbatch.stages.victim import find_victim
    from zipbatch.store import Store

    if out is not None and (out.suffix not in {".yaml", ".yml"} or not out.absolute().parent.is_dir()):
        raise UsageError(f"--out {out}: must be a .yaml file in a folder that is there")
    folder = prior_path(prior)
    rungs, own = ladder(preset=preset, exponents=exponents, prior=folder, seed=seed, bfloat16=precision == "bfloat16")
    request = TuneRequest(
        victim=find_victim(victim),
        dataset=some_shards(open_dataset(data), splits, shards),
        data_label=" ".join(data),
        rungs=rungs,
        own=own,
        store=Store(store),
        limit=limit,
        workers=who.resolve(),
        batch_size=batch_size,
    )
    with screen() as shown:
        shown.begin(
            f"tuning for {request.victim.name}", f"{len(rungs)} strengths, {len(request.dataset.shards)} shards"
        )
        result = run(request, report=shown.show)
    if out is not None:
        write_preset(out, result)
    found = tune_report(result)
    if as_json:
        emit_json(found)
        return
    click.echo(tune_table(found, look(wide=wide)), nl=False)
    if out is not None:
        click.echo(f"written to {out}")
