"""Contact sheets: images side by side with what the victim makes of each."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from zipbatch.report.figure import drawable, figure_bytes

Mark = Literal["right", "wrong", "target", "unknown"]
"""What an answer is: the true class, another one, the one that the attack is after, or nobody knows."""

_COLOURS: dict[Mark, str] = {"right": "#1b5e20", "wrong": "#8a6d00", "target": "#b00020", "unknown": "#202020"}
_MEANINGS: dict[Mark, str] = {"right": "the true class", "wrong": "another class", "target": "the attack's target"}
_COLUMN_IN, _ROW_IN, _LEFT_IN = 1.55, 1.75, 0.55
_LETTERS_PER_IN = 13.0  # of the titles over columns
_KEY_LETTERS = 24


@dataclass(frozen=True)
class SheetRow:
    """What is said of one image: a title on the left, and its key below."""

    title: str
    key: str


@dataclass(frozen=True, kw_only=True)
class SheetColumn:
    """One form of the images: ``images`` uint8 [H, W, 3] each, with an answer under each and what that is."""

    title: str
    images: Sequence[npt.NDArray[np.uint8]]
    answers: Sequence[str]
    marks: Sequence[Mark]


def contact_sheet(
    title: str, rows: Sequence[SheetRow], columns: Sequence[SheetColumn], *, suffix: str = ".png"
) -> bytes:
    """A figure with a row for each image and a column for each of its forms; below, what the colours mean.

    Raises:
        ValueError: no columns, or a column of another length than ``rows``.
    """
    from matplotlib.figure import Figure

    if not columns or any(len(column.images) != len(rows) for column in columns):
        raise ValueError(f"a contact sheet needs columns of {len(rows)} images each")
    width = max(_COLUMN_IN * len(columns) + _LEFT_IN, 4.2)
    head = textwrap.fill(drawable(title), int(width * _LETTERS_PER_IN))
    lines = 1 + max(_wrapped(column.title).count("\n") for column in columns)
    height = _ROW_IN * len(rows) + 0.2 * (head.count("\n") + 1) + 0.17 * lines + 0.4
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    figure.suptitle(head, fontsize=10)
    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    for j, column in enumerate(columns):
        for i, row in enumerate(rows):
            axes, first = grid[i][j], j == 0
            axes.imshow(column.images[i], interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            mark = column.marks[i]
            weight = "bold" if mark == "target" else "normal"
            axes.set_xlabel(drawable(column.answers[i]), fontsize=8, color=_COLOURS[mark], weight=weight)
            if first:
                axes.set_ylabel(drawable(row.title), fontsize=8)
                place = {"ha": "left", "va": "top", "fontsize": 6, "color": "#606060", "family": "monospace"}
                axes.annotate(_short(row.key), (0, 0), (0, -16), "axes fraction", "offset points", None, **place)
            if i == 0:
                axes.set_title(_wrapped(column.title), fontsize=9)
    _legend(figure, {mark for column in columns for mark in column.marks})
    return figure_bytes(figure, suffix)


def _legend(figure: object, marks: set[Mark]) -> None:
    from matplotlib.lines import Line2D

    meant = [mark for mark in _MEANINGS if mark in marks]
    handles = [Line2D([], [], marker="s", linestyle="", color=_COLOURS[mark]) for mark in meant]
    if handles:
        labels = [f"answer is {_MEANINGS[mark]}" for mark in meant]
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(meant), 3), fontsize=7, frameon=False)  # type: ignore[attr-defined]


def _wrapped(title: str) -> str:
    return textwrap.fill(drawable(title), int(_COLUMN_IN * _LETTERS_PER_IN), break_long_words=True)


def _short(key: str) -> str:
    """A key that fits under a picture: its beginning and its end, which tells it from its neighbours."""
    text = drawable(key)
    if len(text) <= _KEY_LETTERS:
        return text
    half = (_KEY_LETTERS - 1) // 2
    return f"{text[:half]}…{text[-half:]}"
