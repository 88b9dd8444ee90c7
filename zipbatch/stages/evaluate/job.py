"""An evaluate request, opened: its victims, shards and store."""

from __future__ import annotations

from dataclasses import dataclass

from zipbatch.cluster import Workers
from zipbatch.datasets import ShardDataset, open_dataset
from zipbatch.stages.evaluate.request import EvaluateRequest
from zipbatch.stages.evaluate.victims import find_victim
from zipbatch.storage import storage_path
from zipbatch.store import Store
from zipbatch.victims import VictimSource


@dataclass(frozen=True, kw_only=True)
class EvaluateJob:
    """What to measure.

    Attributes:
        victims: whom to ask.
        dataset: the images as they came.
        data_label: these as they were named; it is repeated in the rows, and so are the labels of the victims.
        purified: versions in the store, ``NAME[@TAG]``.
        store: of the versions.
        workers: who does the work.
        splits: to measure on; empty for all that are no training data.
        labels_needed: without, staged data whose labels cannot be used is measured without them, as bare shards are.
        keep: keep answers in the store, and ask about nothing of which they are there; no measures are taken then.
    """

    victims: tuple[VictimSource, ...]
    dataset: ShardDataset
    data_label: str
    purified: tuple[str, ...] = ()
    store: Store | None = None
    workers: Workers = Workers()
    splits: tuple[str, ...] = ()
    labels_needed: bool = True
    keep: bool = False


def opened_job(request: EvaluateRequest, workers: Workers) -> EvaluateJob:
    """Open what a request names.

    Raises:
        UsageError: victims, shards or a store that are not there or are no such thing.
    """
    return EvaluateJob(
        victims=tuple(find_victim(text) for text in request.victims),
        dataset=open_dataset(request.data),
        data_label=" ".join(request.data),
        purified=request.purified,
        store=None if request.store is None else Store(storage_path(request.store)),
        workers=workers,
    )
