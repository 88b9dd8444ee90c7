"""Curves of a defence's measures against its strength."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zipbatch.report.figure import figure_bytes

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class StrengthLine:
    """One attack: measures in [0, 1] with their 95 % intervals at each of the N exponents, in any order.

    ``undefended_ca`` is drawn as a level of the same colour.
    """

    name: str
    exponents: Sequence[float]
    ca: Sequence[float]
    ca_ci95: Sequence[Interval]
    asr: Sequence[float]
    asr_ci95: Sequence[Interval]
    undefended_ca: float


def strength_curve(title: str, lines: Sequence[StrengthLine], *, suffix: str = ".png") -> bytes:
    """A figure with clean accuracy and attack success rate against the guidance exponent, one colour an attack.

    Raises:
        ValueError: no lines, or a line without points.
    """
    from matplotlib.figure import Figure

    if not lines or not all(line.exponents for line in lines):
        raise ValueError("a curve needs lines with points")
    figure = Figure(figsize=(10, 4), dpi=110, layout="constrained")
    figure.suptitle(title, fontsize=11)
    accuracy, success = figure.subplots(1, 2)
    for number, line in enumerate(lines):
        order = sorted(range(len(line.exponents)), key=lambda i: line.exponents[i])
        x = [line.exponents[i] for i in order]
        for axes, values, intervals in ((accuracy, line.ca, line.ca_ci95), (success, line.asr, line.asr_ci95)):
            color = f"C{number}"
            axes.plot(x, [values[i] for i in order], "o-", color=color, label=line.name, markersize=3.5, linewidth=1.4)
            low, high = ([intervals[i][end] for i in order] for end in (0, 1))
            axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
        accuracy.axhline(line.undefended_ca, color=f"C{number}", linewidth=0.8, linestyle=":")
    success.axhline(0.02, color="black", linewidth=0.8, linestyle=":")
    accuracy.set_ylabel("CA (dotted: no defence)")
    success.set_ylabel("ASR (dotted: .02)")
    success.set_yscale("symlog", linthresh=0.02)
    success.set_yticks([0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1], ["0", ".01", ".02", ".05", ".1", ".2", ".5", "1"])
    for axes in (accuracy, success):
        axes.set_xscale("log")
        ticks = sorted({exponent for line in lines for exponent in line.exponents})
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel("guidance exponent: stronger ← → weaker")
        axes.grid(alpha=0.25)
    success.legend(fontsize=8)
    return figure_bytes(figure, suffix)
