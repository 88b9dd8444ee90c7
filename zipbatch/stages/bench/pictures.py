"""Shards to measure with: a user's own images, or the shipped ones at the size that is needed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from zipbatch import images
from zipbatch.datasets import open_dataset
from zipbatch.errors import UsageError
from zipbatch.shards import Sample, ShardWriter, read_shard
from zipbatch.stages.assets import sample_source


class Pictures:
    """Takes pictures from where they are, round and round, each time under another key.

    Args:
        data: shards as for purify; None for the shipped pictures.
        side: that shipped pictures are stretched to; a user's own stay as they are.
    """

    def __init__(self, data: str | None, side: int) -> None:
        self._data, self._side = data, side
        self._samples = self._endless()

    def write(self, folder: Path, *, shards: int, samples: int) -> list[Path]:
        """So many shards of so many images each.

        Raises:
            UsageError: there are no images.
            DataError: one cannot be read.
        """
        folder.mkdir(parents=True)
        return [self._written(folder, number, samples) for number in range(shards)]

    def _written(self, folder: Path, number: int, samples: int) -> Path:
        shard = folder / f"test-{number:06d}.tar"
        with ShardWriter(folder) as writer:
            for sample in islice(self._samples, samples):
                writer.write(sample)
            writer.finish()
            writer.publish(shard)
        return shard

    def _endless(self) -> Iterator[Sample]:
        found = open_dataset([str(sample_source()) if self._data is None else self._data])
        number = 0
        while True:
            before = number
            for shard in found.shards:
                for sample in read_shard(shard.path):
                    yield Sample(f"{number:08d}", self._members(sample))
                    number += 1
            if number == before:
                raise UsageError(f"{self._data}: holds no images to measure with")

    def _members(self, sample: Sample) -> dict[str, bytes]:
        """As they are, so that they are as quick to decode; a shipped picture at the size that is needed."""
        if self._data is not None:
            return sample.members
        return {"png": images.encode_png(images.stretch(sample.image(), self._side, self._side))}
