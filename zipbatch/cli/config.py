"""``zipbatch config``."""

from __future__ import annotations

import click

from zipbatch.cli.options import JSON, emit_json
from zipbatch.cli.user_defaults import source_of
from zipbatch.user_config import FILE_NAME, SETTINGS, user_defaults


@click.command()
@JSON
def config(as_json: bool) -> None:
    """Show the defaults that hold here, and where each comes from.

    A flag wins over an environment variable (ZIPBATCH_STORE, ZIPBATCH_PRIOR), that over the file zipbatch.toml, which
    is looked for here and in every folder above. ZIPBATCH_CONFIG=FILE names another, ZIPBATCH_CONFIG=none takes none.

    \b
    Example of a zipbatch.toml:
      store = "pur/"                 # paths are meant from the folder of this file
      prior = "embedded"
      [commands.purify]              # flags of a command, without their dashes
      preset = "fast"
      batch-size = 64
      [commands."store gc"]
      grace = "14d"
    """
    defaults = user_defaults()
    rows = source_of(defaults)
    if as_json:
        emit_json({"file": None if defaults.file is None else str(defaults.file), "defaults": rows})
        return
    click.echo(f"file: {defaults.file or f'no {FILE_NAME} here or above'}")
    for row in rows:
        click.echo(f"  {row['setting']} = {row['value']}   ({row['source']})")
    for name in SETTINGS:
        if name not in defaults.settings:
            click.echo(f'  {name}: not set; set {SETTINGS[name]}, or {name} = "…" in {FILE_NAME}')
