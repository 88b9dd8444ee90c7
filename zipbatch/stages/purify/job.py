"""A purify request, opened: its shards, purifier and store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zipbatch.cluster import Workers
from zipbatch.datasets import ShardDataset, open_dataset
from zipbatch.stages.assets import prior_path
from zipbatch.stages.purify.precision import decided
from zipbatch.stages.purify.request import PurifyRequest, PurifySettings
from zipbatch.stages.purify.resolve import purifier_spec
from zipbatch.stages.purify.spec import PurifierSpec
from zipbatch.stages.purify.trial import TRIAL
from zipbatch.storage import storage_path
from zipbatch.store import Store


@dataclass(frozen=True, kw_only=True)
class PurifyJob:
    """A job, opened: what to purify, how, and where to.

    Attributes:
        dataset: the shards.
        spec: the purifier, with its prior.
        store: where results are kept.
        workers: who does the work.
        settings: what else the request says.
        tag: to be moved to the result, beside ``latest``.
        latest: whether ``latest`` is to be moved; None: unless it keeps to another tag's line.
        trust_mtime: a bare shard of the size and mtime that an earlier run remembers has the digest that it had then.
        limit: a trial's images of each split; None for all.
    """

    dataset: ShardDataset
    spec: PurifierSpec
    store: Store
    workers: Workers
    settings: PurifySettings = PurifySettings()
    tag: str | None = None
    latest: bool | None = None
    trust_mtime: bool = False
    limit: int | None = None

    @property
    def quarantine(self) -> bool:
        """Whether samples that cannot be read are set aside."""
        return self.settings.quarantine

    @property
    def keep_others(self) -> bool:
        """Whether images beside a sample's own, an error otherwise, are passed on as they are."""
        return self.settings.other_images == "keep"


def opened_job(sources: Sequence[str], request: PurifyRequest, workers: Workers) -> PurifyJob:
    """Open what a request names.

    Args:
        sources: a staged dataset, or shards: files, folders, brace patterns, on a disk or in an object store.
        request: what is asked.
        workers: who does the work.

    Raises:
        UsageError: shards, prior or preset that are not there or do not fit, settings that do not apply.
    """
    spec = decided(purifier_spec(request, prior_path(request.prior) if request.prior else None), workers)
    return PurifyJob(
        dataset=open_dataset(sources, name=request.name),
        spec=spec,
        store=Store(storage_path(request.store)),
        workers=workers,
        settings=request,
        tag=request.tag if request.tag or request.limit is None else TRIAL,
        latest=request.latest if request.limit is None else False,
        trust_mtime=request.trust_mtime,
        limit=request.limit,
    )
