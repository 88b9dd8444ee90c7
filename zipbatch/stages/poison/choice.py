"""Which training images of a source are poisoned, which are cover, and what for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from zipbatch.attacks import Attack, Goal, chosen_indices, cover_indices, poison_indices
from zipbatch.config import class_number
from zipbatch.datasets.source import Source, Survey
from zipbatch.datasets.staged import ALL_TO_ALL, ALL_TO_ONE, CLEAN_SPLIT, TargetMode
from zipbatch.errors import UsageError
from zipbatch.spelling import setting


def attack_goal(
    attack: Attack, names: Sequence[str], *, mode: TargetMode, target: int | str | None, clean_label: bool | None
) -> Goal:
    """What the attack is after; None takes its own default.

    Args:
        attack: which attack.
        names: of the classes, by their number.
        mode: one target class, or each class for the next.
        target: the class, by number or name.
        clean_label: whether labels stay true.

    Raises:
        UsageError: a target that is no class, or settings that contradict each other.
    """
    clean, sources = attack.clean_label if clean_label is None else clean_label, attack.source_classes
    classes = len(names)
    _check_classes(attack, classes)
    if mode == ALL_TO_ONE:
        wanted = attack.default_target if target is None else target
        chosen = class_number(wanted, names, where=setting("target", wanted))
        if chosen in sources:
            raise UsageError(
                f"attack {attack.name}: class {chosen} is both the target and a source class; take another ‹target›, "
                "or other ‹params› source_classes="
            )
        if clean and sources:
            raise UsageError(f"attack {attack.name} poisons images of other classes than the target: no ‹clean_label›")
        return Goal(classes=classes, target=chosen, clean_label=clean, sources=sources)
    if target is not None:
        raise UsageError(f"‹target› is for {ALL_TO_ONE}; {ALL_TO_ALL} takes each class for the next")
    if clean:
        raise UsageError(f"attack {attack.name}: {ALL_TO_ALL} leaves no label true; add ‹clean_label=False›")
    if classes < 2:
        raise UsageError(f"{setting('target_mode', ALL_TO_ALL)} needs two classes or more, got {classes}")
    return Goal(classes=classes, target=None, sources=sources)


def _check_classes(attack: Attack, classes: int) -> None:
    for name, named in (("source_classes", attack.source_classes), ("cover_classes", attack.cover_classes)):
        if unknown := [label for label in named if label >= classes]:
            raise UsageError(
                f"attack {attack.name}: {name} {unknown[0]} is not one of the {classes} classes 0..{classes - 1}; name "
                f"others with ‹params› {name}="
            )


def shuffled_splits(source: Source, attack: Attack) -> tuple[str, ...]:
    """The splits that the attack's published code shuffles, under the names that ``source`` has for them: what it calls
    ``test`` is ``val`` where there is no ``test``.
    """
    held_out = next((split for split in (CLEAN_SPLIT, "val") if split in source.available), None)
    named = (held_out if split == CLEAN_SPLIT else split for split in attack.shuffles)
    return tuple(split for split in named if split in source.available)


@dataclass(frozen=True)
class Chosen:
    """Indices within ``train``: those that are poisoned, and those that carry the trigger with their true label."""

    poisoned: frozenset[int] = frozenset()
    covers: frozenset[int] = frozenset()


def choose_training(
    source: Source,
    surveys: Mapping[str, Survey],
    *,
    attack: Attack,
    rate: float,
    cover_rate: float,
    seed: int,
    goal: Goal,
) -> Chosen:
    """Which training images get the trigger, none where ``train`` is not staged.

    Args:
        source: where the images are; the splits that the attack shuffles count even when they are not staged.
        surveys: of the splits that are staged.
        attack: says how indices are drawn, and of which classes.
        rate: share of all training images to poison, also where a clean-label attack draws them from one class.
        cover_rate: share of all training images to be cover.
        seed: of the draw.
        goal: says which classes may be poisoned.

    Raises:
        UsageError: more images are asked for than the classes have that may be poisoned, or be cover.
    """
    if "train" not in surveys:
        return Chosen()
    total, labels = surveys["train"].images, None
    if goal.clean_label or goal.sources or (cover_rate and attack.cover_classes):
        labels = [image.label for image in source.images("train")]
    among = None
    if labels is not None and (goal.clean_label or goal.sources):
        among = [index for index, label in enumerate(labels) if goal.may_poison(label)]
        _check_enough(attack, rate, total=total, goal=goal, eligible=len(among))
    sizes = [(surveys.get(split) or source.survey(split)).images for split in shuffled_splits(source, attack)]
    if attack.draw == "choice":
        poisoned = chosen_indices(total, rate, seed=seed, among=among)
    else:
        poisoned = poison_indices(sizes, rate, seed=seed, among=None if among is None else frozenset(among))
    if not cover_rate:
        return Chosen(poisoned)
    to_cover = None if labels is None else _may_cover(labels, attack, goal)
    _check_cover(cover_rate, total=total, left=(set(range(total)) if to_cover is None else to_cover) - poisoned)
    return Chosen(poisoned, cover_indices(sizes, cover_rate, seed=seed, poisoned=poisoned, among=to_cover))


def _may_cover(labels: Sequence[int], attack: Attack, goal: Goal) -> set[int]:
    named = attack.cover_classes
    return {i for i, label in enumerate(labels) if goal.may_cover(label) and (not named or label in named)}


def _check_enough(attack: Attack, rate: float, *, total: int, goal: Goal, eligible: int) -> None:
    wanted = round(total * rate) if attack.draw == "choice" else int(total * rate)
    if wanted <= eligible:
        return
    if goal.sources:
        why = f"the source classes ({', '.join(map(str, goal.sources))}) have only {eligible}"
        way_out = "name more with ‹params› source_classes="
    else:
        why = f"class {goal.target}, the target, has only {eligible} and a clean-label attack poisons no others"
        way_out = "take another ‹target›"
    raise UsageError(
        f"{setting('poison_rate', rate)} of {total} training images is {wanted}, but {why}; lower ‹poison_rate› to "
        f"{int(1e4 * eligible / total) / 1e4} or less, or {way_out}"
    )


def _check_cover(rate: float, *, total: int, left: set[int]) -> None:
    if (wanted := int(total * rate)) > len(left):
        raise UsageError(
            f"{setting('cover_rate', rate)} of {total} training images is {wanted}, but only {len(left)} that may be "
            f"cover are left; lower ‹cover_rate› to {int(1e4 * len(left) / total) / 1e4} or less"
        )
