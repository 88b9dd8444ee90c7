"""Which training images of a source are poisoned, and what for."""

from __future__ import annotations

from collections.abc import Mapping

from zipbatch.attacks import Attack, Goal, chosen_indices, poison_indices
from zipbatch.errors import UsageError
from zipbatch.shards.dataset import ALL_TO_ALL, ALL_TO_ONE, CLEAN_SPLIT, TargetMode
from zipbatch.stages.source import Source, Survey


def attack_goal(
    attack: Attack, classes: int, *, mode: TargetMode, target: int | None, clean_label: bool | None
) -> Goal:
    """What the attack is after; None takes its own default.

    Raises:
        UsageError: a target that is no class, or settings that contradict each other.
    """
    clean = attack.clean_label if clean_label is None else clean_label
    if mode == ALL_TO_ONE:
        chosen = attack.default_target if target is None else target
        if not 0 <= chosen < classes:
            raise UsageError(f"--target {chosen} is not one of the {classes} classes 0..{classes - 1}")
        return Goal(classes, chosen, clean)
    if target is not None:
        raise UsageError(f"--target is for {ALL_TO_ONE}; {ALL_TO_ALL} takes each class for the next")
    if clean:
        raise UsageError(f"attack {attack.name}: {ALL_TO_ALL} leaves no label true; add --no-clean-label")
    if classes < 2:
        raise UsageError(f"--target-mode {ALL_TO_ALL} needs two classes or more, got {classes}")
    return Goal(classes, None)


def shuffled_splits(source: Source, attack: Attack) -> tuple[str, ...]:
    """The splits that the attack's published code shuffles, under the names that ``source`` has for them: what it calls
    ``test`` is ``val`` where there is no ``test``.
    """
    held_out = next((split for split in (CLEAN_SPLIT, "val") if split in source.available), None)
    named = (held_out if split == CLEAN_SPLIT else split for split in attack.shuffles)
    return tuple(split for split in named if split in source.available)


def choose_poisoned(
    source: Source, surveys: Mapping[str, Survey], *, attack: Attack, rate: float, seed: int, goal: Goal
) -> frozenset[int]:
    """Indices within ``train``, empty where that is not staged.

    Args:
        source: where the images are; the splits that the attack shuffles count even when they are not staged.
        surveys: of the splits that are staged.
        attack: says how indices are drawn.
        rate: share of all training images to poison, also where a clean-label attack draws them from one class.
        seed: of the draw.
        goal: the target class of a clean-label attack.

    Raises:
        UsageError: a clean-label attack asks for more images than the target class has.
    """
    if "train" not in surveys:
        return frozenset()
    total, among = surveys["train"].images, None
    if goal.clean_label:
        among = [index for index, image in enumerate(source.images("train")) if image.label == goal.target]
        _check_enough(attack, rate, total=total, target=goal.target, eligible=len(among))
    if attack.draw == "choice":
        return chosen_indices(total, rate, seed=seed, among=among)
    sizes = [(surveys.get(split) or source.survey(split)).images for split in shuffled_splits(source, attack)]
    return poison_indices(sizes, rate, seed=seed, among=None if among is None else frozenset(among))


def _check_enough(attack: Attack, rate: float, *, total: int, target: int | None, eligible: int) -> None:
    wanted = round(total * rate) if attack.draw == "choice" else int(total * rate)
    if wanted > eligible:
        raise UsageError(
            f"--poison-rate {rate} of {total} training images is {wanted}, but class {target}, the target, has "
            f"only {eligible} and a clean-label attack poisons no others; lower --poison-rate to "
            f"{int(1e4 * eligible / total) / 1e4} or less, or take another --target"
        )
