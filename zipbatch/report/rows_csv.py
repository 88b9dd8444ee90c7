"""The table of a pipeline as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zipbatch import atomic
from zipbatch.results import EvaluationRow, PipelineRow, SeedlessRow, SeedRow, dump


def write_rows_csv(path: Path, rows: Sequence[PipelineRow], over_seeds: Sequence[SeedRow | SeedlessRow] | None) -> None:
    """Publish ``rows_csv`` as a file."""
    atomic.write_bytes(path, rows_csv(rows, over_seeds).encode())


def rows_csv(rows: Sequence[EvaluationRow], over_seeds: Sequence[SeedRow | SeedlessRow] | None) -> str:
    """One line a row: axes, names and measures; intervals as two columns.

    Where there are rows ``over_seeds``, ``row`` says ``single``, or ``mean``, which has standard deviations, too.
    """
    single = {} if over_seeds is None else {"row": "single"}
    lines = [_line(row, single) for row in rows] + [_line(row, {"row": "mean"}) for row in over_seeds or ()]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for line in lines for key in line)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _line(row: EvaluationRow | SeedRow, more: Mapping[str, str]) -> dict[str, Any]:
    line: dict[str, Any] = dict(more)
    for name, value in dump(row).items():
        if name.endswith("_ci95"):
            line |= {f"{name}_low": value[0] if value else None, f"{name}_high": value[1] if value else None}
        elif isinstance(value, list):
            line[name] = " ".join(map(str, value))
        elif not isinstance(value, dict):
            line[name] = value
    own = row.axes if isinstance(row, PipelineRow | SeedRow) else {}
    axes = {f"axis.{axis}" if axis in line else axis: value for axis, value in own.items()}
    return axes | line
