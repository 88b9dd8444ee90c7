"""``zipbatch store``: a subcommand a module."""

from __future__ import annotations

import click

from zipbatch.cli.lazy import LazyGroup, Listed


@click.group(
    cls=LazyGroup,
    listed={
        "diff": Listed("zipbatch.cli.store.diff:diff", "Say what differs between two versions."),
        "export": Listed("zipbatch.cli.store.export:export", "Put a version into a plain folder."),
        "gc": Listed("zipbatch.cli.store.gc:gc", "Remove what no version needs, forget versions."),
        "import": Listed("zipbatch.cli.store.import_:import_", "Take images that another tool purified as a version."),
        "ls": Listed("zipbatch.cli.store.ls:ls", "List datasets with their versions and tags."),
        "show": Listed("zipbatch.cli.store.show:show", "Show a version: purifier, counts, shards."),
        "sign": Listed("zipbatch.cli.store.sign:sign", "Sign a version with a key of yours."),
        "tag": Listed("zipbatch.cli.store.tag:tag", "Make a tag, move one, or remove one."),
        "urls": Listed("zipbatch.cli.store.urls:urls", "Print a path or URL a line, ready for webdataset."),
        "verify": Listed("zipbatch.cli.store.verify:verify", "Check every byte and every reference."),
    },
)
def store() -> None:
    """Look into a store of purified shards, or add to it."""
