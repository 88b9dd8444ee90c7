"""The contact sheet of an evaluation: clean, poisoned, blurred, purified, with the victim's answer under each."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from zipbatch import atomic
from zipbatch.datasets.staged import POISONED_SPLIT
from zipbatch.errors import UsageError
from zipbatch.report.sheet import SheetColumn, SheetRow, contact_sheet
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
from zipbatch.stages.evaluate.plan import EvaluatePlan
from zipbatch.stages.evaluate.victims import KnownVictim, ask, class_name
from zipbatch.stages.evaluate.worker import replies_by_size

_KINDS = ("fixed", "left", "broken", "flipped", "unchanged")
"""What becomes of an image, the most telling first; rows are taken from them in turn."""


def write_sheet(plan: EvaluatePlan, out: Path, *, rows: int = 8) -> None:
    """Write the sheet of the first victim: images that purification fixed, left, broke and flipped, in turn.

    Raises:
        UsageError: no task holds an image for it.
    """
    task = next((t for t in plan.tasks if t.split == POISONED_SPLIT), plan.tasks[0])
    labels = candidates(plan, task)
    if not labels:
        raise UsageError(f"{task.data}: holds no image for a contact sheet")
    victim, classes, forms = plan.victims[0], plan.job.dataset.classes, forms_of(plan, task)
    answers = _answers(victim, forms, labels)
    suspect = next(number for number, form in enumerate(forms) if form.place == task.data)
    truth = np.array([label.original for label in labels.values()], np.int64)
    wanted = wanted_of(plan, task, truth)
    kinds = _outcomes(answers[suspect], answers[-1], truth, wanted)
    chosen = _in_turn(kinds, truth, rows)
    keys = list(labels)
    columns = [
        SheetColumn(
            title=form.title,
            images=pictures(form, [keys[i] for i in chosen], shown=True),
            answers=[class_name(int(given[i]), classes) for i in chosen],
            marks=[mark_of(int(given[i]), int(truth[i]), int(wanted[i])) for i in chosen],
        )
        for form, given in zip(forms, answers, strict=True)
    ]
    if masks := masks_of(plan, task, [keys[i] for i in chosen]):
        shown = [spotlit(picture, mask) for picture, mask in zip(columns[suspect].images, masks, strict=True)]
        columns.insert(
            suspect + 1,
            SheetColumn(title="repainted", images=shown, answers=[""] * len(chosen), marks=["unknown"] * len(chosen)),
        )
    purified = len(forms) > suspect + 1
    titles = [_row_title(kinds[i] if purified else None, int(truth[i]), classes) for i in chosen]
    attack = plan.job.dataset.manifest.attack.name if plan.job.dataset.manifest else plan.job.dataset.name
    about = [SheetRow(title, keys[i]) for title, i in zip(titles, chosen, strict=True)]
    head = (
        f"{attack}: what {victim.source.name} answers, on images chosen among {len(keys)} to show what becomes of them"
    )
    atomic.write_bytes(out, contact_sheet(head, about, columns, suffix=out.suffix or ".png"))


def _answers(victim: KnownVictim, forms: Sequence[Form], keys: Collection[str]) -> list[npt.NDArray[np.int64]]:
    """What a victim answers on images in each form: int64 [N], in the order of the keys."""
    ask_it = partial(ask, victim.source, victim.source.load(torch.device("cpu")), classes=victim.num_classes)
    return [replies_by_size(ask_it, pictures(form, keys)).answers for form in forms]


def _outcomes(
    before: npt.NDArray[np.int64],
    after: npt.NDArray[np.int64],
    truth: npt.NDArray[np.int64],
    wanted: npt.NDArray[np.int64],
) -> list[str]:
    """One of ``_KINDS`` for each image."""
    kinds = []
    for b, a, t, w in zip(before.tolist(), after.tolist(), truth.tolist(), wanted.tolist(), strict=True):
        if w >= 0 and w != t and a == w:
            kinds.append("left")
        elif b == a:
            kinds.append("unchanged")
        elif t >= 0 and a == t:
            kinds.append("fixed")
        elif t >= 0 and b in {t, w}:
            kinds.append("broken")
        else:
            kinds.append("flipped")
    return kinds


def _in_turn(kinds: Sequence[str], truth: npt.NDArray[np.int64], rows: int) -> list[int]:
    """The images to show: from each kind in turn, and within a kind from each class in turn."""
    queues = []
    for kind in _KINDS:
        of_kind = [i for i, other in enumerate(kinds) if other == kind]
        turns: dict[int, int] = {}
        ranked = []
        for i in of_kind:
            label = int(truth[i])
            turns[label] = turns.get(label, 0) + 1
            ranked.append((turns[label], i))
        queues.append([i for _, i in sorted(ranked)])
    chosen: list[int] = []
    for turn in range(max(map(len, queues))):
        chosen += [queue[turn] for queue in queues if turn < len(queue)]
    chosen = chosen[:rows]
    return sorted(chosen, key=lambda i: (_KINDS.index(kinds[i]), i))


def _row_title(kind: str | None, truth: int, classes: Sequence[str] | None) -> str:
    name = "" if truth < 0 else class_name(truth, classes)
    return "\n".join(part for part in (kind, name) if part)
