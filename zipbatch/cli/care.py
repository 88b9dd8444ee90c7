"""``zipbatch store tag|gc|diff|export``: what looks after a store or takes out of it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zipbatch.cli.options import JSON, emit_json
from zipbatch.cli.screen import screen
from zipbatch.places import Place, place
from zipbatch.report.units import size_text

if TYPE_CHECKING:
    from zipbatch.store import Garbage
    from zipbatch.store.diff import VersionDiff

STORE = click.option("--store", required=True, type=place, metavar="DIR|URL", help="The store.")
_LISTED = 20


class _Age(click.ParamType[float]):
    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from zipbatch.store.gc import age_s

        try:
            return age_s(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command()
@click.argument("reference", metavar="NAME[@TAG-OR-VERSION]")
@click.argument("new", metavar="[NEWTAG]", required=False)
@STORE
@click.option("--delete", is_flag=True, help="Remove the tag NAME@TAG instead; its version stays.")
@JSON
def tag(reference: str, new: str | None, store: Place, delete: bool, as_json: bool) -> None:
    """Make a tag, move one, or remove one.

    A tag keeps its version from 'gc'. 'latest' cannot be removed while there are versions.

    \b
    Examples:
      zipbatch store tag cifar10-badnets@nightly release-1 --store pur/
      zipbatch store tag cifar10-badnets@release-1 --delete --store pur/
    """
    from zipbatch.store import Store, parse_reference
    from zipbatch.store.tagging import delete_tag, point_tag

    if delete == (new is not None):
        raise click.UsageError("name NEWTAG to make or move a tag, or --delete to remove NAME@TAG")
    if delete and "@" not in reference:
        raise click.UsageError(f"--delete: say which tag, as in {reference}@TAG")
    dataset, old = parse_reference(reference)
    version = delete_tag(Store(store), dataset, old) if new is None else point_tag(Store(store), reference, new)
    if as_json:
        emit_json({"dataset": dataset, "tag": new or old, "version": version, "deleted": delete})
        return
    click.echo(f"{dataset}@{new or old}: {'removed, was' if delete else 'now'} version {version}")


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
def gc(store: Place, versions: str, older_than: float, grace: float, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Remove objects and records that no version needs, and forget versions if asked to.

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
    )


def _show_garbage(garbage: Garbage, *, as_json: bool) -> None:
    records = garbage.records
    if as_json:
        counts = {"objects": len(garbage.objects), "bytes": garbage.bytes, "tasks": records}
        kept = {"kept_versions": garbage.kept_versions, "kept_objects": garbage.kept_objects}
        emit_json({"removed": False, "versions": list(garbage.versions), **counts, **kept})
        return
    _list("version", garbage.versions)
    click.echo(
        f"{len(garbage.versions)} versions, {len(garbage.objects)} objects ({size_text(garbage.bytes)}) and {records} "
        f"records would go; {garbage.kept_versions} versions with {garbage.kept_objects} objects stay"
    )
    if garbage.versions or garbage.objects or records:
        click.echo("nothing was removed; --yes removes it")


def _list(what: str, names: tuple[str, ...]) -> None:
    for name in names[:_LISTED]:
        click.echo(f"  {what} {name}")
    if len(names) > _LISTED:
        click.echo(f"  … and {len(names) - _LISTED} more")


@click.command()
@click.argument("a", metavar="NAME[@TAG]")
@click.argument("b", metavar="NAME[@TAG]")
@STORE
@JSON
def diff(a: str, b: str, store: Place, as_json: bool) -> None:
    """Say what differs between two versions: settings, shards, inputs, outputs, counts.

    \b
    Example:
      zipbatch store diff incoming@yesterday incoming --store pur/
    """
    from zipbatch.store import Store, Versions
    from zipbatch.store.diff import diff_versions

    versions = Versions(Store(store))
    found = diff_versions(versions.read(a), versions.read(b))
    if as_json:
        emit_json(asdict(found))
        return
    _show_diff(found)


def _show_diff(found: VersionDiff) -> None:
    click.echo(f"a: {found.a}\nb: {found.b}")
    for name, (one, other) in found.settings.items():
        click.echo(f"  {name}: {one} -> {other}")
    for split, (one, other) in found.counts.items():
        click.echo(f"  {split}: {_counts(one)} -> {_counts(other)}")
    _list("only in a:", found.only_a)
    _list("only in b:", found.only_b)
    _list("other input:", found.inputs)
    _list("other output:", found.outputs)
    click.echo(
        f"{found.same} shards the same, {len(found.outputs)} with another output, {len(found.inputs)} from another "
        f"input, {len(found.only_a)} only in a, {len(found.only_b)} only in b"
    )


def _counts(counts: dict[str, int] | None) -> str:
    if counts is None:
        return "none"
    aside = f" (+{counts['quarantined']} quarantined)" if "quarantined" in counts else ""
    return f"{counts['samples']} images{aside} in {counts['shards']} shards"


@click.command()
@click.argument("reference", metavar="NAME[@TAG]")
@click.argument("out", metavar="DIR", type=click.Path(path_type=Path))
@STORE
@click.option(
    "--as",
    "form",
    type=click.Choice(["shards", "images"]),
    default="shards",
    show_default=True,
    help="Shards under the names of their inputs, or a tree <split>/<class>/<key>.png.",
)
@click.option("--data", metavar="STAGED", help="What it was made from: its classes, and its manifest if it is staged.")
@click.option("--split", "splits", multiple=True, metavar="NAME", help="Only this split; repeats.")
@click.option("--copy", is_flag=True, help="Copy shards even where hard links would do.")
@click.option("--true-labels", is_flag=True, help="Sort images by what they show, not by the label of poisoned ones.")
@JSON
def export(
    reference: str,
    out: Path,
    store: Place,
    form: str,
    data: str | None,
    splits: tuple[str, ...],
    copy: bool,
    true_labels: bool,
    as_json: bool,
) -> None:
    """Put a version into a plain folder DIR, which must be new, or have all of it already.

    Hard links share their bytes with the store: do not write into them, or say --copy. What is in quarantine stays in
    the store.

    \b
    Examples:
      zipbatch store export cifar10-badnets@nightly purified/ --data shards/cifar10-badnets --store pur/
      zipbatch store export incoming images/ --as images --store pur/
    """
    from zipbatch.shards import open_dataset
    from zipbatch.stages.export import ExportRequest, export_images, export_shards
    from zipbatch.store import Store, Versions

    if form == "shards" and true_labels:
        raise click.UsageError("--true-labels goes with --as images; shards keep all their labels")
    if form == "images" and copy:
        raise click.UsageError("--copy goes with --as shards; images are files of their own in any case")
    opened = Store(store)
    version = Versions(opened).read(reference)
    dataset = None if data is None else open_dataset([data])
    request = ExportRequest(opened, version, out, dataset, splits, copy, true_labels)
    run = export_shards if form == "shards" else export_images
    with screen() as shown:
        what = f"exporting {version.reference}"
        shown.begin(what)
        done = run(request, on_progress=shown.counter(what, "images"))
    if as_json:
        emit_json({**asdict(done), "out": str(out)})
        return
    there = ", there already" if done.reused else ""
    click.echo(f"{out}: {done.samples} images of {done.shards} shards of {done.reference}{there}")
    if done.quarantined:
        click.echo(f"  {done.quarantined} more are in quarantine and stay there: see 'zipbatch store show {reference}'")


COMMANDS = (tag, gc, diff, export)
