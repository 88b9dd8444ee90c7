"""What a report consists of, before anybody thinks of HTML. Texts are as the data has them: the template escapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
Tone = Literal["good", "bad", "unsure", "plain"]
"""How a finding is coloured; its text says the same."""
Mark = Literal["right", "wrong", "target", "unknown"]
"""What an answer is: the true class, another one, the one that the attack is after, or nobody knows."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A sentence of the verdict, ``who`` it is about, how it is coloured, and ``more`` in small."""

    text: str
    tone: Tone = "plain"
    who: str = ""
    more: str = ""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number to see at once: ``before`` and ``after`` are texts, the first empty where there is none."""

    title: str
    after: str
    before: str = ""
    about: str = ""


@dataclass(frozen=True)
class Column:
    """A column of a table. ``about`` says what it means; numbers stand on the right."""

    title: str
    numeric: bool = False
    about: str = ""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What a cell shows, ``more`` beside it in small, and the ``value`` that it is sorted by, unrounded."""

    text: str
    value: float | None = None
    more: str = ""
    about: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of as many cells as there are columns; ``notes`` stand below. The first ``names`` columns name a row."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()
    names: int = 1


@dataclass(frozen=True, kw_only=True)
class Point:
    """A row in the chart: ``x`` and ``y`` with the ends of their intervals, all in [0, 1].

    ``series`` is what its colour stands for, ``before`` the number of the point that it starts from.
    """

    label: str
    series: str
    x: float
    y: float
    x_ends: tuple[float, float]
    y_ends: tuple[float, float]
    before: int | None = None


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Points over two axes, all shares of 1."""

    title: str
    x_title: str
    y_title: str
    points: Sequence[Point]
    about: str = ""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One form of an image, uint8 [H, W, 3], with the victim's ``answer`` where it was asked.

    ``score`` is the share of 1 that the victim gives its answer, ``about`` what else is said below the picture.
    """

    title: str
    pixels: U8
    answer: str = ""
    mark: Mark = "unknown"
    score: float | None = None
    about: str = ""


@dataclass(frozen=True)
class Item:
    """An image in all its forms."""

    key: str
    pictures: Sequence[Picture]
    about: str = ""


@dataclass(frozen=True)
class Tab:
    """Images of a kind; ``about`` says of which, and stands alone where there are none."""

    title: str
    items: Sequence[Item]
    about: str = ""


@dataclass(frozen=True)
class Gallery:
    """Images in tabs."""

    title: str
    tabs: Sequence[Tab]
    about: str = ""


@dataclass(frozen=True)
class Matrix:
    """Images by class (a row) and answer (a column), with how many each holds."""

    title: str
    counts: Sequence[Sequence[int]]


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """The matrices of one victim over one kind of images, one for each form, all with the same ``classes``.

    Where they are only some of the victim's, ``about`` says which.
    """

    title: str
    classes: Sequence[str]
    matrices: Sequence[Matrix]
    rows: str = "true class"
    columns: str = "answer"
    about: str = ""


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A line of the provenance. A text of several lines is folded away, unless it is to be ``unfolded``."""

    name: str
    text: str
    code: bool = False
    unfolded: bool = False


@dataclass(frozen=True)
class Facts:
    """Lines of the provenance under a title."""

    title: str
    facts: Sequence[Fact]


@dataclass(frozen=True)
class Provenance:
    """Where the numbers come from; ``command`` is the line that makes them again, empty where nobody knows it."""

    command: str
    groups: Sequence[Facts]


@dataclass(frozen=True, kw_only=True)
class Page:
    """A report."""

    title: str
    about: str
    findings: Sequence[Finding]
    provenance: Provenance
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()
    galleries: Sequence[Gallery] = ()
    confusions: Sequence[Confusion] = ()
    notes: Sequence[str] = field(default=())
