"""Contact sheets: images side by side with what the victim makes of each."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class SheetColumn:
    """One column: ``images`` uint8 [N, H, W, 3] and an answer under each; ``wrong`` answers are printed in red."""

    title: str
    images: npt.NDArray[np.uint8]
    answers: Sequence[str]
    wrong: Sequence[bool]


def contact_sheet(title: str, row_titles: Sequence[str], columns: Sequence[SheetColumn]) -> bytes:
    """A PNG with a row for each image, titled on the left, and a column for each of its forms.

    Raises:
        ValueError: no columns, or a column of another length than ``row_titles``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = len(row_titles)
    if not columns or any(len(column.images) != rows for column in columns):
        raise ValueError(f"a contact sheet needs columns of {rows} images each")
    figure = Figure(figsize=(1.55 * len(columns) + 0.2, 1.6 * rows + 0.9), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10)
    grid = figure.subplots(rows, len(columns), squeeze=False)
    for j, column in enumerate(columns):
        for i in range(rows):
            axes = grid[i][j]
            axes.imshow(column.images[i], interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_xlabel(column.answers[i], fontsize=8, color="#b00020" if column.wrong[i] else "#1b5e20")
            if j == 0:
                axes.set_ylabel(row_titles[i], fontsize=8)
            if i == 0:
                axes.set_title(column.title, fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
