"""Figures as files: PNG, PDF or SVG, as the file's name says; the same figure gives the same bytes."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zipbatch.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NO_TIME: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".pdf": {"Creator": None, "Producer": None, "CreationDate": None},
    ".svg": {"Creator": None, "Date": None},
}
FIGURE_SUFFIXES = tuple(_NO_TIME)


def check_figure(path: Path, flag: str) -> Path:
    """A file that a figure can be written to, told before the work.

    Raises:
        UsageError: its suffix is none of ``FIGURE_SUFFIXES``, or its folder is not there.
    """
    if path.suffix.lower() not in FIGURE_SUFFIXES:
        raise UsageError(f"{flag} {path}: a figure is written as {', '.join(FIGURE_SUFFIXES)}; name such a file")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{flag} {path}: its folder is not there")
    return path


def figure_bytes(figure: Figure, suffix: str = ".png") -> bytes:
    """The figure in the format of ``suffix``, one of ``FIGURE_SUFFIXES``."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    buffer, suffix = io.BytesIO(), suffix.lower()
    with rc_context({"svg.hashsalt": "zipbatch", "pdf.fonttype": 42}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a box stands for it
        kind = suffix.removeprefix(".")
        figure.savefig(buffer, format=kind, metadata=_NO_TIME[suffix], bbox_inches="tight", pad_inches=0.1)
    return buffer.getvalue()


def drawable(text: str) -> str:
    """Text that a font can be asked for: what is half a surrogate or a control character becomes a question mark."""
    whole = text.encode(errors="replace").decode()
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in whole)
