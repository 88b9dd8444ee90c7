"""``zipbatch evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from zipbatch.cli.options import JSON, WIDE, WorkerFlags, cache_options, emit_json, look, worker_options
from zipbatch.cli.page_option import REPORT, asked_page, leave_page, this_run
from zipbatch.cli.render import screen
from zipbatch.cli.run_context import report_options, run_context
from zipbatch.storage import StoragePath, storage_path

if TYPE_CHECKING:
    from zipbatch.stages.evaluate.page import Tallies
    from zipbatch.stages.evaluate.progress import EvaluateProgress
    from zipbatch.stages.evaluate.run import EvaluatePlan


@click.command()
@click.argument("victims", nargs=-1, required=True, metavar="VICTIM…")
@click.option("--data", "data", required=True, multiple=True, metavar="STAGED|SHARDS", help="Suspect images; repeats.")
@click.option("--purified", multiple=True, metavar="NAME[@TAG]", help="Purified version of the data; repeats.")
@click.option("--store", type=storage_path, metavar="DIR|URL", help="The store of the purified versions.")
@click.option("--sheet", type=click.Path(path_type=Path), metavar="FILE", help="Contact sheet: .png, .pdf or .svg.")
@REPORT
@worker_options
@cache_options
@report_options
@WIDE
@JSON
def evaluate(
    victims: tuple[str, ...],
    data: tuple[str, ...],
    purified: tuple[str, ...],
    store: StoragePath | None,
    sheet: Path | None,
    who: WorkerFlags,
    wide: bool,
    as_json: bool,
) -> None:
    """Measure VICTIM classifiers on suspect and purified shards.

    A VICTIM is a folder (a path or a URL such as s3://models/theirs), the address of an HTTP endpoint
    (http://HOST:PORT/PATH), or a function of yours (python:FILE.py:FUNCTION, python:package.module:FUNCTION), which is
    run. The last two get RGB images, uint8 [N, H, W, 3], and return class scores [N, classes]. An endpoint is sent them
    as numpy's .npy in the body of a POST, and answers with a .npy array or a JSON list of lists.

    CA, ASR, FPR, PA and RA with 95 % intervals; without labels the share of answers that purification flips and the
    classes that they leave. Beside a purified version's measures, network calls and seconds an image, as far as the
    store knows them.

    \b
    Example:
      zipbatch evaluate victims/badnets --data shards/cifar10-badnets --purified cifar10-badnets@latest --store pur/
      zipbatch evaluate http://localhost:8000/predict --data shards/cifar10-badnets
    """
    from zipbatch.datasets import open_dataset
    from zipbatch.report.figure import check_figure
    from zipbatch.report.tables import evaluation_table
    from zipbatch.stages.evaluate.run import EvaluateRequest, plan_evaluate
    from zipbatch.stages.evaluate.run import evaluate as run
    from zipbatch.stages.evaluate.victims import find_victim
    from zipbatch.store import Store

    request = EvaluateRequest(
        victims=tuple(find_victim(text) for text in victims),
        dataset=open_dataset(data),
        data_label=" ".join(data),
        purified=purified,
        store=None if store is None else Store(store),
        workers=who.resolve(),
    )
    if sheet is not None:
        check_figure(sheet, "--sheet")
    noted = run_context()
    noted.dataset = request.dataset.name
    noted.store = None if request.store is None else str(request.store.root)
    plan = plan_evaluate(request)
    with screen() as shown:
        what = f"evaluating {request.dataset.name}"
        shown.begin(what, _to_do(plan))

        def show(p: EvaluateProgress) -> None:
            shown.show(p.shown(what))
            noted.count("shards", p.shards_done, p.shards)

        tallies: list[Tallies] = []
        rows = run(plan, on_progress=show, on_tallies=tallies.append)
    if as_json:
        emit_json({"rows": rows})
    else:
        click.echo(evaluation_table(rows, look=look(wide=wide)), nl=False)
    if sheet is not None:
        from zipbatch.stages.evaluate.sheet import write_sheet

        write_sheet(plan, sheet)
        click.echo(f"contact sheet: {sheet}", err=True)
    if (page := asked_page()) is not None:
        from zipbatch.stages.evaluate.page import evaluation_page

        leave_page(page, evaluation_page(plan, rows, tallies[0], this_run()))


def _to_do(plan: EvaluatePlan) -> str:
    versions = f" and {len(plan.versions)} purified" if plan.versions else ""
    return f"{len(plan.tasks)} shards as they came{versions}, {len(plan.victims)} victims"
