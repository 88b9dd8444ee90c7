"""Webdataset shards: a strict reader, a deterministic writer, and the staged dataset around them."""

from zipbatch.shards.dataset import ShardDataset, ShardRef, StagedManifest, write_manifest
from zipbatch.shards.opening import open_dataset
from zipbatch.shards.reader import Limits, read_shard
from zipbatch.shards.sample import Sample
from zipbatch.shards.writer import ShardInfo, ShardWriter

__all__ = [
    "Limits",
    "Sample",
    "ShardDataset",
    "ShardInfo",
    "ShardRef",
    "ShardWriter",
    "StagedManifest",
    "open_dataset",
    "read_shard",
    "write_manifest",
]
