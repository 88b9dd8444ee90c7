"""Clean accuracy against the attack's success, as a figure."""

from __future__ import annotations

from zipbatch.report.figure import drawable, figure_bytes
from zipbatch.report.page.model import Chart

_MARKERS = "os^Dv>P*X"


def tradeoff_figure(chart: Chart, *, suffix: str = ".png") -> bytes:
    """The points of a chart with their intervals, a colour and a shape for each series.

    Raises:
        ValueError: a chart without points.
    """
    from matplotlib.figure import Figure

    if not chart.points:
        raise ValueError("a figure needs points")
    figure = Figure(figsize=(7, 4.5), dpi=130, layout="constrained")
    axes = figure.subplots()
    for number, name in enumerate(dict.fromkeys(point.series for point in chart.points)):
        points = [point for point in chart.points if point.series == name]
        colour = f"C{number % 10}"
        axes.errorbar(
            [point.x for point in points],
            [point.y for point in points],
            xerr=[[abs(point.x - point.x_ends[end]) for point in points] for end in (0, 1)],
            yerr=[[abs(point.y - point.y_ends[end]) for point in points] for end in (0, 1)],
            fmt=_MARKERS[number % len(_MARKERS)],
            color=colour,
            elinewidth=1,
            label=_in_a_legend(name),
        )
        for point in points:
            if point.before is not None:
                start = chart.points[point.before]
                axes.plot([start.x, point.x], [start.y, point.y], ":", color=colour, linewidth=0.8, alpha=0.6)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel(drawable(chart.x_title))
    axes.set_ylabel(drawable(chart.y_title))
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False)
    return figure_bytes(figure, suffix)


def _in_a_legend(name: str) -> str:
    """Matplotlib takes a label for a formula between dollars, and hides one that begins with an underscore."""
    text = drawable(name).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
