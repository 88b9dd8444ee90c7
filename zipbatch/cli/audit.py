"""``zipbatch audit``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
from click.core import ParameterSource

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
from zipbatch.cli.run_context import report_options, run_context
from zipbatch.config import DEFAULTS
from zipbatch.errors import UsageError
from zipbatch.storage import StoragePath, storage_path

if TYPE_CHECKING:
    from zipbatch.purifiers.base import Precision
    from zipbatch.report.progress import Progress
    from zipbatch.stages.audit.run import AuditResult
    from zipbatch.stages.purify.spec import PurifierSpec

EXIT_CODES = {"nothing found": 0, "backdoored": 3, "too few images": 4}
_PURIFYING = ("prior", "presets", "resize", "seed", "precision", "batch_size")


@click.command()
@click.argument("victim")
@click.option("--data", required=True, multiple=True, metavar="STAGED|SHARDS", help="Suspect images; repeats.")
@click.option(
    "--purified",
    multiple=True,
    metavar="NAME[@TAG]",
    help="Version of the data in --store, purified before; repeats, weakest first.",
)
@click.option(
    "--store", type=storage_path, metavar="DIR|URL", help="Of --purified; else where what is purified is kept."
)
@click.option(
    "--prior",
    metavar="DIR|FILE.pt|URL|hub:NAME[@REV]",
    help="Purify the data with this diffusion model, as 'zipbatch purify' does; 'embedded' is the shipped one.",
)
@click.option(
    "--preset",
    "presets",
    multiple=True,
    metavar="NAME|FILE",
    help=f"How to purify; repeats, weakest first.  [default: {DEFAULTS['purifiers']}]",
)
@click.option("--resize", type=click.Choice(["stretch"]), help="Make images fit the prior that do not, as in purify.")
@click.option("--split", "splits", multiple=True, metavar="NAME", help="Split; repeats.  [default: as in purify]")
@click.option("--shards", type=click.IntRange(1), metavar="N", help="Shards of each split to look at.  [default: all]")
@click.option(
    "--share",
    type=Number(0, 1),
    default=0.1,
    show_default=True,
    metavar="SHARE",
    help="Share of images with a trigger that must not be missed; with fewer images than that takes, none can tell.",
)
@click.option(
    "--per-image",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write a row for each image: .csv or .jsonl (JSON lines).",
)
@SEED
@PRECISION
@BATCH_SIZE
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
    data: tuple[str, ...],
    purified: tuple[str, ...],
    store: StoragePath | None,
    prior: str | None,
    presets: tuple[str, ...],
    resize: Literal["stretch"] | None,
    splits: tuple[str, ...],
    shards: int | None,
    share: float,
    per_image: Path | None,
    seed: int,
    precision: Precision,
    batch_size: int,
    who: WorkerFlags,
    wide: bool,
    as_json: bool,
) -> None:
    """Is VICTIM backdoored, and by which images? Told from its answers alone: no labels, no trigger, no look inside.

    VICTIM is a folder, an HTTP endpoint or a function of yours, as for 'zipbatch evaluate'. It is asked about each
    image as it is and purified: versions that exist (--purified), or made for it (--prior, --preset). A class that
    loses far more images than the others, to many classes at once, is taken for an attacker's target, as by 'zipbatch
    tune'; images that leave it are the suspects. What purifying leaves in is not seen, nor are backdoors with many
    targets.

    --per-image: key, shard, score (0 to 1, how much it looks triggered), before and after (the answers; after the last
    purifier), moved (how many purifiers change the answer) and suspect.

    \b
    Exit codes:
      0  nothing found
      3  looks backdoored
      4  too few images to tell
      1  some work failed, 2  the command cannot be carried out, as ever

    \b
    Examples:
      zipbatch audit victims/theirs --data 'incoming/day-{000..009}.tar' --prior embedded --per-image suspects.csv
      zipbatch audit http://localhost:8000/predict --data incoming/ --purified incoming@nightly --store pur/ --json
    """
    from zipbatch.datasets import open_dataset
    from zipbatch.report.audit_text import audit_text
    from zipbatch.report.per_image import check_rows_file, write_rows
    from zipbatch.stages.audit.run import IMAGE_COLUMNS, AuditRequest, audit_report, image_rows
    from zipbatch.stages.audit.run import audit as run
    from zipbatch.stages.evaluate.victims import find_victim
    from zipbatch.stages.tune.sweep import some_shards
    from zipbatch.store import Store

    _check_one_way(context, purified, prior, presets, store)
    if per_image is not None:
        check_rows_file(per_image, "--per-image")
    purifiers = () if purified else _purifiers(presets, prior, resize, seed, precision)
    request = AuditRequest(
        victim=find_victim(victim),
        dataset=some_shards(open_dataset(data), splits, shards, purpose="audit"),
        data_label=" ".join(data),
        purified=purified,
        purifiers=purifiers,
        share=share,
        store=None if store is None else Store(store),
        workers=who.resolve(),
        batch_size=batch_size,
    )
    noted = run_context()
    noted.dataset, noted.store = request.dataset.name, None if store is None else str(store)
    with screen() as shown:
        about = f"{len(request.dataset.shards)} shards as they came and purified by {', '.join(request.forms)}"
        shown.begin(f"auditing {request.victim.name}", about)

        def show(progress: Progress) -> None:
            shown.show(progress)
            if progress.parts and progress.parts[0].unit == "shards":
                noted.count("shards", progress.parts[0].done, progress.parts[0].total)

        page = asked_page()
        result = run(request, report=show, pictures=page is not None)
    found = audit_report(result)
    if per_image is not None:
        write_rows(per_image, IMAGE_COLUMNS, image_rows(result))
    if as_json:
        emit_json(found)
    else:
        click.echo(audit_text(found, look(wide=wide)), nl=False)
    if page is not None:
        from zipbatch.stages.audit.page import audit_page

        leave_page(page, audit_page(result, this_run()))
    _note(result)
    context.exit(EXIT_CODES[result.audit.finding])


def _check_one_way(
    context: click.Context,
    purified: tuple[str, ...],
    prior: str | None,
    presets: tuple[str, ...],
    store: StoragePath | None,
) -> None:
    """Versions that exist, or how to make them."""
    options = {option.name: option for option in context.command.params}
    if not purified and prior is None and not presets:
        raise UsageError("name --purified NAME[@TAG] with --store, or --prior to purify the data: 'embedded' ships")
    given = [name for name in _PURIFYING if context.get_parameter_source(name) is not ParameterSource.DEFAULT]
    if purified and given:
        flag = options[given[0]].opts[0]
        raise UsageError(f"{flag} is for images that are still to be purified; leave it or --purified out")
    if purified and store is None:
        raise click.MissingParameter("Where the purified versions are.", param=options["store"])


def _purifiers(
    presets: tuple[str, ...], prior: str | None, resize: Literal["stretch"] | None, seed: int, precision: Precision
) -> tuple[tuple[str, PurifierSpec], ...]:
    from zipbatch.stages.assets import prior_path
    from zipbatch.stages.purify.request import PurifierRequest
    from zipbatch.stages.purify.resolve import asked_purifier, with_prior

    where = None if prior is None else prior_path(prior)
    names = dict.fromkeys(presets or (DEFAULTS["purifiers"],))
    asked = {
        name: asked_purifier(PurifierRequest(preset=name, seed=seed, precision=precision, resize=resize))
        for name in names
    }
    if where is not None and not any(spec.needs_prior for spec in asked.values()):
        raise UsageError(f"--prior {prior}: no preset that is asked for needs one; leave it out")
    return tuple((name, with_prior(spec, where if spec.needs_prior else None)) for name, spec in asked.items())


def _note(result: AuditResult) -> None:
    """For the reports of the run."""
    from zipbatch.report.run import Verdict

    suspects = {} if result.target is None else {result.target: result.suspects}
    run_context().verdict = Verdict(result.audit.finding, tuple(EXIT_CODES), result.audit.flip_rate, suspects)
