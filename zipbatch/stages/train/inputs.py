"""What a training run is given, opened: images, a victim to begin with, a prior to teach."""

from __future__ import annotations

from dataclasses import replace

from zipbatch.checkpoints import PriorFolder, open_prior
from zipbatch.checkpoints.victim import VictimFolder, open_victim
from zipbatch.datasets import ShardDataset, open_dataset
from zipbatch.datasets.source import Source, open_source
from zipbatch.errors import UsageError
from zipbatch.stages.assets import embedded_prior, prior_path, source_place, victim_path
from zipbatch.stages.purified import with_purified
from zipbatch.stages.resizing import ResizedRequest
from zipbatch.stages.train.request import VictimRequest
from zipbatch.storage import storage_path
from zipbatch.store import Store


def staged_images(staged: str, request: VictimRequest) -> ShardDataset:
    """A staged dataset, its split ``train`` in the purified form where one is asked for.

    Raises:
        UsageError: no such dataset or version, or one that does not hold that split.
    """
    dataset = open_dataset([staged])
    if request.purified is None or request.store is None:
        return dataset
    store = Store(storage_path(request.store))
    return with_purified(dataset, store.versions.read(request.purified), store, split="train")


def opened_start(request: VictimRequest) -> VictimFolder | None:
    """The victim whose weights training begins with, where one is asked for.

    Raises:
        UsageError: no such victim.
    """
    return None if request.start is None else open_victim(victim_path(request.start))


def opened_source(source: str, asked: ResizedRequest, *, split: str | None = None) -> Source:
    """Images of a source, labels not needed.

    Args:
        source: as for 'zipbatch poison', or 'embedded'.
        asked: the size that images are brought to, and how.
        split: the only one to be taken; None for all.

    Raises:
        UsageError: no such source, or it has no such split.
    """
    opened = open_source(source_place(source), () if split is None else (split,), labelled=False)
    return replace(opened, size=asked.image_size, resize=asked.resize)


def own_prior(prior: str, *, otherwise: str) -> PriorFolder:
    """A prior into whose folder something is to be written: any but the one that ships.

    Args:
        prior: as for 'zipbatch purify --prior'.
        otherwise: what to tell of the one that ships.

    Raises:
        UsageError: no such prior, or the one that ships.
    """
    folder = open_prior(prior_path(prior))
    if folder.path == embedded_prior():
        raise UsageError(f"{folder.path}: ships with zipbatch{otherwise}")
    return folder
