"""The contact sheet of an evaluation: clean, poisoned, blurred, purified, with the victim's answer under each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from zipbatch import atomic
from zipbatch.datasets.labels import Label
from zipbatch.datasets.staged import POISONED_SPLIT
from zipbatch.diffusion import mean_projection, parse_projector
from zipbatch.errors import UsageError
from zipbatch.images import U8, decode, stretch, stretch_nearest
from zipbatch.pixels import from_u8, to_u8
from zipbatch.report.sheet import Mark, SheetColumn, SheetRow, contact_sheet
from zipbatch.shards import Sample
from zipbatch.shards.digest import read_listed
from zipbatch.stages.evaluate.pieces import EvaluateTask
from zipbatch.stages.evaluate.plan import EvaluatePlan, labelling, wanted_answers
from zipbatch.stages.evaluate.victims import KnownVictim, ask, class_name
from zipbatch.stages.evaluate.worker import by_size
from zipbatch.stages.purify.identity import describe, steps_of
from zipbatch.stages.purify.masks import MASK
from zipbatch.stages.purify.quarantine import quarantined_keys
from zipbatch.storage import StoragePath

CANDIDATES = 256
"""Images that the victim is asked about to choose the rows among them."""
_CANDIDATE_BYTES = 64 * 1024**2
MAX_CELL = 512
"""Side of a picture of the sheet, pixels."""
_KINDS = ("fixed", "left", "broken", "flipped", "unchanged")
"""What becomes of an image, the most telling first; rows are taken from them in turn."""


@dataclass(frozen=True)
class _Form:
    """One form of the images: where they lie and the digest of the shard, or how they are made of the suspect ones."""

    title: str
    place: StoragePath
    sha256: str | None
    make: Callable[[U8], U8] | None = None


def write_sheet(plan: EvaluatePlan, out: Path, *, rows: int = 8) -> None:
    """Write the sheet of the first victim: images that purification fixed, left, broke and flipped, in turn.

    Raises:
        UsageError: no task holds an image for it.
    """
    task = next((t for t in plan.tasks if t.split == POISONED_SPLIT), plan.tasks[0])
    labels = _candidates(plan, task)
    if not labels:
        raise UsageError(f"{task.data}: holds no image for a contact sheet")
    victim, classes, forms = plan.victims[0], plan.job.dataset.classes, _forms(plan, task)
    answers = _answers(victim, forms, labels)
    suspect = next(number for number, form in enumerate(forms) if form.place == task.data)
    truth = np.array([label.original for label in labels.values()], np.int64)
    wanted = _wanted(plan, task, truth)
    kinds = _outcomes(answers[suspect], answers[-1], truth, wanted)
    chosen = _in_turn(kinds, truth, rows)
    keys = list(labels)
    columns = [
        SheetColumn(
            form.title,
            _pictures(form, [keys[i] for i in chosen], shown=True),
            [class_name(int(given[i]), classes) for i in chosen],
            [_mark(int(given[i]), int(truth[i]), int(wanted[i])) for i in chosen],
        )
        for form, given in zip(forms, answers, strict=True)
    ]
    if masks := _masks(plan, task, [keys[i] for i in chosen]):
        shown = [_spotlit(picture, mask) for picture, mask in zip(columns[suspect].images, masks, strict=True)]
        columns.insert(suspect + 1, SheetColumn("repainted", shown, [""] * len(chosen), ["unknown"] * len(chosen)))
    purified = len(forms) > suspect + 1
    titles = [_row_title(kinds[i] if purified else None, int(truth[i]), classes) for i in chosen]
    attack = plan.job.dataset.manifest.attack.name if plan.job.dataset.manifest else plan.job.dataset.name
    about = [SheetRow(title, keys[i]) for title, i in zip(titles, chosen, strict=True)]
    head = (
        f"{attack}: what {victim.source.name} answers, on images chosen among {len(keys)} to show what becomes of them"
    )
    atomic.write_bytes(out, contact_sheet(head, about, columns, suffix=out.suffix or ".png"))


def _answers(victim: KnownVictim, forms: Sequence[_Form], keys: Collection[str]) -> list[npt.NDArray[np.int64]]:
    """What a victim answers on images in each form: int64 [N], in the order of the keys."""
    classifier, answers = victim.source.load(torch.device("cpu")), []
    for form in forms:
        found = np.empty(len(keys), np.int64)
        for where, pixels in by_size(_pictures(form, keys)):
            found[where] = ask(victim.source, classifier, pixels, classes=victim.num_classes)
        answers.append(found)
    return answers


def _candidates(plan: EvaluatePlan, task: EvaluateTask) -> dict[str, Label]:
    """Key -> label of the first images of a shard; of few where they are large."""
    read, aside = labelling(plan.job), quarantined_keys(task.quarantine)
    found: dict[str, Label] = {}
    size = 0
    for sample in _samples(task.data, task.sha256):
        if sample.key in aside:
            continue
        size += sample.image().nbytes
        found[sample.key] = read.of(sample)
        if len(found) == CANDIDATES or size > _CANDIDATE_BYTES:
            break
    return found


def _samples(place: StoragePath, sha256: str | None) -> Iterator[Sample]:
    return read_listed(place, sha256, imageless=True, otherwise="its bytes are not those that are listed; run again")


def _forms(plan: EvaluatePlan, task: EvaluateTask) -> list[_Form]:
    """The columns, from left to right; the suspect images are those at the task's own place."""
    forms = []
    if task.clean is not None and task.clean != task.data:
        forms.append(_Form("clean", task.clean, task.clean_sha256))
    forms.append(_Form("poisoned" if task.split == POISONED_SPLIT else "suspect", task.data, task.sha256))
    if transforms := _blur_to_show(plan):
        project = mean_projection([parse_projector(text) for text in transforms])

        def blurred(image: U8) -> U8:
            unit = from_u8(torch.from_numpy(image).permute(2, 0, 1)[None], "unit")
            made: U8 = to_u8(project(unit), "unit")[0].permute(1, 2, 0).numpy()
            return made

        forms.append(_Form("+".join(transforms), task.data, task.sha256, blurred))
    for version, path in zip(plan.versions, task.purified, strict=True):
        if path is not None:
            forms.append(_Form(describe(version.header.purifier), path, path.stem))
    return forms


