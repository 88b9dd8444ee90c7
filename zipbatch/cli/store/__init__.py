"""``zipbatch store``: a subcommand a module."""

from __future__ import annotations

import click

from zipbatch.cli.lazy import LazyGroup


@click.group(
    cls=LazyGroup,
    modules={
        "diff": "zipbatch.cli.store.diff:diff",
        "export": "zipbatch.cli.store.export:export",
        "gc": "zipbatch.cli.store.gc:gc",
        "import": "zipbatch.cli.store.import_:import_",
        "ls": "zipbatch.cli.store.ls:ls",
        "show": "zipbatch.cli.store.show:show",
        "tag": "zipbatch.cli.store.tag:tag",
        "urls": "zipbatch.cli.store.urls:urls",
        "verify": "zipbatch.cli.store.verify:verify",
    },
)
def store() -> None:
    """Look into a store of purified shards, or add to it."""
