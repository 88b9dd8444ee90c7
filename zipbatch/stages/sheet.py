"""The contact sheet of an evaluation: clean, poisoned, blurred, purified, with the victim's answer under each."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from zipbatch import atomic
from zipbatch.diffusion import mean_projection, parse_projector
from zipbatch.errors import UsageError
from zipbatch.images import U8
from zipbatch.pixels import from_u8, to_u8
from zipbatch.places import Place
from zipbatch.report import SheetColumn, contact_sheet
from zipbatch.shards import Sample, read_shard
from zipbatch.shards.dataset import POISONED_SPLIT
from zipbatch.stages.evaluate import EvaluatePlan
from zipbatch.stages.purifier import describe
from zipbatch.stages.quarantine import quarantined_keys
from zipbatch.stages.victim import ask, class_name

_TITLE_WIDTH = 20  # characters that fit over a column


def write_sheet(plan: EvaluatePlan, out: Path, *, rows: int = 8) -> None:
    """Write the sheet of the first victim on the first images, stamped ones whose class is not the target if any.

    Raises:
        UsageError: no task holds an image for it.
    """
    task = next((t for t in plan.tasks if t.split == POISONED_SPLIT), plan.tasks[0])
    aside = quarantined_keys(task.quarantine)

    def readable() -> Iterator[Sample]:
        return (s for s in read_shard(task.data, imageless=bool(aside)) if s.key not in aside)

    suspects = {s.key: s for s in islice((s for s in readable() if s.label() != s.original_label()), rows)}
    if not suspects:
        suspects = {s.key: s for s in islice(readable(), rows)}
    if not suspects:
        raise UsageError(f"{task.data}: holds no image for a contact sheet")
    source, classes = plan.victims[0].source, plan.request.dataset.classes
    classifier = source.load(torch.device("cpu"))
    truth = [sample.original_label() for sample in suspects.values()]
    poisoned = [sample.image() for sample in suspects.values()]
    columns: list[SheetColumn] = []

    def add(title: str, images: Sequence[U8]) -> None:
        pixels = np.stack(images)
        tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        answers = ask(source, classifier, tensor, classes=plan.victims[0].num_classes).tolist()
        columns.append(_column(title, pixels, answers, truth, classes))

    if task.clean is not None and task.clean != task.data:
        add("clean", _pick(task.clean, suspects))
    add("poisoned" if task.split == POISONED_SPLIT else "suspect", poisoned)
    if transforms := _blur_to_show(plan):
        project = mean_projection([parse_projector(text) for text in transforms])
        unit = from_u8(torch.from_numpy(np.stack(poisoned)).permute(0, 3, 1, 2), "unit")
        add("+".join(transforms), list(to_u8(project(unit), "unit").permute(0, 2, 3, 1).numpy()))
    for version, path in zip(plan.versions, task.purified, strict=True):
        if path is not None:
            title = textwrap.fill(describe(version.header.purifier), _TITLE_WIDTH, break_long_words=False)
            add(title, _pick(path, suspects))
    attack = plan.request.dataset.manifest.attack.name if plan.request.dataset.manifest else plan.request.dataset.name
    head = f"{attack}: the answers of {source.name}, red where they are not the true class on the left"
    atomic.write_bytes(out, contact_sheet(head, [_name(label, classes) for label in truth], columns))


def _blur_to_show(plan: EvaluatePlan) -> list[str]:
    """What the first guided purifier was guided with, less the identity; nothing when a blur version is there."""
    purifiers = [version.header.purifier for version in plan.versions]
    settings = [purifier.get("settings", {}) for purifier in purifiers]
    guides = [own["transforms"] for own in settings if "transforms" in own]
    if not guides or any(purifier["method"] == "blur" for purifier in purifiers):
        return []
    return [text for text in guides[0] if text != "blur:1"]


def _pick(path: Place, suspects: dict[str, Sample]) -> list[U8]:
    found = {sample.key: sample.image() for sample in read_shard(path) if sample.key in suspects}
    return [found[key] for key in suspects]


def _column(
    title: str, pixels: U8, answers: Sequence[int], truth: Sequence[int | None], classes: list[str] | None
) -> SheetColumn:
    names = [class_name(answer, classes) for answer in answers]
    return SheetColumn(title, pixels, names, [t is not None and a != t for a, t in zip(answers, truth, strict=True)])


def _name(label: int | None, classes: list[str] | None) -> str:
    return "unknown" if label is None else class_name(label, classes)
