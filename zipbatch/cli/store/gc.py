"""``zipbatch store gc``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from zipbatch.cli.options import JSON, emit_json
from zipbatch.cli.render import screen
from zipbatch.cli.store.options import STORE, list_names
from zipbatch.report.units import size_text
from zipbatch.storage import StoragePath

if TYPE_CHECKING:
    from zipbatch.store import Garbage


class _Age(click.ParamType[float]):
    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from zipbatch.store.gc import age_s

        try:
            return age_s(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command()
@STORE
@click.option(
    "--versions",
    type=click.Choice(["none", "untagged"]),
    default="none",
    show_default=True,
    help="Versions to forget.",
)
@click.option(
    "--older-than",
    type=_Age(),
    default="30d",
    show_default=True,
    metavar="AGE",
    help="Forget versions only whose run started longer ago (30d, 12h).",
)
@click.option(
    "--grace",
    type=_Age(),
    default="7d",
    show_default=True,
    metavar="AGE",
    help="Keep younger objects and records, even where no version needs them.",
)
@click.option("--yes", is_flag=True, help="Remove it; without this, only say what would go.")
@click.option("--dry-run", is_flag=True, help="Say what would go, even with --yes.")
@JSON
def gc(
    store: StoragePath, versions: str, older_than: float, grace: float, yes: bool, dry_run: bool, as_json: bool
) -> None:
    """Remove objects, records and answers of victims that no version needs, and forget versions if asked to.

    Nothing is removed without --yes. Safe beside running purifies: what they come to use meanwhile is kept, or made
    anew by them.

    \b
    Examples:
      zipbatch store gc --store pur/                                             # what would go?
      zipbatch store gc --store pur/ --versions untagged --older-than 30d --yes
    """
    from zipbatch.store import GcPolicy, Store, collect, find_garbage

    opened, policy = Store(store), GcPolicy(older_than if versions == "untagged" else None, grace)
    with screen() as shown:
        shown.begin(f"looking through {store}")
        garbage = find_garbage(opened, policy)
        gone = None
        if yes and not dry_run:
            what = f"removing from {store}"
            shown.begin(what, f"{len(garbage.objects)} objects, {size_text(garbage.bytes)}")
            gone = collect(opened, garbage, on_progress=shown.counter(what, "objects"))
    if gone is None:
        _show_garbage(garbage, as_json=as_json)
        return
    if as_json:
        emit_json({"removed": True, **asdict(gone)})
        return
    click.echo(
        f"removed {len(gone.versions)} versions, {gone.objects} objects ({size_text(gone.bytes)}), {gone.tasks} records"
        + (f", {gone.answers} files of answers of victims" if gone.answers else "")
    )


def _show_garbage(garbage: Garbage, *, as_json: bool) -> None:
    records = garbage.records
    if as_json:
        counts = {
            "objects": len(garbage.objects),
            "bytes": garbage.bytes,
            "tasks": records,
            "answers": len(garbage.answers),
        }
        kept = {"kept_versions": garbage.kept_versions, "kept_objects": garbage.kept_objects}
        emit_json({"removed": False, "versions": list(garbage.versions), **counts, **kept})
        return
    list_names("version", garbage.versions)
    click.echo(
        f"{len(garbage.versions)} versions, {len(garbage.objects)} objects ({size_text(garbage.bytes)}) and {records} "
        f"records would go; {garbage.kept_versions} versions with {garbage.kept_objects} objects stay"
    )
    if garbage.answers:
        click.echo(f"{len(garbage.answers)} files of answers of victims would go, too")
    if garbage.versions or garbage.objects or records or garbage.answers:
        click.echo("nothing was removed; --yes removes it")
