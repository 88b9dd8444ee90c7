"""Answers that no verdict can be built on: of a victim that changes them, or answers everything alike.

A class that loses images is what the audit looks for. So is what a victim does that answers at random, or that was
replaced halfway: it must not be mistaken for a backdoored one.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch

from zipbatch.checkpoints import VictimFolder
from zipbatch.errors import WorkFailed
from zipbatch.images import U8
from zipbatch.stages.evaluate.answers import Answers
from zipbatch.stages.evaluate.kept import KeptAnswers
from zipbatch.stages.evaluate.pictures import Form, pictures
from zipbatch.stages.evaluate.plan import EvaluatePlan
from zipbatch.stages.evaluate.victims import ask
from zipbatch.stages.evaluate.worker import replies_by_size

ASKED_TWICE = 64
"""Images of all shards together that are asked about a second time, when all have been asked about once."""
MAY_CHANGE = 0.05
"""Share of them that may get another answer; near ties may fall either way."""
ONE_CHANGE = 1
"""So many changes are no evidence, among however few images."""
ALIKE_FROM = 20
"""Images from which on it says something that all get the same answer."""
_BATCH = 8
"""Images to a request: behind one address there may be several that answer in turn."""

Place = tuple[int, str]
"""The number of an image's shard, and its key."""


@dataclass(frozen=True)
class Twice:
    """The answers on some images, the first time and the second."""

    first: Mapping[Place, int] = field(default_factory=dict)
    second: Mapping[Place, int] = field(default_factory=dict)

    @property
    def asked(self) -> int:
        """How many images the victim was asked about twice."""
        return len(self.second)

    @property
    def changed(self) -> int:
        """Of them, those that got another answer the second time."""
        return sum(self.first[place] != answer for place, answer in self.second.items())

    @property
    def share(self) -> float | None:
        """The share that did; None where none was asked about."""
        return self.changed / self.asked if self.asked else None


def asked_twice(answers: Answers, kept: KeptAnswers | None) -> Twice:
    """Ask about some images as they came once more, but for those of which the second answer is kept, too.

    A folder's network answers as its weights say, whenever it is asked: it is not.

    Raises:
        DataError: the victim does not answer any more, or a shard has changed meanwhile.
    """
    plan = answers.plan
    assert plan is not None
    if isinstance(plan.victims[0].source, VictimFolder):
        return Twice()
    first = _sample(answers)
    second = {} if kept is None else _known(plan, answers, kept, first)
    fresh = _answers_now(plan, [place for place in first if place not in second])
    if kept is not None:
        _keep(plan, answers, kept, fresh)
    return Twice(first, second | fresh)


def _sample(answers: Answers) -> dict[Place, int]:
    """Images by a draw that only their names decide, so that those of shards that come later do not change the others
    that are drawn, but to take their place; and their answers.
    """
    places = [(number, key) for number, (_, keys) in enumerate(answers.shards) for key in keys]
    drawn = heapq.nsmallest(ASKED_TWICE, range(len(places)), key=lambda i: _draw(answers, places[i]))
    return {places[i]: int(answers.forms[0][i]) for i in sorted(drawn)}


def _draw(answers: Answers, place: Place) -> bytes:
    name = f"{answers.shards[place[0]][0]}\0{place[1]}"
    return hashlib.sha256(name.encode(errors="surrogateescape")).digest()


def _known(plan: EvaluatePlan, answers: Answers, kept: KeptAnswers, wanted: Mapping[Place, int]) -> dict[Place, int]:
    found: dict[Place, int] = {}
    for number in {number for number, _ in wanted}:
        on_shard = kept.as_it_came(plan.tasks[number], answers.digests[number])
        again = {} if on_shard is None else on_shard.again
        found |= {(number, key): again[key] for shard, key in wanted if shard == number and key in again}
    return found


def _keep(plan: EvaluatePlan, answers: Answers, kept: KeptAnswers, fresh: Mapping[Place, int]) -> None:
    for number in {number for number, _ in fresh}:
        on_shard = kept.as_it_came(plan.tasks[number], answers.digests[number])
        if on_shard is not None:
            kept.keep_again(on_shard, {key: answer for (shard, key), answer in fresh.items() if shard == number})


def _answers_now(plan: EvaluatePlan, places: Sequence[Place]) -> dict[Place, int]:
    """What the victim answers on these images; each shard is read once."""
    if not places:
        return {}
    victim, images = plan.victims[0], list[U8]()
    for number in dict.fromkeys(number for number, _ in places):
        task = plan.tasks[number]
        keys = [key for shard, key in places if shard == number]
        images += pictures(Form(title="as it came", place=task.data, sha256=task.sha256), keys)
    classifier = victim.source.load(torch.device("cpu"))
    ask_about = partial(ask, victim.source, classifier, classes=victim.num_classes, batch_size=_BATCH)
    given = replies_by_size(ask_about, images).answers
    return dict(zip(places, given.tolist(), strict=True))


def check_steady(victim: str, twice: Twice) -> None:
    """Raises ``WorkFailed`` where answers change too often to be relied on."""
    if twice.changed > max(ONE_CHANGE, MAY_CHANGE * twice.asked):
        raise WorkFailed(
            f"{victim}: changes its answers: of {twice.asked} images that it was asked about twice, {twice.changed} "
            f"({twice.share:.2f}; {MAY_CHANGE:g} may) got another answer the second time. No verdict: what answers the "
            "same image in two ways cannot be audited. Serve one model, without dropout, random augmentation or "
            "replicas of another release, then audit again"
        )


def check_sensible(victim: str, answers: Answers, class_name: Callable[[int], str]) -> None:
    """Raises ``WorkFailed`` where all images get the same answer in every form, which says nothing of any of them."""
    images = answers.forms.shape[1]
    if images >= ALIKE_FROM and (answers.forms == answers.forms[0, 0]).all():
        raise WorkFailed(
            f"{victim}: answers {class_name(int(answers.forms[0, 0]))} to everything: all of {images} images, as they "
            "came and purified. No verdict: such answers tell nothing. Does it get what it expects (RGB, 0 to 255), "
            "and do the images show more than one class?"
        )
