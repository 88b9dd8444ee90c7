"""Webdataset shards: a strict reader and a deterministic writer."""

from zipbatch.shards.reader import Limits, read_shard
from zipbatch.shards.sample import Sample
from zipbatch.shards.writer import ShardInfo, ShardWriter

__all__ = [
    "Limits",
    "Sample",
    "ShardInfo",
    "ShardWriter",
    "read_shard",
]
