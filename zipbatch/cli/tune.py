"""``zipbatch tune``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zipbatch.cli.options import JSON, WIDE, cache_options, emit_json, look, worker_options
from zipbatch.cli.page_option import REPORT, asked_page, leave_page, this_run
from zipbatch.cli.render import screen
from zipbatch.cli.request_options import options_of
from zipbatch.config import list_configs
from zipbatch.stages.purify.request import NetworkRequest
from zipbatch.stages.tune.request import TuneRequest

if TYPE_CHECKING:
    from zipbatch.cluster import WorkerRequest
    from zipbatch.stages.tune.fit import FitResult
    from zipbatch.stages.tune.run import TuneOutcome


@click.command()
@click.argument("victim")
@options_of(
    TuneRequest,
    first=("data", "prior", "store", "presets", "exponents", "splits", "shards", "limit", "fit"),
    last=("out", *NetworkRequest.model_fields),
    without=("victim",),
)
@REPORT
@worker_options
@cache_options
@WIDE
@JSON
def tune(
    victim: str,
    request: Callable[..., TuneRequest],
    who: WorkerRequest,
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
    from zipbatch.stages.tune.run import carry_out

    asked = request(victim=victim)
    with screen() as shown:
        outcome = carry_out(asked, who.resolve(), begin=shown.begin, report=shown.show)
    _show(outcome, asked, as_json=as_json, wide=wide)


def _show(outcome: TuneOutcome, asked: TuneRequest, *, as_json: bool, wide: bool) -> None:
    from zipbatch.report.fit_table import fit_table
    from zipbatch.report.tables import tune_table
    from zipbatch.results import dump

    fit, strength = outcome.fit, outcome.strength
    if (page := asked_page()) is not None:
        from zipbatch.report.page.tuning import tuning_page

        leave_page(page, tuning_page(outcome.answer, strength, fit, this_run()))
    if as_json:
        emit_json(dump(outcome.answer))
        return
    if fit is not None:
        click.echo(fit_table(fit, look(wide=wide)), nl=False)
    if strength is not None:
        click.echo(tune_table(strength, look(wide=wide)), nl=False)
    if asked.out is not None:
        click.echo(f"written to {asked.out}")
    if outcome.fitted is not None:
        _say_what_to_do(outcome.fitted, asked.prior, asked.out)


def _say_what_to_do(result: FitResult, prior: str, out: Path | None) -> None:
    """The command that purifies as was chosen."""
    chosen = result.chosen
    if out is None and (result.keeps_thresholds or chosen.preset not in list_configs("purifiers")):
        click.echo("name --out FILE.yaml to keep the choice, with its thresholds")
        return
    preset = out or chosen.preset
    with_prior = f" --prior {prior}" if chosen.spec.needs_prior else ""
    resize = f" --resize {chosen.spec.asked.resize}" if chosen.spec.asked.resize else ""
    click.echo(f"next: zipbatch purify SHARDS{with_prior} --preset {preset}{resize} --store DIR")
