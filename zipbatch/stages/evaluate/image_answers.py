"""What victims answer on each image, as rows: for people who want to look at single images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from zipbatch.datasets.base import UNLABELLED
from zipbatch.results import ImageAnswer
from zipbatch.stages.evaluate.plan import EvaluatePlan
from zipbatch.stages.evaluate.shard_result import EvaluateResult
from zipbatch.stages.evaluate.victims import class_name

Given = npt.NDArray[np.int64] | None
"""Answers on the images of a shard [N]; None where it lacks that form."""


def image_answers(plan: EvaluatePlan, results: Iterable[EvaluateResult]) -> Iterator[ImageAnswer]:
    """A row for each image, victim and purified version, in the order of the shards, however workers finished them.

    Args:
        plan: what was carried out.
        results: of its shards, with the answers kept.
    """
    found = {result.name: result for result in results}
    versions: list[str | None] = [version.reference for version in plan.versions] or [None]
    for number, victim in enumerate(plan.victims):
        for task in plan.tasks:
            result = found[task.name]
            for reference, after in zip(versions, result.answers[number][1:] or [None], strict=True):
                yield from _of_shard(plan, result, victim.source.label, reference, (result.answers[number][0], after))


def _of_shard(
    plan: EvaluatePlan, result: EvaluateResult, victim: str, reference: str | None, answers: tuple[Given, Given]
) -> Iterator[ImageAnswer]:
    classes, (before, after) = plan.job.dataset.classes, answers
    if before is None:
        return
    for i, key in enumerate(result.keys):
        truth = int(result.truth[i])
        yield ImageAnswer(
            victim=victim,
            version=reference,
            split=result.split,
            shard=result.name,
            key=key,
            true_class=None if truth == UNLABELLED else class_name(truth, classes),
            before=class_name(int(before[i]), classes),
            after=None if after is None else class_name(int(after[i]), classes),
        )
