"""``zipbatch store diff``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from zipbatch.cli.options import JSON, emit_json
from zipbatch.cli.store.options import STORE, list_names
from zipbatch.storage import StoragePath

if TYPE_CHECKING:
    from zipbatch.store.diff import VersionDiff


@click.command()
@click.argument("a", metavar="NAME[@TAG]")
@click.argument("b", metavar="NAME[@TAG]")
@STORE
@JSON
def diff(a: str, b: str, store: StoragePath, as_json: bool) -> None:
    """Say what differs between two versions: settings, shards, inputs, outputs, counts.

    \b
    Example:
      zipbatch store diff incoming@yesterday incoming --store pur/
    """
    from zipbatch.store import Store
    from zipbatch.store.diff import diff_versions
    from zipbatch.store.signatures import signed_by

    opened = Store(store)
    left, right = opened.versions.read(a), opened.versions.read(b)
    found = diff_versions(left, right)
    signed = [signed_by(opened, one.header.dataset, one.header.version) for one in (left, right)]
    if as_json:
        emit_json({**asdict(found), **({"signed_by": signed} if any(signed) else {})})
        return
    _show_diff(found)
    if any(signed):
        one, other = (", ".join(f"sha256:{who}" for who in keys) or "nobody" for keys in signed)
        click.echo(f"signed by: {one} -> {other}")


def _show_diff(found: VersionDiff) -> None:
    click.echo(f"a: {found.a}\nb: {found.b}")
    for name, (one, other) in found.settings.items():
        click.echo(f"  {name}: {one} -> {other}")
    for split, (one, other) in found.counts.items():
        click.echo(f"  {split}: {_counts(one)} -> {_counts(other)}")
    list_names("only in a:", found.only_a)
    list_names("only in b:", found.only_b)
    list_names("other input:", found.inputs)
    list_names("other output:", found.outputs)
    click.echo(
        f"{found.same} shards the same, {len(found.outputs)} with another output, {len(found.inputs)} from another "
        f"input, {len(found.only_a)} only in a, {len(found.only_b)} only in b"
    )


def _counts(counts: dict[str, int] | None) -> str:
    if counts is None:
        return "none"
    aside = f" (+{counts['quarantined']} quarantined)" if "quarantined" in counts else ""
    return f"{counts['samples']} images{aside} in {counts['shards']} shards"
