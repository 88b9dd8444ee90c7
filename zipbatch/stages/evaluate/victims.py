"""Victims as the stages see them: found by what the user typed, asked for what they don't say, their classes named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zipbatch.checkpoints import VictimFolder, open_victim
from zipbatch.datasets import ShardDataset
from zipbatch.endpoints import HttpVictim, PythonVictim
from zipbatch.errors import DataError, UsageError
from zipbatch.images import U8
from zipbatch.shards.digest import read_listed
from zipbatch.stages.assets import victim_path
from zipbatch.victims import Classifier, VictimSource, checked_scores

SHARE_PLACES = 6
"""Decimal places of shares: as they are kept, so they are used."""
_ROUNDING, _ROUNDED_SUM = 1e-6, 0.05
"""Shares may be below 0 by so much, and their sum that far from 1: endpoints round, some to two places."""


class Replies(NamedTuple):
    """What a victim says of N images: its answers, int64 [N], and the share of 1 that it gives each, float64 [N]."""

    answers: npt.NDArray[np.int64]
    shares: npt.NDArray[np.float64]


@dataclass(frozen=True)
class KnownVictim:
    """A victim and the width of its scores, which is known by now."""

    source: VictimSource
    num_classes: int


def find_victim(text: str) -> VictimSource:
    """The victim that a user names: ``http(s)://…``, ``python:…:FUNCTION``, ``embedded:ATTACK``, or else a folder.

    Only for what was typed on a command line: naming a function is the consent to run it. A path that comes from a
    file is for ``open_victim``.

    Raises:
        UsageError: no such folder or file, an unfit config, or an address that is none.
    """
    if text.startswith(("http://", "https://")):
        return HttpVictim.parse(text)
    if text.startswith("python:"):
        return PythonVictim.parse(text)
    return open_victim(victim_path(text))


def num_classes(victim: VictimSource, dataset: ShardDataset) -> int:
    """How many classes a victim knows; where it does not say, it is asked about an image of the data.

    Raises:
        UsageError: it has to be asked and cannot be, gives no class scores, or there is no image to ask about.
    """
    if victim.num_classes is not None:
        return victim.num_classes
    return _ask_about(victim, _some_image(victim, dataset))


def _some_image(victim: VictimSource, dataset: ShardDataset) -> U8:
    """The first image that can be read; others may be in quarantine."""
    unread: DataError | None = None
    for shard in dataset.shards:
        for sample in read_listed(shard.path, shard.sha256, imageless=True):
            try:
                return sample.image()
            except DataError as error:
                unread = unread or error
    if unread is not None:
        raise unread
    raise UsageError(f"{dataset.name}: holds no image; {victim.name} must be asked about one to know its classes")


def _ask_about(victim: VictimSource, image: U8) -> int:
    try:
        scores = checked_scores(victim.load(torch.device("cpu")).classify(image[None]), images=1)
    except DataError as error:
        raise UsageError(str(error)) from error
    except ValueError as error:
        raise UsageError(f"{victim.label}: {error}") from error
    return int(scores.shape[1])


def ask(
    victim: VictimSource,
    classifier: Classifier,
    images: Tensor,
    *,
    classes: int,
    batch_size: int = 128,
    before_batch: Callable[[], None] = lambda: None,
) -> Replies:
    """The class with the highest score (the first of equals) of each of uint8 images [N, 3, H, W], and the share of 1
    that a loaded victim gives it: its softmax, or the score itself where scores are shares of 1 already.

    Args:
        victim: for messages.
        classifier: who is asked.
        images: on the CPU.
        classes: how many scores an image must get.
        batch_size: images asked about at once.
        before_batch: called before each batch; may raise to stop.

    Raises:
        DataError: it cannot be reached, failed, or gave something else than ``classes`` scores an image.
    """
    answers, shares = [np.empty(0, np.int64)], [np.empty(0)]
    for rows in torch.split(images, batch_size) if len(images) else ():
        before_batch()
        try:
            given = classifier.classify(np.ascontiguousarray(rows.permute(0, 2, 3, 1).numpy()))
            scores = checked_scores(given, images=len(rows), classes=classes)
        except ValueError as error:
            raise DataError(victim.label, str(error)) from error
        answers.append(scores.argmax(axis=1))
        shares.append(_shares(scores.astype(np.float64)).max(axis=1).round(SHARE_PLACES))
    return Replies(np.concatenate(answers), np.concatenate(shares))


def _shares(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Scores [N, classes] as shares of 1, each row by itself; infinities, scores too, count as large numbers."""
    finite = scores.clip(-1e30, 1e30)
    raised = np.exp(finite - finite.max(axis=1, keepdims=True))
    are_shares = (finite >= -_ROUNDING).all(axis=1) & (np.abs(finite.sum(axis=1) - 1) <= _ROUNDED_SUM)
    shares: npt.NDArray[np.float64] = np.where(
        are_shares[:, None], finite.clip(0, 1), raised / raised.sum(axis=1, keepdims=True)
    )
    return shares


def classes_of(victim: VictimSource, dataset: ShardDataset) -> Sequence[str] | None:
    """The names of the classes: the data's, else the victim's own where it has any."""
    if dataset.classes is not None:
        return dataset.classes
    return victim.spec.classes or None if isinstance(victim, VictimFolder) else None


def class_name(index: int, classes: Sequence[str] | None) -> str:
    """What a report calls a class: its name; ``class N`` beyond the names, ``N`` where none has a name."""
    if classes is None:
        return str(index)
    return classes[index] if index < len(classes) else f"class {index}"
