"""Contact sheets."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from zipbatch.report.sheet import Mark, SheetColumn, SheetRow, contact_sheet

ROWS = [SheetRow("cat", "k/0001"), SheetRow("dog", "k/0002")]


def column(rows: int, colour: tuple[int, int, int], *, title: str = "title", mark: Mark = "wrong") -> SheetColumn:
    return SheetColumn(
        title=title, images=[np.full((16, 16, 3), colour, np.uint8)] * rows, answers=["cat"] * rows, marks=[mark] * rows
    )


def pixels(png: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(png)).convert("RGB"))


def test_a_sheet_shows_its_images_and_is_deterministic():
    columns = [column(2, (200, 10, 20)), column(2, (10, 20, 200))]
    png = contact_sheet("sheet", ROWS, columns)
    assert png == contact_sheet("sheet", ROWS, columns)
    seen = pixels(png).reshape(-1, 3)
    for colour in ((200, 10, 20), (10, 20, 200)):
        assert (seen == colour).all(axis=1).sum() > 1000


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_no_title_reaches_the_edge(count: int):
    """Of any number of columns; a title that is cut off would leave ink in the outermost pixels."""
    columns = [column(1, (90, 90, 90), title="a very long purifier k=10 start=300 eta=1" * 2)] * count
    picture = pixels(contact_sheet("many words " * 20, ROWS[:1], columns))
    edge = np.concatenate([picture[:, :2].reshape(-1, 3), picture[:, -2:].reshape(-1, 3), picture[:2].reshape(-1, 3)])
    assert (edge == 255).all()


@pytest.mark.parametrize(
    ("marks", "meant"),
    [((), 0), (("unknown",), 0), (("right",), 1), (("right", "target"), 2), (("target", "wrong"), 2)],
)
def test_colours_are_explained_where_there_are_any(monkeypatch: pytest.MonkeyPatch, marks: Sequence[Mark], meant: int):
    from matplotlib.figure import Figure

    told: list[list[str]] = []
    draw = Figure.legend
    monkeypatch.setattr(Figure, "legend", lambda self, h, t, **o: (told.append(list(t)), draw(self, h, t, **o))[1])
    contact_sheet("sheet", ROWS[:1], [column(1, (1, 2, 3), mark=mark) for mark in marks or ("unknown",)])
    assert [len(texts) for texts in told] == ([meant] if meant else [])


def test_columns_must_be_of_one_length():
    with pytest.raises(ValueError, match="2 images"):
        contact_sheet("sheet", ROWS, [column(1, (0, 0, 0))])


@pytest.mark.parametrize("text", ["\udcff", "\x1b[31m", "日本", "a" * 300])
def test_any_text_can_be_drawn(text: str):
    one = SheetColumn(title=text, images=[np.zeros((8, 12, 3), np.uint8)], answers=[text], marks=["unknown"])
    assert pixels(contact_sheet(text, [SheetRow(text, text)], [one])).shape[2] == 3


@pytest.mark.parametrize(("suffix", "magic"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".SVG", b"<?xml")])
def test_the_suffix_is_what_is_written(suffix: str, magic: bytes):
    made = contact_sheet("sheet", ROWS[:1], [column(1, (9, 9, 9))], suffix=suffix)
    assert made.startswith(magic)
    assert made == contact_sheet("sheet", ROWS[:1], [column(1, (9, 9, 9))], suffix=suffix)
