"""``zipbatch run`` and ``zipbatch demo``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import click

from zipbatch.cli.options import JSON, TRUST_MTIME, WIDE, emit_json, look, worker_options
from zipbatch.cli.page_option import REPORT, asked_page, leave_page, this_run
from zipbatch.cli.render import screen
from zipbatch.cli.run_context import report_options, run_context
from zipbatch.cli.track_option import TRACK, tracked
from zipbatch.config import pairs
from zipbatch.errors import UsageError
from zipbatch.report.units import about_text
from zipbatch.spelling import as_read

if TYPE_CHECKING:
    from zipbatch.cluster import WorkerRequest, Workers
    from zipbatch.pipeline.run import PipelinePlan, PipelineResult
    from zipbatch.report.progress import Progress

_DEMO_IMAGES, _DEMO_CORE_S = 1000, 0.23
_OUT = click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="Results.  [default: the pipeline's name, + '-out']"
)


@click.command()
@click.argument("pipeline", metavar="NAME|FILE")
@_OUT
@click.option("--var", "values", multiple=True, metavar="NAME=VALUE", help="Override a variable of the file; repeats.")
@click.option(
    "--seeds",
    metavar="N|S,S,…",
    help="Run each stage that takes a seed and says none of its own with N seeds, 0 to N-1, or with these; the table "
    "has means and standard deviations.  [default: the file's]",
)
@worker_options
@click.option("--dry-run", is_flag=True, help="Say what would be run and why, and stop.")
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), metavar="FILE.csv", help="Write the table as CSV.")
@REPORT
@TRACK
@TRUST_MTIME
@report_options
@WIDE
@JSON
def run(
    pipeline: str,
    out: Path | None,
    values: tuple[str, ...],
    seeds: str | None,
    who: WorkerRequest,
    dry_run: bool,
    csv_file: Path | None,
    trust_mtime: bool,
    wide: bool,
    as_json: bool,
) -> None:
    """Run a PIPELINE: stages chained over a matrix of cases, with one table at the end.

    What an earlier run has made from the same settings and inputs is not made again. 'zipbatch ls pipelines' lists
    those that ship with the tool.

    \b
    Examples:
      zipbatch run demo --dry-run
      zipbatch run cifar10-attacks --var source=cifar10/ --out results --gpus 8 --csv table.csv
      zipbatch run cifar10-attacks --var source=cifar10/ --seeds 3 --csv table.csv
    """

    if csv_file is not None and not csv_file.absolute().parent.is_dir():
        raise UsageError(f"--csv {csv_file}: its folder is not there")
    given = pairs(values, "--var")
    plan = _plan(pipeline, out, who.resolve(), given, seeds=seeds, trust_mtime=trust_mtime)
    if dry_run:
        run_context().unreported()
        _show_plan(plan, as_json=as_json)
        return
    todo = sum(plan.state(instance) != "done" for instance in plan.instances)
    name, about = Path(pipeline).stem, f"{len(plan.instances)} stages, {todo} of them to be run"
    result = _run(
        plan, f"running {name}", about, settings={"pipeline": pipeline, "out": str(plan.workspace.out), **given}
    )
    if csv_file is not None:
        from zipbatch.report.rows_csv import write_rows_csv

        write_rows_csv(csv_file, result.rows, result.over_seeds)
    _show(plan, result, wide=wide, as_json=as_json)
    _leave_page(plan, result, name)
    result.raise_failures()


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
@REPORT
@worker_options
@WIDE
@JSON
def demo(
    out: Path,
    limit: int | None,
    who: WorkerRequest,
    wide: bool,
    as_json: bool,
) -> None:
    """Poison, purify and evaluate the embedded CIFAR-10 sample, with the embedded prior and victims.

    No training, no download; two minutes or so on two CPU cores. It is 'zipbatch run demo'.
    """

    plan = _plan("demo", out, who.resolve(), {"limit": str(limit or "null")})
    images = min(limit or _DEMO_IMAGES, _DEMO_IMAGES)
    about = f"poisons, purifies and evaluates {images} images twice over; {about_text(_demo_s(images))}"
    result = _run(plan, "demo", about)
    _show(plan, result, wide=wide, as_json=as_json)
    _leave_page(plan, result, "demo")
    result.raise_failures()


def _demo_s(images: int) -> float:
    """About how long the demo takes here, by the time of its work on one core; some parts of it use only one."""
    from zipbatch.cluster.device import cpu_cores

    return 8 + images * _DEMO_CORE_S / min(4, cpu_cores())


def _plan(
    pipeline: str,
    out: Path | None,
    workers: Workers,
    values: Mapping[str, str],
    *,
    seeds: str | None = None,
    trust_mtime: bool = False,
) -> PipelinePlan:
    from zipbatch.config import find_config, load_config, parse_scalar
    from zipbatch.pipeline.config import PipelineConfig
    from zipbatch.pipeline.run import plan_pipeline
    from zipbatch.stages.adapter import Workspace

    file = find_config("pipelines", pipeline)
    workspace = Workspace(out or Path(f"{file.stem}-out"), workers)
    typed = {name: parse_scalar(text) for name, text in values.items()}
    config = load_config(file, PipelineConfig, None if seeds is None else {"seeds": _seeds(seeds)})
    return plan_pipeline(config, workspace, typed, where=str(file), trust_mtime=trust_mtime)


def _seeds(text: str) -> object:
    """``3``, ``0,1,2`` as a pipeline's file has them."""
    from zipbatch.config import parse_scalar

    if "," in text:
        return [parse_scalar(part) for part in text.split(",")]
    return text if (value := parse_scalar(text)) is None else value


