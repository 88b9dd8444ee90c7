"""``--track``: a command's numbers for the user's own tracking package."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from zipbatch.cli.run_context import run_context

if TYPE_CHECKING:
    from zipbatch.report.progress import Progress
    from zipbatch.tracking import Choice, Following

_ASKED = "zipbatch.track"


def _keep(context: click.Context, _option: click.Parameter, texts: tuple[str, ...]) -> None:
    if texts:
        from zipbatch.tracking import choice_of

        context.meta[_ASKED] = tuple(dict.fromkeys(map(choice_of, texts)))


TRACK = click.option(
    "--track",
    multiple=True,
    metavar="PACKAGE[:WHERE]",
    expose_value=False,
    callback=_keep,
    help="Write losses, CA, ASR and final numbers to mlflow, wandb or tensorboard, which you have installed; repeats. "
    "WHERE: a tracking URI, a project, a folder.",
)


def both(one: Callable[[Progress], None], other: Callable[[Progress], None]) -> Callable[[Progress], None]:
    """Tells two of how far work has got."""

    def tell(progress: Progress) -> None:
        one(progress)
        other(progress)

    return tell


@contextmanager
def tracked(name: str, settings: Mapping[str, Any]) -> Iterator[Following]:
    """The packages that ``--track`` asks for follow what is done in the block; an error there is a failed run.

    Args:
        name: of the run, for people.
        settings: with which it is run.
    """
    choices: tuple[Choice, ...] = click.get_current_context().meta.get(_ASKED, ())
    from zipbatch.tracking import Following, TrackedRun, flat_settings

    command = click.get_current_context().command_path.partition(" ")[2]
    run = TrackedRun(name or "zipbatch", run_context().run, flat_settings({"command": command, **settings}))
    following, ok = Following(choices, run), False
    try:
        yield following
        ok = True
    finally:
        following.close(ok=ok)
