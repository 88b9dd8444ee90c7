"""Shard indexes in the format of ``wids`` 0.1, webdataset's reader by index: one for each split."""

from __future__ import annotations

import re
from typing import Any

from zipbatch.datasets.facts import Facts

_INDEX = re.compile(r"wids-[^/]+\.json")


def index_name(split: str) -> str:
    """The file beside the shards that indexes a split."""
    return f"wids-{split}.json"


def is_index(name: str) -> bool:
    """Whether a file beside shards is called as an index is."""
    return _INDEX.fullmatch(name) is not None


def index(facts: Facts, split: str) -> dict[str, Any]:
    """The index of a split: its shards in order, with their samples and bytes. URLs are relative to the index."""
    return {
        "__kind__": "wids-shard-index-v1",
        "wids_version": 1,
        "name": f"{facts.name}-{split}",
        "shardlist": [
            {"url": shard.name, "nsamples": shard.samples, "filesize": shard.size} for shard in facts.splits[split]
        ],
    }
