"""The images of an evaluation to look at: as they came, blurred, purified, clean, and what was repainted of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from zipbatch.datasets.labels import Label
from zipbatch.datasets.staged import POISONED_SPLIT
from zipbatch.diffusion import mean_projection, parse_projector
from zipbatch.images import U8, decode, stretch, stretch_nearest
from zipbatch.pixels import from_u8, to_u8
from zipbatch.report.sheet import Mark
from zipbatch.shards import Sample
from zipbatch.shards.digest import read_listed
from zipbatch.stages.evaluate.pieces import EvaluateTask
from zipbatch.stages.evaluate.plan import EvaluatePlan, labelling, wanted_answers
from zipbatch.stages.purify.identity import describe, steps_of
from zipbatch.stages.purify.masks import MASK
from zipbatch.stages.purify.quarantine import quarantined_keys
from zipbatch.storage import StoragePath

CANDIDATES = 256
"""Images that the victim is asked about to choose the ones to show among them."""
CANDIDATE_BYTES = 64 * 1024**2
"""Of their pixels; fewer are taken where they are larger."""
MAX_CELL = 512
"""Longer side of a picture that is shown, pixels."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """One form of the images: where they lie and the digest of the shard, or how they are made of the suspect ones."""

    title: str
    place: StoragePath
    sha256: str | None
    make: Callable[[U8], U8] | None = None


def candidates(
    plan: EvaluatePlan, task: EvaluateTask, *, most: int = CANDIDATES, most_bytes: int = CANDIDATE_BYTES
) -> dict[str, Label]:
    """Key -> label of the first images of a shard, ``most`` of them; of fewer where they are large."""
    read, aside = labelling(plan.job), quarantined_keys(task.quarantine)
    found: dict[str, Label] = {}
    size = 0
    for sample in _samples(task.data, task.sha256):
        if sample.key in aside:
            continue
        size += sample.image().nbytes
        found[sample.key] = read.of(sample)
        if len(found) == most or size > most_bytes:
            break
    return found


def _samples(place: StoragePath, sha256: str | None) -> Iterator[Sample]:
    return read_listed(place, sha256, imageless=True, otherwise="its bytes are not those that are listed; run again")


def forms_of(plan: EvaluatePlan, task: EvaluateTask) -> list[Form]:
    """The columns, from left to right; the suspect images are those at the task's own place."""
    forms = []
    if task.clean is not None and task.clean != task.data:
        forms.append(Form(title="clean", place=task.clean, sha256=task.clean_sha256))
    forms.append(
        Form(title="poisoned" if task.split == POISONED_SPLIT else "suspect", place=task.data, sha256=task.sha256)
    )
    if transforms := _blur_to_show(plan):
        project = mean_projection([parse_projector(text) for text in transforms])

        def blurred(image: U8) -> U8:
            unit = from_u8(torch.from_numpy(image).permute(2, 0, 1)[None], "unit")
            made: U8 = to_u8(project(unit), "unit")[0].permute(1, 2, 0).numpy()
            return made

        forms.append(Form(title="+".join(transforms), place=task.data, sha256=task.sha256, make=blurred))
    for version, path in zip(plan.versions, task.purified, strict=True):
        if path is not None:
            forms.append(Form(title=describe(version.header.purifier), place=path, sha256=path.stem))
    return forms


def _blur_to_show(plan: EvaluatePlan) -> list[str]:
    """What the first guided purifier was guided with, less the identity; nothing when a blur version is there."""
    purifiers = [step for version in plan.versions for step in steps_of(version.header.purifier)]
    settings = [purifier.get("settings", {}) for purifier in purifiers]
    guides = [own["transforms"] for own in settings if "transforms" in own]
    if not guides or any(purifier["method"] == "blur" for purifier in purifiers):
        return []
    return [text for text in guides[0] if text != "blur:1"]


def pictures(form: Form, keys: Collection[str], *, shown: bool = False) -> list[U8]:
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


def masks_of(plan: EvaluatePlan, task: EvaluateTask, keys: Sequence[str]) -> list[U8]:
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


def spotlit(picture: U8, mask: U8) -> U8:
    """The picture, dark where it was left as it is."""
    lit = stretch_nearest(mask, *picture.shape[:2])[:, :, None] > 0
    return np.where(lit, picture, picture // 4)


def _for_a_cell(image: U8) -> U8:
    """Large images are drawn no larger than a cell is in print, and would take many times their size to draw."""
    height, width = image.shape[:2]
    larger = max(height, width) / MAX_CELL
    return image if larger <= 1 else stretch(image, max(1, round(height / larger)), max(1, round(width / larger)))


def wanted_of(plan: EvaluatePlan, task: EvaluateTask, truth: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """What the attack wants each image to be taken for, -1 where it is not stamped, or nobody knows."""
    answers = wanted_answers(plan.job.dataset)
    if answers is None or task.split != POISONED_SPLIT:
        return np.full(len(truth), -1, np.int64)
    goals = np.array(answers, np.int64)
    return np.where((truth >= 0) & (truth < len(goals)), goals[truth.clip(0, len(goals) - 1)], -1)


def mark_of(answer: int, truth: int, wanted: int) -> Mark:
    """What an answer is; ``truth`` and ``wanted`` are -1 where there is none."""
    if truth < 0:
        return "unknown"
    if answer == truth:
        return "right"
    return "target" if answer == wanted else "wrong"
