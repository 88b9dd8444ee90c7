"""Where everything of a chart is drawn: an SVG's coordinates, worked out here so that the template only writes them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from zipbatch.report.page.model import Chart, Point
from zipbatch.report.units import share_text

SERIES = 6
"""Colours and shapes that are told apart; further series share the last."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 12, 46

_CORNERS: tuple[tuple[tuple[float, float], ...] | None, ...] = (
    None,  # a circle
    ((-1, -1), (1, -1), (1, 1), (-1, 1)),
    ((0, -1.25), (1.2, 0.9), (-1.2, 0.9)),
    ((0, -1.4), (1.4, 0), (0, 1.4), (-1.4, 0)),
    ((0, 1.25), (1.2, -0.9), (-1.2, -0.9)),
    ((-1.3, -0.5), (0, -0.5), (0, -1.3), (1.3, 0), (0, 1.3), (0, 0.5), (-1.3, 0.5)),
)


@dataclass(frozen=True)
class Tick:
    """A line of the grid, where it is and what it says."""

    at: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A point: its number in the table, where it is, where its intervals end, and where it comes from."""

    number: int
    label: str
    series: int
    x: float
    y: float
    x_ends: tuple[float, float]
    y_ends: tuple[float, float]
    path: str
    start: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A chart of ``width`` by ``height``, the frame of its grid, and all that is in it."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    dots: Sequence[Dot]


def series_of(chart: Chart) -> dict[str, int]:
    """The series in their order, each with the number of its colour."""
    names = dict.fromkeys(point.series for point in chart.points)
    return {name: min(number, SERIES - 1) for number, name in enumerate(names)}


def shape(series: int, x: float, y: float, *, size: float = 5.5) -> str:
    """The outline of a point as an SVG path: each series has another, so that colour is not needed."""
    corners = _CORNERS[series]
    if corners is None:
        return f"M{x - size:.1f} {y:.1f}a{size} {size} 0 1 0 {2 * size} 0a{size} {size} 0 1 0 {-2 * size} 0z"
    return "M" + "L".join(f"{x + size * dx:.1f} {y + size * dy:.1f}" for dx, dy in corners) + "z"


def drawing(chart: Chart, *, width: int, height: int) -> Drawing:
    """The chart in so many units; the x axis shows all of [0, 1], the y axis what is needed of it."""
    right, bottom = width - _RIGHT, height - _BOTTOM
    low, high = _range(chart.points)

    def x_of(value: float) -> float:
        return round(_LEFT + value * (right - _LEFT), 1)

    def y_of(value: float) -> float:
        return round(bottom - (value - low) / (high - low) * (bottom - _TOP), 1)

    colours = series_of(chart)
    places = [(x_of(point.x), y_of(point.y)) for point in chart.points]
    dots = [
        Dot(
            number=number,
            label=point.label,
            series=colours[point.series],
            x=x,
            y=y,
            x_ends=(x_of(point.x_ends[0]), x_of(point.x_ends[1])),
            y_ends=(y_of(point.y_ends[0]), y_of(point.y_ends[1])),
            path=shape(colours[point.series], x, y),
            start=None if point.before is None else places[point.before],
        )
        for number, (point, (x, y)) in enumerate(zip(chart.points, places, strict=True))
    ]
    return Drawing(
        width=width,
        height=height,
        left=_LEFT,
        right=right,
        top=_TOP,
        bottom=bottom,
        x_ticks=[Tick(x_of(i / 5), f"{i / 5:g}") for i in range(6)],
        y_ticks=[Tick(y_of(value), share_text(value)[:-1]) for value in _ticks(low, high)],
        dots=dots,
    )


def _range(points: Sequence[Point]) -> tuple[float, float]:
    """From and to tenths, all intervals within."""
    low = min((point.y_ends[0] for point in points), default=0.0)
    high = max((point.y_ends[1] for point in points), default=1.0)
    low, high = max(0.0, math.floor(low * 10) / 10), min(1.0, math.ceil(high * 10) / 10)
    return (low, high) if high > low else (max(0.0, low - 0.1), min(1.0, high + 0.1))


def _ticks(low: float, high: float) -> list[float]:
    step = next(step for step in (0.02, 0.05, 0.1, 0.2) if (high - low) / step <= 6.01 or step == 0.2)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 2) for number in range(first, last + 1)]
