"""Which training images of a source are poisoned, and what for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from zipbatch.attacks import Attack, Goal, poison_indices
from zipbatch.errors import UsageError
from zipbatch.shards.dataset import ALL_TO_ALL, ALL_TO_ONE, TargetMode
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


def choose_poisoned(
    source: Source, surveys: Mapping[str, Survey], *, shuffles: Sequence[str], rate: float, seed: int, goal: Goal
) -> frozenset[int]:
    """Indices within ``train``, empty where that is not staged.

    Args:
        source: where the images are.
        surveys: of the splits that are staged.
        shuffles: the attack's own shuffles, whose splits count even when they are not staged themselves.
        rate: share of all training images to poison, also where a clean-label attack draws them from one class.
        seed: of the shuffles.
        goal: the target class of a clean-label attack.

    Raises:
        UsageError: a clean-label attack asks for more images than the target class has.
    """
    if "train" not in surveys:
        return frozenset()
    sizes = [
        surveys[split].images if split in surveys else source.survey(split).images
        for split in shuffles
        if split in source.available
    ]
    if not goal.clean_label:
        return poison_indices(sizes, rate, seed=seed)
    among = frozenset(index for index, image in enumerate(source.images("train")) if image.label == goal.target)
    total, wanted = sizes[-1], int(sizes[-1] * rate)
    if wanted > len(among):
        raise UsageError(
            f"--poison-rate {rate} of {total} training images is {wanted}, but class {goal.target}, the target, has "
            f"only {len(among)} and a clean-label attack poisons no others; lower --poison-rate to "
            f"{int(1e4 * len(among) / total) / 1e4} or less, or take another --target"
        )
    return poison_indices(sizes, rate, seed=seed, among=among)
