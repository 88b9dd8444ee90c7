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
from zipbatch.errors import UsageError
from zipbatch.stages.purify.request import NetworkRequest
from zipbatch.stages.tune.request import TuneRequest

if TYPE_CHECKING:
    from zipbatch.cluster import WorkerRequest
    from zipbatch.results import FitAndTuneAnswer, FitAnswer, FitReport, TuneReport
    from zipbatch.stages.tune.fit import FitResult
    from zipbatch.stages.tune.opening import Opened
    from zipbatch.stages.tune.sweep import TuneJob, TuneResult

    _Answer = TuneReport | FitAnswer | FitAndTuneAnswer


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
    from zipbatch.stages.tune.opening import opened, own_purifier, tune_job

    asked = request(victim=victim)
    out = asked.out
    if out is not None and (out.suffix not in {".yaml", ".yml"} or not out.absolute().parent.is_dir()):
        raise UsageError(f"--out {out}: must be a .yaml file in a folder that is there")
    named, fitted = opened(asked, who.resolve()), None
    if asked.fit is None:
        job = tune_job(asked, named, own_purifier(asked))
    else:
        fitted = _fitted(asked, asked.fit, named)
        job = tune_job(asked, named, fitted.chosen.spec)
    tuned = None if job is None else _tuned(job)
    if out is not None:
        _write(out, fitted, tuned)
    _show(fitted, tuned, asked.prior, out, as_json=as_json, wide=wide)


def _fitted(asked: TuneRequest, clean: str, named: Opened) -> FitResult:
    """A preset for the images ``clean``, chosen; what cannot be tuned afterwards is told before any work."""
    from zipbatch.stages.tune.candidates import candidates
    from zipbatch.stages.tune.fit import fit
    from zipbatch.stages.tune.opening import fit_plan
    from zipbatch.stages.tune.sweep import check_strength

    tried = candidates(asked)
    if named.suspects is not None:
        for one in tried:
            check_strength(one.spec)
    with screen() as shown:
        shown.begin(f"fitting for {named.victim.name}", f"{len(tried)} presets, clean images of {clean}")
        return fit(fit_plan(asked, clean, named, tried, shown.show), report=shown.show)


def _tuned(job: TuneJob) -> TuneResult:
    from zipbatch.stages.tune.sweep import tune as run

    with screen() as shown:
        about = f"{len(job.candidates)} strengths, {len(job.dataset.shards)} shards"
        shown.begin(f"tuning for {job.victim.name}", about)
        return run(job, report=shown.show)


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
    from zipbatch.results import dump
    from zipbatch.stages.tune.fit import fit_report
    from zipbatch.stages.tune.sweep import tune_report

    found = None if tuned is None else tune_report(tuned)
    fit = None if fitted is None else fit_report(fitted)
    if (page := asked_page()) is not None:
        from zipbatch.report.page.tuning import tuning_page

        leave_page(page, tuning_page(_answer(found, fit, fitted), found, fit, this_run()))
    if as_json:
        emit_json(dump(_answer(found, fit, fitted)))
        return
    if fit is not None:
        click.echo(fit_table(fit, look(wide=wide)), nl=False)
    if found is not None:
        click.echo(tune_table(found, look(wide=wide)), nl=False)
    if out is not None:
        click.echo(f"written to {out}")
    if fitted is not None:
        _say_what_to_do(fitted, prior, out)


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


def _answer(found: TuneReport | None, fit: FitReport | None, fitted: FitResult | None) -> _Answer:
    """What is told of a strength that was tuned, a preset that was fitted, or one after the other."""
    from zipbatch.results import FitAndTuneAnswer, FitAnswer, dump

    if fit is None or fitted is None:
        assert found is not None
        return found
    if found is None:
        return FitAnswer(victim=fitted.plan.job.victim.label, settings=fitted.settings, fit=fit)
    return FitAndTuneAnswer(**dump(found), fit=fit)