def _blur_to_show(plan: EvaluatePlan) -> list[str]:
    """What the first guided purifier was guided with, less the identity; nothing when a blur version is there."""
    purifiers = [step for version in plan.versions for step in steps_of(version.header.purifier)]
    settings = [purifier.get("settings", {}) for purifier in purifiers]
    guides = [own["transforms"] for own in settings if "transforms" in own]
    if not guides or any(purifier["method"] == "blur" for purifier in purifiers):
        return []
    return [text for text in guides[0] if text != "blur:1"]


def _pictures(form: _Form, keys: Collection[str], *, shown: bool = False) -> list[U8]:
    """The images of these keys, in their order; ``shown``: no larger than a sheet shows them."""
    wanted = set(keys)
    found: dict[str, U8] = {}
    for sample in _samples(form.place, form.sha256):
        if sample.key in wanted:
            image = sample.image()
            made = image if form.make is None else form.make(image)
            found[sample.key] = _for_a_cell(made) if shown else made
            if len(found) == len(wanted):
                break
    return [found[key] for key in keys]


def _masks(plan: EvaluatePlan, task: EvaluateTask, keys: Sequence[str]) -> list[U8]:
    """What the first version that has masks repainted of these images, grey [H, W]; empty where none has."""
    for version, path in zip(plan.versions, task.purified, strict=True):
        whole = version.header.purifier.get("resize") != "center-crop"  # else a mask is of the middle square
        if path is not None and whole and version.header.purifier.get("keep_masks"):
            found = {
                sample.key: decode(sample.members[MASK], "png")[:, :, 0]
                for sample in _samples(path, path.stem)
                if sample.key in keys and MASK in sample.members
            }
            return [found[key] for key in keys] if len(found) == len(keys) else []
    return []


def _spotlit(picture: U8, mask: U8) -> U8:
    """The picture, dark where it was left as it is."""
    lit = stretch_nearest(mask, *picture.shape[:2])[:, :, None] > 0
    return np.where(lit, picture, picture // 4)


def _for_a_cell(image: U8) -> U8:
    """Large images are drawn no larger than a cell is in print, and would take many times their size to draw."""
    height, width = image.shape[:2]
    larger = max(height, width) / MAX_CELL
    return image if larger <= 1 else stretch(image, max(1, round(height / larger)), max(1, round(width / larger)))


def _wanted(plan: EvaluatePlan, task: EvaluateTask, truth: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """What the attack wants each image to be taken for, -1 where it is not stamped, or nobody knows."""
    answers = wanted_answers(plan.job.dataset)
    if answers is None or task.split != POISONED_SPLIT:
        return np.full(len(truth), -1, np.int64)
    goals = np.array(answers, np.int64)
    return np.where((truth >= 0) & (truth < len(goals)), goals[truth.clip(0, len(goals) - 1)], -1)


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


def _mark(answer: int, truth: int, wanted: int) -> Mark:
    if truth < 0:
        return "unknown"
    if answer == truth:
        return "right"
    return "target" if answer == wanted else "wrong"


def _row_title(kind: str | None, truth: int, classes: Sequence[str] | None) -> str:
    name = "" if truth < 0 else class_name(truth, classes)
    return "\n".join(part for part in (kind, name) if part)
