"""``zipbatch evaluate``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from zipbatch.cli.options import JSON, WIDE, cache_options, emit_json, look, worker_options
from zipbatch.cli.page_option import REPORT, asked_page, leave_page, this_run
from zipbatch.cli.render import screen
from zipbatch.cli.request_options import options_of
from zipbatch.cli.run_context import report_options, run_context
from zipbatch.stages.evaluate.request import EvaluateRequest

if TYPE_CHECKING:
    from zipbatch.cluster import WorkerRequest
    from zipbatch.report.progress import Progress
    from zipbatch.stages.evaluate.page import Tallies
    from zipbatch.stages.evaluate.plan import EvaluatePlan
    from zipbatch.stages.evaluate.shard_result import EvaluateResult


@click.command()
@click.argument("victims", nargs=-1, required=True, metavar="VICTIM…")
@options_of(EvaluateRequest, without=("victims",))
@REPORT
@worker_options
@cache_options
@report_options
@WIDE
@JSON
def evaluate(
    victims: tuple[str, ...],
    request: Callable[..., EvaluateRequest],
    who: WorkerRequest,
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
    from zipbatch.report.figure import check_figure
    from zipbatch.report.per_image import check_rows_file, write_rows
    from zipbatch.report.tables import evaluation_table
    from zipbatch.results import Evaluation, ImageAnswer, dump
    from zipbatch.stages.evaluate.job import opened_job
    from zipbatch.stages.evaluate.plan import plan_evaluate
    from zipbatch.stages.evaluate.run import evaluate as run

    asked = request(victims=victims)
    job = opened_job(asked, who.resolve())
    if asked.sheet is not None:
        check_figure(asked.sheet, "--sheet")
    if asked.per_image is not None:
        check_rows_file(asked.per_image, "--per-image")
    noted = run_context()
    noted.dataset = job.dataset.name
    noted.store = None if job.store is None else str(job.store.root)
    plan = plan_evaluate(job)
    with screen() as shown:
        what = f"evaluating {job.dataset.name}"
        shown.begin(what, _to_do(plan))

        def show(p: Progress) -> None:
            shown.show(p.shown(what))
            noted.counts = p.counts

        tallies: list[Tallies] = []
        answers: list[EvaluateResult] = []
        on_answers = None if asked.per_image is None else answers.append
        rows = run(plan, on_progress=show, on_tallies=tallies.append, on_answers=on_answers)
    if asked.per_image is not None:
        from zipbatch.stages.evaluate.image_answers import image_answers

        write_rows(asked.per_image, ImageAnswer, image_answers(plan, answers))
    if as_json:
        emit_json(dump(Evaluation(rows=rows)))
    else:
        click.echo(evaluation_table(rows, look=look(wide=wide)), nl=False)
    if asked.sheet is not None:
        from zipbatch.stages.evaluate.sheet import write_sheet

        write_sheet(plan, asked.sheet)
        click.echo(f"contact sheet: {asked.sheet}", err=True)
    if (page := asked_page()) is not None:
        from zipbatch.stages.evaluate.page import evaluation_page

        leave_page(page, evaluation_page(plan, rows, tallies[0], this_run()))


def _to_do(plan: EvaluatePlan) -> str:
    versions = f" and {len(plan.versions)} purified" if plan.versions else ""
    return f"{len(plan.tasks)} shards as they came{versions}, {len(plan.victims)} victims"
