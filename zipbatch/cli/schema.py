"""``zipbatch schema``."""

from __future__ import annotations

import click

from zipbatch.cli.options import emit_json

# As in results/schema.py, which --help need not import.
_KINDS = ("evaluate", "tune", "audit", "bench", "run", "evaluate-per-image", "per-image")


@click.command()
@click.argument("result", type=click.Choice(_KINDS))
def schema(result: str) -> None:
    """Print the JSON schema of what a command prints with --json: each field's meaning, type and unit.

    per-image is a line of what 'zipbatch audit --per-image FILE.jsonl' writes, evaluate-per-image one of 'zipbatch
    evaluate'; the fields are the columns of the .csv.

    \b
    Example:
      zipbatch schema evaluate
    """
    from zipbatch.results.schema import schema_of

    emit_json(schema_of(result))
