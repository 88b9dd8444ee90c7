"""``poison --sheet``: what was staged, to look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.making import write_source, zipbatch
from zipbatch.images import is_png
from zipbatch.report import sheet as drawn
from zipbatch.report.sheet import SheetColumn, SheetRow
from zipbatch.stages.poison import sheet
from zipbatch.stages.poison.sheet import ROWS, enlarged

FLAGS = ("--attack", "badnets", "--samples-per-shard", 5)


def test_images_clean_and_with_the_trigger_side_by_side(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[tuple[list[SheetRow], list[SheetColumn]]] = []

    def noted(title: str, rows: list[SheetRow], columns: list[SheetColumn], **others: str) -> bytes:
        seen.append((rows, columns))
        return drawn.contact_sheet(title, rows, columns, **others)

    monkeypatch.setattr(sheet, "contact_sheet", noted)
    ran = zipbatch("poison", source, *FLAGS, "--target", 1, "--out", tmp_path / "s", "--sheet", tmp_path / "s.png")
    assert ran.code == 0, ran.err
    assert is_png(tmp_path / "s.png")
    ((rows, (clean, stamped, difference)),) = seen
    assert 0 < len(rows) <= ROWS
    assert set(stamped.answers) == {"bee"}
    assert set(clean.answers) <= {"ant", "bee", "cow"}
    for one, other, between in zip(clean.images, stamped.images, difference.images, strict=True):
        assert not np.array_equal(one, other)
        assert np.array_equal(enlarged(one, other), between)
        assert (between[0, 0] == 128).all(), "the patch is at the lower right"
    again = zipbatch("poison", source, *FLAGS, "--target", 1, "--out", tmp_path / "s", "--sheet", tmp_path / "t.svg")
    assert "already staged" in again.out
    assert (tmp_path / "t.svg").read_bytes().lstrip().startswith(b"<?xml")


def test_differences_are_enlarged_around_grey():
    clean, stamped = np.full((1, 1, 3), 100, np.uint8), np.array([[[101, 99, 255]]], np.uint8)
    assert enlarged(clean, stamped).tolist() == [[[136, 120, 255]]]


def test_where_there_is_nothing_to_show_it_is_told(tmp_path: Path):
    source = write_source(tmp_path / "src", counts={"train": 6})
    ran = zipbatch("poison", source, *FLAGS, "--out", tmp_path / "s", "--sheet", tmp_path / "s.png")
    assert ran.code == 2
    assert "has no test_poisoned to show on a sheet" in ran.err
    ran = zipbatch("poison", source, *FLAGS, "--out", tmp_path / "t", "--sheet", tmp_path / "s.doc")
    assert (ran.code, (tmp_path / "t").exists()) == (2, False)
