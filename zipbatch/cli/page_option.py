"""``--report``: the page that a command leaves, and what the page says of the run."""

from __future__ import annotations

import platform
import re
import shlex
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zipbatch import __version__
from zipbatch.cli.run_context import run_context
from zipbatch.report.units import clock_text

if TYPE_CHECKING:
    from zipbatch.report.page.model import Page, Provenance

_ASKED = "zipbatch.report"
_LIBRARIES = ("torch", "torchvision", "numpy", "pillow", "diffusers", "ray")
_USER = re.compile(r"(?<=://)[^/@\s]+@")


def _keep(context: click.Context, _option: click.Parameter, path: Path | None) -> None:
    if path is not None:
        from zipbatch.report.page.html import check_page

        context.meta[_ASKED] = check_page(path, "--report")


REPORT = click.option(
    "--report",
    type=click.Path(path_type=Path),
    metavar="FILE.html",
    expose_value=False,
    callback=_keep,
    help="Write a report with pictures: one file that needs no network.",
)


def asked_page() -> Path | None:
    """Where the page goes that ``--report`` asks for."""
    found = click.get_current_context().meta.get(_ASKED)
    assert found is None or isinstance(found, Path)
    return found


def leave_page(path: Path, page: Page) -> None:
    """Publish a page and say so on stderr."""
    from zipbatch.report.page.html import write_page

    write_page(path, page)
    click.echo(f"report: {path}", err=True)


def this_run() -> Provenance:
    """The command line and what it was carried out with; user names and passwords in addresses are left out."""
    from zipbatch.report.page.model import Fact, Facts, Provenance

    noted = run_context()
    words = ["zipbatch", *(_USER.sub("", word) for word in sys.argv[1:])]
    facts = [
        Fact(name="run", text=noted.run, code=True),
        Fact(name="started", text=datetime.fromtimestamp(noted.started, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")),
        Fact(name="took", text=f"{clock_text(time.monotonic() - noted.clock)} until this report was written"),
        Fact(name="zipbatch", text=__version__),
        Fact(name="python", text=f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        *(Fact(name=name, text=found) for name in _LIBRARIES if (found := _version(name)) is not None),
    ]
    return Provenance(shlex.join(words), [Facts("This run", facts)])


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
