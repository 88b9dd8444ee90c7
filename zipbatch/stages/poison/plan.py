"""What there is to stage: the source, the attack on it, and which images are to be stamped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from zipbatch.attacks import Attack, Goal, Trigger, attack_params
from zipbatch.datasets.folders import Left
from zipbatch.datasets.source import Source, Survey
from zipbatch.datasets.staged import (
    CLEAN_SPLIT,
    POISONED_SPLIT,
)
from zipbatch.errors import UsageError
from zipbatch.memory import Room, usual_share
from zipbatch.stages.poison.choice import Chosen, attack_goal, choose_training
from zipbatch.stages.poison.request import PoisonRequest, PoisonSettings
from zipbatch.stages.poison.trigger import Material, find_attack, find_material, make_trigger
from zipbatch.stages.poison.unreadable import Unreadable

_LISTED = 1000
"""Skipped images that a manifest names."""


@dataclass
class ImageCount:
    """Images written so far, of all."""

    total: int
    report: Callable[[int, int], None]
    done: int = 0

    def add(self, count: int) -> None:
        """So many more are written."""
        self.done += count
        self.report(self.done, self.total)


@dataclass(frozen=True, kw_only=True)
class PoisonPlan:
    """A request, resolved and checked whole: nothing is written before there is one."""

    request: PoisonRequest
    source: Source
    attack: Attack
    trigger: Trigger
    classes: list[str]
    image_size: int
    goal: Goal
    rate: float
    cover_rate: float
    source_sha256: dict[str, str]
    chosen: Chosen
    progress: ImageCount
    left: Left
    skipped: Unreadable
    room: Room = field(default_factory=lambda: Room(usual_share()))


def plan_poison(
    request: PoisonRequest,
    source: Source,
    skipped: Unreadable,
    *,
    attack: Attack,
    material: Material,
    on_progress: Callable[[int, int], None],
) -> PoisonPlan:
    """Resolve what there is to stage, without writing anything. Errors as of ``poison``."""
    rate = attack.default_poison_rate if request.poison_rate is None else request.poison_rate
    cover_rate = attack.default_cover_rate if request.cover_rate is None else request.cover_rate
    size = request.image_size or source.image_size()
    trigger = make_trigger(attack, material, size, seed=request.seed)
    surveys = {split: source.survey(split) for split in source.splits}
    classes = source.class_names(surveys.values())
    attack = attack.numbered(classes)
    goal = attack_goal(
        attack, classes, mode=request.target_mode, target=request.target, clean_label=request.clean_label
    )
    chosen = choose_training(
        source, surveys, attack=attack, rate=rate, cover_rate=cover_rate, seed=request.seed, goal=goal
    )
    _check_tested(source, surveys, goal)
    total = sum(survey.images * len(staged_as(source, split)) for split, survey in surveys.items())
    return PoisonPlan(
        request=request,
        source=source,
        attack=attack,
        trigger=trigger,
        classes=classes,
        image_size=size,
        goal=goal,
        rate=rate,
        cover_rate=cover_rate,
        source_sha256={split: survey.sha256 for split, survey in surveys.items()},
        chosen=chosen,
        progress=ImageCount(total, on_progress),
        left=source.left(),
        skipped=skipped,
    )


def _check_tested(source: Source, surveys: Mapping[str, Survey], goal: Goal) -> None:
    """An attack on some classes needs images of theirs to be tested on."""
    for split, survey in surveys.items():
        if not goal.sources or POISONED_SPLIT not in staged_as(source, split):
            continue
        if not any(goal.is_after(image.label) for image in source.images(split)):
            classes = ", ".join(map(str, goal.sources))
            raise UsageError(
                f"{source.place}: none of the {survey.images} images of {split} is of the source classes ({classes}), "
                f"so that {POISONED_SPLIT} would be empty; take more images, or other ‹params› source_classes="
            )


def staged_as(source: Source, split: str) -> tuple[str, ...]:
    """Names under which a source split is staged. Where there is no ``test``, ``val`` is what attacks are tested on."""
    if split == "test" or (split == "val" and "test" not in source.available):
        return CLEAN_SPLIT, POISONED_SPLIT
    return (split,)


def requested_attack(request: PoisonSettings) -> Attack:
    """The attack with its parameters; see ``trigger.find_attack``."""
    return find_attack(request.attack, request.params, profile=request.profile)


def requested_material(request: PoisonSettings) -> Material:
    """What the trigger is made of, beside the seed; see ``trigger.find_material``."""
    return find_material(request.trigger_image or None, request.trigger_array)


def requested_options(request: PoisonSettings, attack: Attack, material: Material) -> dict[str, object]:
    """What decides the staged bytes beside the source, with defaults filled in; a pipeline's stage is known by it, too.

    Args:
        request: what to stage.
        attack: its own, as ``find_attack`` gives it.
        material: its own, as ``find_material`` gives it.

    Raises:
        UsageError: a file that the trigger is made of is not there.
    """
    cover_rate = attack.default_cover_rate if request.cover_rate is None else request.cover_rate
    return {
        "attack": attack.name,
        "params": attack_params(attack),
        **({} if attack.version == 1 else {"version": attack.version}),  # what was staged before there were any is 1
        "clean_label": attack.clean_label if request.clean_label is None else request.clean_label,
        "target": attack.default_target if request.target is None else request.target,
        "poison_rate": attack.default_poison_rate if request.poison_rate is None else request.poison_rate,
        "seed": request.seed,
        "limit": request.limit,
        "samples_per_shard": request.samples_per_shard,
        "resize": request.resize,
        **({} if attack.variant is None else {"variant": attack.variant}),
        **({"cover_rate": cover_rate} if cover_rate or attack.default_cover_rate else {}),
        **material.identity(attack),
        **request.decisive("result"),
    }


def staged_options(plan: PoisonPlan, material: Material) -> dict[str, object]:
    """Everything that decides the staged bytes, for the manifest and for "is this already done?"."""
    return {
        **requested_options(plan.request, plan.attack, material),
        "classes": plan.classes,
        "image_size": plan.image_size,
        "target": plan.goal.target,
        "source_sha256": plan.source_sha256,
        **_skipped(plan),
    }


def _skipped(plan: PoisonPlan) -> dict[str, object]:
    if not plan.skipped:
        return {}
    images = [[origin, key] for origin, key, _ in plan.skipped[:_LISTED]]
    return {"skipped_unreadable": {"count": len(plan.skipped), "images": images}}