def _run(
    plan: PipelinePlan, what: str, about: str, *, settings: Mapping[str, str] = MappingProxyType({})
) -> PipelineResult:
    from zipbatch.pipeline.run import run_pipeline
    from zipbatch.report.counts import Counts
    from zipbatch.report.progress import Part
    from zipbatch.tracking import row_values

    noted = run_context()
    noted.store = str(plan.workspace.store.root)

    stages = [0, len(plan.instances)]

    def count(ran: int, skipped: int, failed: Mapping[str, str]) -> None:
        stages[0] = ran + skipped + len(failed)
        noted.counts, noted.failed = (
            Counts(unit="stages", total=len(plan.instances), computed=ran, reused=skipped, failed=len(failed)),
            failed,
        )

    with screen() as shown, tracked(plan.workspace.out.name, settings) as following:
        shown.begin(what, about)

        def report(progress: Progress) -> None:
            following.progress(progress, group=progress.what)
            shown.show(replace(progress, parts=(Part("stages", *stages), *progress.parts), fraction=progress.share))

        result = run_pipeline(plan, report=report, on_count=count)
        following.final(
            row_values(result.rows if result.over_seeds is None else result.over_seeds), ok=not result.failed
        )
    noted.nothing_to_do = not result.ran and not result.failed
    return result


def _show(plan: PipelinePlan, result: PipelineResult, *, wide: bool, as_json: bool) -> None:
    from zipbatch.pipeline.config import SEED
    from zipbatch.report.tables import evaluation_table
    from zipbatch.results import dump

    workspace = plan.workspace
    if as_json:
        reasons = {label: as_read(reason) for label, reason in result.failed.items()}
        emit_json(dump(replace(result, failed=reasons).answer))
        return
    axes = [axis for axis in plan.axes if not (plan.seeds and axis == SEED)]
    rows = result.rows if result.over_seeds is None else result.over_seeds
    click.echo(evaluation_table(rows, axes, look(wide=wide)), nl=False)
    click.echo(f"\n{result.ran} stages run, {result.skipped} done before; look at:")
    for sheet in result.sheets:
        click.echo(f"  {sheet}   clean, poisoned, purified, with the victim's answers")
    click.echo(f"  {workspace.out / 'results.json'}   the table with intervals and counts")
    click.echo(f"  zipbatch store ls --store {workspace.store.root}   the versioned store")


def _leave_page(plan: PipelinePlan, result: PipelineResult, name: str) -> None:
    if (page := asked_page()) is not None:
        from zipbatch.pipeline.page import pipeline_page

        leave_page(page, pipeline_page(plan, result, name, this_run()))


def _show_plan(plan: PipelinePlan, *, as_json: bool) -> None:
    states = [(instance, plan.state(instance)) for instance in plan.instances]
    if as_json:
        stages = [
            {"stage": i.stage, "axes": dict(i.axes), "run": i.kind, "state": state, "path": str(i.path(plan.workspace))}
            for i, state in states
        ]
        emit_json({"out": str(plan.workspace.out), "stages": stages})
        return
    for instance, state in states:
        click.echo(f"{'skip' if state == 'done' else 'run ':4} {instance.label:<45} {instance.kind:<13} {state}")
