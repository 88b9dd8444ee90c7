"""``zipbatch audit``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from zipbatch.cli.options import JSON, WIDE, cache_options, emit_json, look, worker_options
from zipbatch.cli.page_option import REPORT, asked_page, leave_page, this_run
from zipbatch.cli.render import screen
from zipbatch.cli.request_options import options_of
from zipbatch.cli.run_context import report_options, run_context
from zipbatch.stages.audit.request import AuditRequest
from zipbatch.stages.purify.request import NetworkRequest

if TYPE_CHECKING:
    from zipbatch.cluster import WorkerRequest
    from zipbatch.report.progress import Progress
    from zipbatch.stages.audit.run import AuditResult

EXIT_CODES = {"nothing found": 0, "backdoored": 3, "too few images": 4, "manipulated images": 4}


@click.command()
@click.argument("victim")
@options_of(
    AuditRequest,
    first=("data", "purified", "store", "prior", "presets"),
    last=NetworkRequest.model_fields,
    without=("victim",),
)
@REPORT
@worker_options
@cache_options
@report_options
@WIDE
@JSON
@click.pass_context
def audit(
    context: click.Context,
    victim: str,
    request: Callable[..., AuditRequest],
    who: WorkerRequest,
    wide: bool,
    as_json: bool,
) -> None:
    """Is VICTIM backdoored, and by which images? Told from its answers alone: no labels, no trigger, no look inside.

    VICTIM is a folder, an HTTP endpoint or a function of yours, as for 'zipbatch evaluate'. It is asked about each
    image as it is and purified: versions that exist (--purified), or made for it (--prior, --preset). A class that
    loses far more images than the others, to many classes at once, is taken for an attacker's target, as by 'zipbatch
    tune'; images that leave it are the suspects. What purifying leaves in is not seen, nor are backdoors with many
    targets.

    What it answers is kept in --store: the next audit asks about new shards alone. An endpoint has no digest: name its
    --victim-version, another one whenever its model changes. So for a function that loads what its file does not show.

    --per-image: key, shard, score (0 to 1, how much it looks triggered), before and after (the answers; after the last
    purifier), moved (how many purifiers change the answer) and suspect.

    \b
    Exit codes:
      0  nothing found
      3  looks backdoored
      4  cannot tell: too few images, or images are manipulated and the classifier need not be
      1  some work failed, or the classifier's answers cannot be relied on: it changes them, or answers everything alike
      2  the command cannot be carried out, as ever

    \b
    Examples:
      zipbatch audit victims/theirs --data 'incoming/day-{000..009}.tar' --prior embedded --per-image suspects.csv
      zipbatch audit http://localhost:8000/predict --data incoming/ --purified incoming@nightly --store pur/ --json
    """
    from zipbatch.report.audit_text import audit_text
    from zipbatch.report.per_image import check_rows_file, write_rows
    from zipbatch.results import ImageRow, dump
    from zipbatch.stages.audit.job import opened_job
    from zipbatch.stages.audit.run import audit as run
    from zipbatch.stages.audit.run import audit_report, image_rows

    asked = request(victim=victim)
    if asked.per_image is not None:
        check_rows_file(asked.per_image, "--per-image")
    job = opened_job(asked, who.resolve())
    noted = run_context()
    noted.dataset, noted.store = job.dataset.name, None if job.store is None else str(job.store.root)
    with screen() as shown:
        about = f"{len(job.dataset.shards)} shards as they came and purified by {', '.join(job.forms)}"
        shown.begin(f"auditing {job.victim.name}", about)

        def show(progress: Progress) -> None:
            shown.show(progress)
            if progress.parts and progress.parts[0].unit == "shards":
                noted.count("shards", progress.parts[0].done, progress.parts[0].total)

        page = asked_page()
        result = run(job, report=show, pictures=page is not None)
    found = audit_report(result)
    if asked.per_image is not None:
        write_rows(asked.per_image, ImageRow, image_rows(result))
    if as_json:
        emit_json(dump(found))
    else:
        click.echo(audit_text(found, look(wide=wide)), nl=False)
    if page is not None:
        from zipbatch.stages.audit.page import audit_page

        leave_page(page, audit_page(result, this_run()))
    _note(result)
    context.exit(EXIT_CODES[result.audit.finding])


def _note(result: AuditResult) -> None:
    """For the reports of the run."""
    from zipbatch.report.run import Verdict

    fled = result.target or result.driven
    answers = result.answers
    run_context().verdict = Verdict(
        finding=result.audit.finding,
        findings=tuple(EXIT_CODES),
        flip_rate=result.audit.flip_rate,
        suspects={} if fled is None else {fled: result.suspects},
        asked=answers.forms.size - answers.reused,
        reused=answers.reused,
    )
