"""``zipbatch tune``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from zipbatch.cli import fitting
from zipbatch.cli.fitting import FitFlags, fit_options, only_with_data
from zipbatch.cli.number import Number
from zipbatch.cli.options import (
    BATCH_SIZE,
    JSON,
    PRECISION,
    SEED,
    WIDE,
    WorkerFlags,
    cache_options,
    emit_json,
    look,
    worker_options,
)
from zipbatch.cli.page_option import REPORT, asked_page, leave_page, this_run
from zipbatch.cli.render import screen
from zipbatch.errors import UsageError
from zipbatch.storage import storage_path

if TYPE_CHECKING:
    from zipbatch.stages.tune.fit import FitResult
    from zipbatch.stages.tune.sweep import TuneResult
    from zipbatch.storage import StoragePath


@click.command()
@click.argument("victim")
@click.option("--data", "data", multiple=True, metavar="STAGED|SHARDS", help="Suspect images; repeats.")
@click.option(
    "--prior",
    required=True,
    metavar="DIR|FILE.pt|URL|hub:NAME[@REV]",
    help="Diffusion model, as for 'zipbatch purify'; 'embedded' is the shipped one.",
)
@click.option(
    "--store",
    type=storage_path,
    metavar="DIR|URL",
    help="Where results are kept; needed with --data.  [default: nowhere]",
)
@click.option(
    "--preset",
    "presets",
    multiple=True,
    metavar="NAME|FILE",
    help="Settings whose strength is tuned; with --fit one more to try, beside fast, balanced and strong: repeats, "
    "weakest first.  [default: balanced]",
)
@fit_options
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
@REPORT
@worker_options
@cache_options
@WIDE
@JSON
def tune(
    victim: str,
    data: tuple[str, ...],
    prior: str,
    store: StoragePath | None,
    presets: tuple[str, ...],
    flags: FitFlags,
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
    """Choose how to purify, from what VICTIM answers: no labels, no trigger, no look inside.

    VICTIM is a folder, an HTTP endpoint or a function of yours, as for 'zipbatch evaluate'.

    --data, suspect images: they are purified at several strengths. When one class loses far more images than the
    others, it is taken for an attacker's target. A stronger setting than the preset's is chosen when that leaves more
    of those images in the class than the limit, a weaker one when there is good evidence (95 %) that it leaves no
    more. When no class stands out, the preset's own strength is kept.

    --fit, clean images of yours: they are purified with each preset, and the strongest is chosen that changes no more
    answers than --max-loss. Thresholds that the prior lacks for their size are learned from them; the prior is left
    as it is, they are kept in --out. With --data, too, the strength of that preset is tuned.

    \b
    Examples:
      zipbatch tune victims/theirs --data 'incoming/day-{000..009}.tar' --prior embedded --store pur/ --out ours.yaml
      zipbatch tune victims/theirs --fit photos/ --prior embedded --out ours.yaml
      zipbatch tune victims/theirs --fit photos/ --prior priors/mine --train-minutes 60 --out ours.yaml
      zipbatch purify 'incoming/day-{000..099}.tar' --prior embedded --preset ours.yaml --store pur/
    """
    from zipbatch.datasets import open_dataset
    from zipbatch.stages.assets import prior_path
    from zipbatch.stages.evaluate.victims import find_victim
    from zipbatch.stages.tune.sweep import TuneRequest, candidates_around, some_shards, sweep
    from zipbatch.stages.tune.sweep import tune as run
    from zipbatch.store import Store

    _check_needed(data, flags, store)
    if out is not None and (out.suffix not in {".yaml", ".yml"} or not out.absolute().parent.is_dir()):
        raise UsageError(f"--out {out}: must be a .yaml file in a folder that is there")
    bfloat16 = precision == "bfloat16"
    if flags.fit is None:
        preset = presets[-1] if presets else None
        candidates, own = sweep(
            preset=preset, exponents=exponents, prior=prior_path(prior), seed=seed, bfloat16=bfloat16
        )
    asked = find_victim(victim)
    dataset = some_shards(open_dataset(data), splits, shards) if data else None
    kept = None if store is None else Store(store)
    fitted = tuned = None
    if flags.fit is not None:
        to_fit = fitting.ToFit(asked, dataset, prior, presets, kept, who.resolve(), batch_size, seed, bfloat16)
        fitted = fitting.fitted(flags, to_fit)
        if dataset is not None:
            candidates, own = candidates_around(fitted.chosen.spec, exponents)
    if dataset is not None and kept is not None:
        request = TuneRequest(
            victim=asked,
            dataset=dataset,
            data_label=" ".join(data),
            candidates=candidates,
            own=own,
            store=kept,
            limit=limit,
            workers=who.resolve(),
            batch_size=batch_size,
        )
        with screen() as shown:
            shown.begin(
                f"tuning for {request.victim.name}",
                f"{len(candidates)} strengths, {len(request.dataset.shards)} shards",
            )
            tuned = run(request, report=shown.show)
    if out is not None:
        _write(out, fitted, tuned)
    _show(fitted, tuned, prior, out, as_json=as_json, wide=wide)


def _check_needed(data: tuple[str, ...], flags: FitFlags, store: StoragePath | None) -> None:
    """Raises what Click raises for an option that is missing, where it depends on others which are needed."""
    options = {option.name: option for option in click.get_current_context().command.params}
    if not data and flags.fit is None:
        raise click.MissingParameter("Suspect images, or clean ones with --fit.", param=options["data"])
    if data and store is None:
        raise click.MissingParameter(param=options["store"])
    if not data:
        only_with_data()


def _write(out: Path, fitted: FitResult | None, tuned: TuneResult | None) -> None:
    from zipbatch.stages.tune.sweep import write_preset

    last = tuned or fitted
    assert last is not None
    write_preset(out, last.settings, " ".join(result.about for result in (tuned, fitted) if result is not None))


def _show(
    fitted: FitResult | None, tuned: TuneResult | None, prior: str, out: Path | None, *, as_json: bool, wide: bool
) -> None:
    from zipbatch.report.fit_table import fit_table
    from zipbatch.report.tables import tune_table
    from zipbatch.stages.tune.fit import fit_report
    from zipbatch.stages.tune.sweep import tune_report

    found = {} if tuned is None else tune_report(tuned)
    if fitted is not None:
        common = {"victim": fitted.plan.request.victim.label, "settings": fitted.settings}
        found = common | found | {"fit": fit_report(fitted)}
    if (page := asked_page()) is not None:
        from zipbatch.report.page.tuning import tuning_page

        leave_page(page, tuning_page(found, this_run()))
    if as_json:
        emit_json(found)
        return
    if fitted is not None:
        click.echo(fit_table(found["fit"], look(wide=wide)), nl=False)
    if tuned is not None:
        click.echo(tune_table(found, look(wide=wide)), nl=False)
    if out is not None:
        click.echo(f"written to {out}")
    if fitted is not None:
        fitting.say_what_to_do(fitted, prior, out)
