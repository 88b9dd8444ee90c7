"""Images of an audit for a page: suspects, others whose answer changes, and some drawn at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from zipbatch.metrics import Audit
from zipbatch.report.page.model import Gallery, Item, Picture, Tab
from zipbatch.stages.evaluate.answers import Answers
from zipbatch.stages.evaluate.gallery import SHOWN, apart, form_names
from zipbatch.stages.evaluate.pictures import Form, forms_of, pictures
from zipbatch.stages.evaluate.pieces import EvaluateTask
from zipbatch.stages.evaluate.plan import EvaluatePlan
from zipbatch.stages.evaluate.victims import class_name, classes_of
from zipbatch.stages.purify.identity import describe

_SEED = 0
_Places = Sequence[tuple[int, str]]
"""Of each image the number of its shard, and its key."""


@dataclass(frozen=True)
class _About:
    """The verdict, what it was told from, and what the user calls the purified forms."""

    found: Audit
    answers: Answers
    forms: Sequence[str]


def form_titles(forms: Sequence[str], answers: Answers) -> list[str]:
    """What to call the purified forms: presets by their names, versions that a user names by their purifiers."""
    if answers.plan is None or not any("@" in form for form in forms):
        return list(forms)
    short = form_names(answers.plan)
    return [short[describe(version.header.purifier)] for version in answers.plan.versions]


def audit_gallery(plan: EvaluatePlan, answers: Answers, found: Audit, forms: Sequence[str]) -> Gallery:
    """Images in tabs, ``SHOWN`` in each at most, with what the victim answers on each form.

    Args:
        plan: of the forms that were asked about.
        answers: on them.
        found: the verdict.
        forms: what the purified ones are called.

    Raises:
        DataError: an image cannot be read.
    """
    places = [(number, key) for number, (_, keys) in enumerate(answers.shards) for key in keys]
    changed = (answers.forms[0] != answers.forms[-1]) & ~found.suspects
    drawn = np.random.default_rng(_SEED).permutation(len(places))[:SHOWN]
    chosen = [
        (
            "Suspects",
            "They leave the class that is accused; those that look most triggered.",
            _highest(found.suspects, found),
        ),
        ("Changed, no suspects", "Purifying changes the answer, which drift does, too.", _highest(changed, found)),
        ("Random", "Drawn at random.", np.sort(drawn)),
    ]
    wanted = sorted({int(i) for _, _, where in chosen for i in where})
    items = _items(plan, places, wanted, _About(found, answers, forms))
    tabs = [
        Tab(title, [items[int(i)] for i in where], about if len(where) else "None.") for title, about, where in chosen
    ]
    about = (
        f"What {plan.victims[0].source.name} answers, with the share of 1 that it gives its answer, and how much each "
        "image looks triggered, 0 to 1."
    )
    return Gallery("Pictures", tabs, about)


def _highest(fits: npt.NDArray[np.bool_], found: Audit) -> npt.NDArray[np.int64]:
    """The images that fit, by their score, the highest first."""
    where = np.flatnonzero(fits)
    ranked: npt.NDArray[np.int64] = where[np.argsort(-found.scores[where], kind="stable")][:SHOWN]
    return ranked


def _items(plan: EvaluatePlan, places: _Places, wanted: Sequence[int], about: _About) -> dict[int, Item]:
    """Number of an image -> what is shown of it; each shard is read once for each of its forms."""
    items = {}
    for number, task in enumerate(plan.tasks):
        here = [i for i in wanted if places[i][0] == number]
        if here:
            shots = _shots(plan, task, {i: places[i][1] for i in here}, about)
            for i, shown in zip(here, shots, strict=True):
                items[i] = Item(places[i][1], shown, f"score {about.found.scores[i]:.2f}, {task.name}")
    return items


def _shots(plan: EvaluatePlan, task: EvaluateTask, keys: Mapping[int, str], about: _About) -> list[list[Picture]]:
    """The forms of images of one shard, whose keys are given by their numbers among all."""
    classes, shown = classes_of(plan.victims[0].source, plan.job.dataset), _forms(plan, task, about.forms)
    given, shares = about.answers.forms, about.answers.shares
    pixels = [pictures(form, keys.values()) for form in shown]
    return [
        [
            *(
                Picture(
                    title=form.title,
                    pixels=images[place],
                    answer=class_name(int(given[number, i]), classes),
                    mark="target" if given[number, i] == about.found.judgement.suspect else "unknown",
                    score=float(shares[number, i]),
                )
                for number, (form, images) in enumerate(zip(shown, pixels, strict=True))
            ),
            *apart(pixels[0][place], pixels[-1][place]),
        ]
        for place, i in enumerate(keys)
    ]


def _forms(plan: EvaluatePlan, task: EvaluateTask, names: Sequence[str]) -> list[Form]:
    """As it came and as it was purified, under the names that the user knows: no clean twins, no labels."""
    every = forms_of(plan, task)
    suspect = replace(next(form for form in every if form.place == task.data), title="as it came")
    purified = [form for form in every if form.place in task.purified]
    return [suspect, *(replace(form, title=name) for form, name in zip(purified, names, strict=True))]
