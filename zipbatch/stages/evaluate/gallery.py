"""Images of an evaluation for a page: fixed, left, broken and drawn at random, with the first victim's answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from zipbatch.datasets.labels import Label
from zipbatch.datasets.staged import POISONED_SPLIT
from zipbatch.images import U8
from zipbatch.report.page.evaluation import short_names
from zipbatch.report.page.model import Gallery, Item, Picture, Tab
from zipbatch.report.page.pictures import GAIN, difference
from zipbatch.stages.evaluate.pictures import (
    Form,
    candidates,
    forms_of,
    mark_of,
    masks_of,
    pictures,
    spotlit,
    wanted_of,
)
from zipbatch.stages.evaluate.pieces import EvaluateTask
from zipbatch.stages.evaluate.plan import EvaluatePlan
from zipbatch.stages.evaluate.victims import KnownVictim, Replies, ask, class_name, classes_of
from zipbatch.stages.evaluate.worker import replies_by_size
from zipbatch.stages.purify.identity import describe
from zipbatch.victims import Classifier

CANDIDATES = 512
"""Images of each kind that the victim is asked about, to choose among them."""
CANDIDATE_BYTES = 24 * 1024**2
"""Of their pixels: about 160 images of 224 px, on which a large network takes a minute on a CPU."""
SHOWN = 16
"""Images in a tab at most."""
_SEED = 0
Answers = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """The first images of a shard, N of them, what they are, and what the victim answers on each form.

    ``answers`` int64 and ``scores`` float64 are [N] for each of the forms, of which ``suspect`` is the one that came.
    """

    task: EvaluateTask
    labels: dict[str, Label]
    forms: list[Form]
    suspect: int
    answers: list[Answers]
    scores: list[npt.NDArray[np.float64]]
    truth: Answers
    wanted: Answers

    @property
    def before(self) -> Answers:
        """The answers on the images as they came."""
        return self.answers[self.suspect]

    @property
    def after(self) -> Answers:
        """The answers on the images as they were purified last."""
        return self.answers[-1]

    @property
    def purified(self) -> bool:
        """Whether any form is."""
        return len(self.forms) > self.suspect + 1


def gallery(plan: EvaluatePlan, *, shown: int = SHOWN, most: int = CANDIDATES, title: str = "Pictures") -> Gallery:
    """Images in tabs by what purification makes of them, ``shown`` in each at most, chosen among the first ``most``.

    Raises:
        DataError: an image cannot be read, or the victim does not answer.
    """
    classifier = plan.victims[0].source.load(torch.device("cpu"))
    tasks = [next((t for t in plan.tasks if (t.split == POISONED_SPLIT) == stamped), None) for stamped in (True, False)]
    found = [_ask(plan, task, classifier, most) for task in tasks if task is not None]
    found = [asked for asked in found if asked.labels]
    if not found:
        return Gallery(title, ())
    purified = any(asked.purified for asked in found)
    last = f" Tabs go by what {found[0].forms[-1].title} makes of an image." if purified else ""
    about = (
        f"What {plan.victims[0].source.name} answers, with the share of 1 that it gives its answer. Chosen among the "
        f"first {sum(len(asked.labels) for asked in found)} images.{last}"
    )
    return Gallery(title, [_tab(plan, tab, found, shown) for tab in _tabs(found)], about)


def form_names(plan: EvaluatePlan) -> dict[str, str]:
    """Purifiers of the versions with their settings -> short names."""
    return short_names(describe(version.header.purifier) for version in plan.versions)


def answered(victim: KnownVictim, classifier: Classifier, images: Sequence[U8]) -> Replies:
    """What the victim says of images of any sizes.

    Raises:
        DataError: it does not answer.
    """
    return replies_by_size(partial(ask, victim.source, classifier, classes=victim.num_classes), images)


def _ask(plan: EvaluatePlan, task: EvaluateTask, classifier: Classifier, most: int) -> _Asked:
    labels, victim, short = (
        candidates(plan, task, most=most, most_bytes=CANDIDATE_BYTES),
        plan.victims[0],
        form_names(plan),
    )
    forms = [replace(form, title=short.get(form.title, form.title)) for form in forms_of(plan, task)]
    answers, scores = [], []
    for form in forms:
        given, shares = answered(victim, classifier, pictures(form, labels))
        answers.append(given)
        scores.append(shares)
    suspect = next(number for number, form in enumerate(forms) if form.place == task.data)
    truth = np.array([label.original for label in labels.values()], np.int64)
    return _Asked(
        task=task,
        labels=labels,
        forms=forms,
        suspect=suspect,
        answers=answers,
        scores=scores,
        truth=truth,
        wanted=wanted_of(plan, task, truth),
    )


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """A tab, and which of the images that were asked about are for it: a bool [N] for each ``_Asked``."""

    title: str
    about: str
    fits: Sequence[npt.NDArray[np.bool_]]
    random: bool = False


def _tabs(found: Sequence[_Asked]) -> list[_Choice]:
    stamped = [(asked.wanted >= 0) & (asked.wanted != asked.truth) for asked in found]
    working = [these & (one.before == one.wanted) for these, one in zip(stamped, found, strict=True)]
    every = [np.ones(len(asked.truth), np.bool_) for asked in found]
    tabs = []
    if any(these.any() for these in stamped):
        if not any(asked.purified for asked in found):
            tabs.append(
                _Choice(
                    title="Triggered and taken for the target", about="Images on which the trigger works.", fits=working
                )
            )
        else:
            fixed = [these & (one.after == one.truth) for these, one in zip(working, found, strict=True)]
            left = [these & (one.after == one.wanted) for these, one in zip(stamped, found, strict=True)]
            tabs += [
                _Choice(
                    title="Triggered and fixed",
                    about="Taken for the target, and for their true class once purified.",
                    fits=fixed,
                ),
                _Choice(
                    title="Triggered and left", about="Taken for the target even when they are purified.", fits=left
                ),
            ]
    if any(asked.purified for asked in found):
        clean = [~these & (one.truth >= 0) & (one.wanted < 0) for these, one in zip(stamped, found, strict=True)]
        if any(these.any() for these in clean):
            broken = [
                these & (one.before == one.truth) & (one.after != one.truth)
                for these, one in zip(clean, found, strict=True)
            ]
            tabs.append(_Choice(title="Clean and broken", about="Right before, and wrong once purified.", fits=broken))
        else:
            changed = [asked.before != asked.after for asked in found]
            if not tabs:
                tabs.append(_Choice(title="Answer changed", about="Purification changes the answer.", fits=changed))
    return [*tabs, _Choice(title="Random", about="Drawn at random.", fits=every, random=True)]


def _tab(plan: EvaluatePlan, choice: _Choice, found: Sequence[_Asked], shown: int) -> Tab:
    fitting = [(number, int(i)) for number, fits in enumerate(choice.fits) for i in np.flatnonzero(fits)]
    if choice.random:
        order = np.random.default_rng(_SEED).permutation(len(fitting))[:shown]
        chosen = sorted(fitting[i] for i in order)
    else:
        chosen = _over_classes(fitting, found)[:shown]
    items = {
        (number, i): item
        for number, asked in enumerate(found)
        for i, item in _items(plan, asked, [i for n, i in chosen if n == number])
    }
    many = f"{len(fitting)} of {sum(len(asked.labels) for asked in found)} images" if not choice.random else ""
    some = f"; {len(chosen)} of them are shown" if len(chosen) < len(fitting) and many else ""
    about = f"{choice.about} {many}{some}{'.' if many else ''}".strip()
    return Tab(choice.title, [items[one] for one in chosen], about)


def _over_classes(fitting: Sequence[tuple[int, int]], found: Sequence[_Asked]) -> list[tuple[int, int]]:
    """The same images, from each true class in turn."""
    turns: dict[int, int] = {}
    ranked = []
    for number, i in fitting:
        label = int(found[number].truth[i])
        turns[label] = turns.get(label, 0) + 1
        ranked.append((turns[label], number, i))
    return [(number, i) for _, number, i in sorted(ranked)]


def _items(plan: EvaluatePlan, asked: _Asked, chosen: Sequence[int]) -> list[tuple[int, Item]]:
    keys = list(asked.labels)
    names, wanted_keys = classes_of(plan.victims[0].source, plan.job.dataset), [keys[i] for i in chosen]
    if not chosen:
        return []
    forms = [pictures(form, wanted_keys) for form in asked.forms]
    masks = masks_of(plan, asked.task, wanted_keys)
    items = []
    for place, i in enumerate(chosen):
        shots = [
            Picture(
                title=form.title,
                pixels=forms[number][place],
                answer=class_name(int(asked.answers[number][i]), names),
                mark=mark_of(int(asked.answers[number][i]), int(asked.truth[i]), int(asked.wanted[i])),
                score=float(asked.scores[number][i]),
            )
            for number, form in enumerate(asked.forms)
        ]
        if masks:
            repainted = spotlit(forms[asked.suspect][place], masks[place])
            shots.insert(asked.suspect + 1, Picture(title="repainted", pixels=repainted))
        shots += apart(forms[asked.suspect][place], forms[-1][place]) if asked.purified else []
        truth = int(asked.truth[i])
        items.append((i, Item(keys[i], shots, f"true class: {class_name(truth, names)}" if truth >= 0 else "")))
    return items


def apart(suspect: U8, purified: U8) -> list[Picture]:
    """What purification changed; nothing where it made the image another size."""
    if suspect.shape != purified.shape:
        return []
    apart, levels = difference(suspect, purified)
    return [Picture(title=f"difference ×{GAIN}", pixels=apart, about=f"{levels:.1f} of 255 levels on average")]
