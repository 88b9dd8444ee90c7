"""Answers that a store keeps: what a victim answered on a shard's images once is not asked again."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from zipbatch import atomic
from zipbatch.stages.evaluate.pieces import EvaluateTask
from zipbatch.stages.evaluate.victims import KnownVictim, Replies
from zipbatch.storage.retries import RefusedError
from zipbatch.store import ShardAnswers, Store
from zipbatch.victims import VictimSource

log = logging.getLogger(__name__)

ASKING_VERSION = 1
"""Raised whenever images are brought to victims in another way."""


def victim_digest(victim: VictimSource, device: torch.device) -> str | None:
    """The name of a victim's answers; None where nobody can know that they will be the same tomorrow."""
    decided_by = _decided_by(victim, device)
    return None if decided_by is None else atomic.sha256_json(decided_by)


def _decided_by(victim: VictimSource, device: torch.device) -> dict[str, Any] | None:
    found = victim.decided_by(device)
    return None if found is None else {**found, "asking": ASKING_VERSION}


def note_victim(store: Store, victim: KnownVictim) -> None:
    """Note how many classes a victim knows that computes elsewhere, so that it need not be asked for that again."""
    decided_by = _decided_by(victim.source, torch.device("cpu"))
    if decided_by is not None:
        with _unless_refused(store):
            store.answers.note_victim(atomic.sha256_json(decided_by), decided_by, classes=victim.num_classes)


@contextmanager
def _unless_refused(store: Store) -> Iterator[None]:
    """Answers are worth having where the store cannot be written to."""
    try:
        yield
    except (OSError, RefusedError) as error:
        log.warning("%s: answers are not kept: %s", store.root, getattr(error, "strerror", None) or error)


class KeptAnswers:
    """The answers of one victim in a store.

    Args:
        store: where they are.
        victim: its digest.
        classes: how many it knows.
    """

    def __init__(self, store: Store, victim: str, classes: int) -> None:
        self._store, self.victim, self._classes = store, victim, classes

    def of(self, task: EvaluateTask, digest: str) -> list[ShardAnswers | None]:
        """What is kept on each form of a shard of that digest: as it came, then purified."""
        return [None if shard is None else self._on(shard, _quarantine(task)) for shard in shards_of(task, digest)]

    def as_it_came(self, task: EvaluateTask, digest: str) -> ShardAnswers | None:
        """What is kept on a shard of that digest as it came."""
        return self._on(digest, _quarantine(task))

    def _on(self, shard: str, quarantine: tuple[str, ...]) -> ShardAnswers | None:
        found = self._store.answers.read(self.victim, shard)
        fits = found is not None and found.quarantine == quarantine and found.classes == self._classes
        return found if fits else None

    def keep(
        self,
        task: EvaluateTask,
        digest: str,
        keys: Sequence[str],
        replies: Sequence[Replies | None],
        *,
        besides: Sequence[ShardAnswers | None],
    ) -> None:
        """Keep what was answered on each form, besides those that are kept."""
        for shard, given, known in zip(shards_of(task, digest), replies, besides, strict=True):
            if shard is not None and given is not None and known is None:
                self._put(
                    ShardAnswers(
                        victim=self.victim,
                        shard=shard,
                        quarantine=_quarantine(task),
                        classes=self._classes,
                        keys=tuple(keys),
                        answers=tuple(given.answers.tolist()),
                        shares=tuple(given.shares.tolist()),
                    )
                )

    def keep_again(self, kept: ShardAnswers, again: dict[str, int]) -> None:
        """Keep what was answered when the victim was asked once more."""
        self._put(kept.model_copy(update={"again": {**kept.again, **again}}))

    def forget(self, task: EvaluateTask, digest: str) -> None:
        """Take back what is kept on a shard."""
        for shard in shards_of(task, digest):
            if shard is not None:
                self._store.answers.remove(self.victim, shard)

    def _put(self, answers: ShardAnswers) -> None:
        with _unless_refused(self._store):
            self._store.answers.put(answers)


def shards_of(task: EvaluateTask, digest: str) -> list[str | None]:
    """The digests of a shard's forms; objects of a store are named by theirs."""
    return [digest, *(None if path is None else path.stem for path in task.purified)]


def _quarantine(task: EvaluateTask) -> tuple[str, ...]:
    return tuple(sorted({path.name for path in task.quarantine}))
