"""A page as one HTML file: templates filled, pictures inlined. Nothing in it names another host."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from zipbatch import __version__, atomic
from zipbatch.errors import UsageError, printable
from zipbatch.report.page.drawing import SERIES, Drawing, drawing, series_of, shape
from zipbatch.report.page.model import Chart, Confusion, Page
from zipbatch.report.page.pictures import inlined, share_of
from zipbatch.report.units import share_text
from zipbatch.spelling import as_read

SUFFIX = ".html"
LAYOUTS = (("wide", 760, 400), ("narrow", 380, 360))
"""Each chart is drawn for wide screens and for phones; the style sheet shows one."""
_OPEN = 8
"""Findings that are shown at once; more are in a list to open."""


def check_page(path: Path, flag: str) -> Path:
    """A file that a page can be written to, told before the work.

    Raises:
        UsageError: its suffix is not ``.html``, or its folder is not there.
    """
    if path.suffix.lower() != SUFFIX:
        raise UsageError(f"{flag} {path}: a report is written as {SUFFIX}; name such a file")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{flag} {path}: its folder is not there")
    if path.is_dir():
        raise UsageError(f"{flag} {path}: is a folder; name a file")
    return path


def write_page(path: Path, page: Page) -> None:
    """Publish a page; the file is there whole or not at all."""
    atomic.write_bytes(path, page_html(page).encode(errors="replace"))


def page_html(page: Page) -> str:
    """The page as HTML."""
    environment = _environment()
    pictures = sum(len(item.pictures) for gallery in page.galleries for tab in gallery.tabs for item in tab.items)
    script = _source("page.js")
    return environment.get_template("page.html").render(
        page=page,
        zipbatch=__version__,
        style=_source("page.css"),
        script=script,
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        inline=partial(inlined, most_bytes=share_of(pictures)),
        plots=[_plot(chart) for chart in page.charts],
        heat=_heat,
        findings_shown=_OPEN,
        share=share_text,
    )


@dataclass(frozen=True)
class _Plot:
    """A chart with its drawings and what its colours stand for: name, number and shape."""

    chart: Chart
    drawings: Sequence[tuple[str, Drawing]]
    legend: Sequence[tuple[str, int, str]]


def _plot(chart: Chart) -> _Plot:
    legend = [(name, number, shape(number, 8, 8, size=5)) for name, number in series_of(chart).items()]
    drawings = [(name, drawing(chart, width=width, height=height)) for name, width, height in LAYOUTS]
    return _Plot(chart, drawings, legend)


def _heat(confusion: Confusion, matrix: int) -> list[list[float]]:
    """How strongly each cell of a matrix is coloured: its share of its row, 0 to 1."""
    rows = confusion.matrices[matrix].counts
    return [[count / total if (total := sum(row)) else 0.0 for count in row] for row in rows]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("zipbatch.report.page"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=_shown,
    )
    environment.globals["series_count"] = SERIES
    return environment


def _shown(value: Any) -> Any:
    """Text without control characters, and without those that turn text around; settings as the reader has them."""
    return printable(as_read(value)) if type(value) is str else value


def _source(name: str) -> str:
    environment = _environment()
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]
