"""``zipbatch report``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zipbatch.cli.page_option import this_run
from zipbatch.errors import UsageError
from zipbatch.storage import StoragePath, storage_path

if TYPE_CHECKING:
    from zipbatch.report.page.from_results import ResultsFile

_MAX_BYTES = 256 * 1024**2


@click.command()
@click.argument("results", nargs=-1, required=True, type=storage_path, metavar="RESULTS.json…")
@click.option(
    "--out",
    "outs",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="What to write, by its suffix: .html, a report; .csv, .md or .tex, a table; .png, .pdf or .svg, a figure. "
    "Repeats.",
)
def report(results: tuple[StoragePath, ...], outs: tuple[Path, ...]) -> None:
    """Make reports, tables and figures from RESULTS of 'zipbatch evaluate --json' and 'zipbatch run'.

    The report is one HTML file that needs no network: verdict, sortable table, chart and provenance. Pictures are in
    the reports that evaluate, audit and run write with --report, where the images are at hand.

    \b
    Examples:
      zipbatch report demo-out/results.json --out report.html --out table.csv --out figure.pdf
      zipbatch report monday.json tuesday.json --out week.tex
    """
    from zipbatch import atomic

    for out in outs:
        _check(out)
    files = [_read(path) for path in results]
    if not any(file.results.rows for file in files):
        raise UsageError(f"{results[0]}: holds no row; is there an evaluation in it?")
    written = [(out, _WRITERS[out.suffix.lower()](files, out.suffix.lower())) for out in outs]
    for out, data in written:
        atomic.write_bytes(out, data)
        click.echo(f"written to {out}")


def _check(out: Path) -> None:
    if out.suffix.lower() not in _WRITERS:
        raise UsageError(f"--out {out}: can be {', '.join(_WRITERS)}; name such a file")
    if not out.absolute().parent.is_dir():
        raise UsageError(f"--out {out}: its folder is not there")
    if out.is_dir():
        raise UsageError(f"--out {out}: is a folder; name a file")


def _read(path: StoragePath) -> ResultsFile:
    from zipbatch import storage
    from zipbatch.report.page.from_results import ResultsFile
    from zipbatch.report.page.results import read_results

    try:
        data = storage.read_bytes(path, limit=_MAX_BYTES)
        document = json.loads(data)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file; name what 'evaluate --json' or 'run' wrote") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: is no JSON that can be read ({error}); name a file of results") from error
    return ResultsFile(str(path), hashlib.sha256(data).hexdigest(), read_results(document, str(path)))


def _html(files: Sequence[ResultsFile], _suffix: str) -> bytes:
    from zipbatch.report.page.from_results import results_page
    from zipbatch.report.page.html import page_html

    return page_html(results_page(files, this_run())).encode(errors="replace")


def _csv(files: Sequence[ResultsFile], _suffix: str) -> bytes:
    from zipbatch.report.rows_csv import rows_csv

    rows = [row for file in files for row in file.results.rows]
    over_seeds = [row for file in files for row in file.results.over_seeds or ()]
    return rows_csv(rows, over_seeds or None).encode(errors="replace")


def _table(files: Sequence[ResultsFile], suffix: str) -> bytes:
    from zipbatch.report.page.from_results import results_table
    from zipbatch.report.page.table_files import TABLES

    return TABLES[suffix](results_table(files)).encode(errors="replace")


def _figure(files: Sequence[ResultsFile], suffix: str) -> bytes:
    from zipbatch.report.page.evaluation import chart
    from zipbatch.report.page.from_results import rows_of
    from zipbatch.report.tradeoff import tradeoff_figure

    charts = chart(rows_of(files))
    if not charts:
        raise UsageError(f"{files[0].name}: no row has both CA and ASR; a figure needs them, a table does not")
    return tradeoff_figure(charts[0], suffix=suffix)


_WRITERS: dict[str, Callable[[Sequence[ResultsFile], str], bytes]] = {
    ".html": _html,
    **dict.fromkeys((".csv",), _csv),
    **dict.fromkeys((".md", ".tex"), _table),
    **dict.fromkeys((".png", ".pdf", ".svg"), _figure),
}
