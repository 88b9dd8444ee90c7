"""Contact sheets."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from zipbatch.report import SheetColumn, contact_sheet


def column(rows: int, colour: tuple[int, int, int]) -> SheetColumn:
    return SheetColumn("title", np.full((rows, 16, 16, 3), colour, np.uint8), ["cat"] * rows, [True] * rows)


def test_a_sheet_shows_its_images_and_is_deterministic():
    columns = [column(2, (200, 10, 20)), column(2, (10, 20, 200))]
    png = contact_sheet("sheet", ["cat", "dog"], columns)
    assert png == contact_sheet("sheet", ["cat", "dog"], columns)
    pixels = np.array(Image.open(io.BytesIO(png)).convert("RGB")).reshape(-1, 3)
    for colour in ((200, 10, 20), (10, 20, 200)):
        assert (pixels == colour).all(axis=1).sum() > 1000


def test_columns_must_be_of_one_length():
    with pytest.raises(ValueError, match="2 images"):
        contact_sheet("sheet", ["cat", "dog"], [column(1, (0, 0, 0))])
