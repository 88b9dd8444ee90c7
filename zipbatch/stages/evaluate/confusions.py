"""How a victim takes the classes for each other, before and after, as a page shows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from zipbatch.report.page.model import Confusion, Matrix
from zipbatch.stages.evaluate.tally import CLEAN, TRIGGERED, Tally
from zipbatch.stages.evaluate.victims import class_name

_Pairs = Counter[tuple[int, int]]
MOST_CLASSES = 14
"""More do not fit a page side by side; then those are shown that are mistaken most."""


def confusions(
    victim: str, forms: Sequence[tuple[str, Tally]], *, classes: int, names: Sequence[str] | None
) -> list[Confusion]:
    """Of clean and of triggered images; without labels, of the answers before and after purification.

    Args:
        victim: its name where there are several, else nothing.
        forms: each form with its title and what was counted on it; the first is the data as it came.
        classes: how many the victim knows.
        names: theirs.
    """
    about = f" ({victim})" if victim else ""
    found = []
    for kind in (CLEAN, TRIGGERED):
        counted = [(title, pairs) for title, tally in forms if (pairs := tally.confusion.get(kind))]
        if counted and not forms[0][1].beyond.count:
            title = f"Confusion, {kind} images{about}"
            found.append(_confusion(title, counted, classes, names, rows="true class"))
    return found or moves(
        victim, [(title, tally.flips) for title, tally in forms[1:] if tally.flips], classes=classes, names=names
    )


def moves(
    victim: str, moved: Sequence[tuple[str, _Pairs]], *, classes: int, names: Sequence[str] | None
) -> list[Confusion]:
    """Of the answers before and after purification, a matrix for each purified form; as ``confusions`` otherwise."""
    title = f"Answers before and after{f' ({victim})' if victim else ''}"
    return [_confusion(title, moved, classes, names, rows="answer before")] if moved else []


def _confusion(
    title: str, counted: Sequence[tuple[str, _Pairs]], classes: int, names: Sequence[str] | None, *, rows: str
) -> Confusion:
    shown = (
        list(range(classes)) if classes <= MOST_CLASSES else _most_mistaken([pairs for _, pairs in counted], classes)
    )
    matrices = [Matrix(text, [[pairs[row, column] for column in shown] for row in shown]) for text, pairs in counted]
    about = "Images by class; the darker a cell, the larger its share of its row."
    if len(shown) < classes:
        about += f" Shown are the {len(shown)} of {classes} classes that are mistaken most."
    after = "answer" if rows == "true class" else "answer after"
    return Confusion(
        title=title,
        classes=[class_name(index, names) for index in shown],
        matrices=matrices,
        rows=rows,
        columns=after,
        about=about,
    )


def _most_mistaken(every: Sequence[_Pairs], classes: int) -> list[int]:
    """The classes with most images off the diagonal, as class or as answer."""
    off = dict.fromkeys(range(classes), 0)
    for pairs in every:
        for (row, column), count in pairs.items():
            if row != column:
                off[row] += count
                off[column] += count
    return sorted(index for index, _ in sorted(off.items(), key=lambda one: (-one[1], one[0]))[:MOST_CLASSES])
