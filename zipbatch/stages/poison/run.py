"""``zipbatch poison``: stage a dataset's splits as shards, with a backdoor trigger on some of them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from zipbatch.datasets import ShardDataset
from zipbatch.datasets.base import UnreadableImageError
from zipbatch.datasets.folders import Left
from zipbatch.datasets.source import open_source
from zipbatch.stages.output_folder import stage_folder
from zipbatch.stages.poison.choice import shuffled_splits
from zipbatch.stages.poison.plan import (
    plan_poison,
    requested_attack,
    requested_material,
    staged_options,
)
from zipbatch.stages.poison.request import PoisonRequest
from zipbatch.stages.poison.unreadable import Unreadable, find_unreadable
from zipbatch.stages.poison.writing import write_all

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PoisonResult:
    """The staged dataset; ``reused`` when an identical one was there already.

    ``left`` is what was not taken of the source, ``skipped`` the (origin, key, message) of what could not be read.
    """

    dataset: ShardDataset
    reused: bool
    left: Left
    skipped: Unreadable


def poison(
    request: PoisonRequest, *, on_progress: Callable[[int, int], None] = lambda _done, _all: None
) -> PoisonResult:
    """Stage ``request.source`` into ``request.out``; the folder appears whole or not at all.

    Args:
        request: what to stage.
        on_progress: called with the images written so far and in all.

    Raises:
        UsageError: source, split or attack unknown, sizes or target that do not fit, too few images that may be
            poisoned or cover, ``out`` holds something else.
        DataError: an image or label of the source is unfit; it names the shard or file and the key, of all images that
            cannot be read.
    """
    attack, material = requested_attack(request), requested_material(request)
    source = open_source(request.source, request.splits, request.limit)
    wanted = tuple(
        dict.fromkeys([*source.splits, *(shuffled_splits(source, attack) if "train" in source.splits else ())])
    )
    skipped = find_unreadable(source, wanted) if request.skip_unreadable else Unreadable()
    if skipped:
        log.warning(
            "%s: skipped %d images that cannot be read; the first: %s", source.place, len(skipped), skipped[0][2]
        )
    try:
        with material.held():
            usable = replace(source, skip=skipped.skip)
            plan = plan_poison(request, usable, skipped, attack=attack, material=material, on_progress=on_progress)
            options = staged_options(plan, material)
        dataset, reused = stage_folder(request.out, options, partial(write_all, plan))
    except UnreadableImageError as error:
        every = find_unreadable(source, wanted)
        raise (every.error(source.place) if every else error) from error
    return PoisonResult(dataset=dataset, reused=reused, left=plan.left, skipped=skipped)
