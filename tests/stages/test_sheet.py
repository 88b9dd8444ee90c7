"""Contact sheets of versions made by different purifiers."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from tests.making import IMAGE_SIZE, zipbatch
from zipbatch.report import SheetColumn, contact_sheet
from zipbatch.stages import sheet

METHODS = {
    "ddnm": ("--set", "steps=2"),
    "diffpure": ("--steps", 100, "--set", "start_step=30"),
    "jpeg": ("--set", "quality=10"),
    "shrinkpad": (),
    "blur": (),
}


@pytest.fixture(scope="module")
def store(staged: Path, prior: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The staged test splits purified by five purifiers, each under a tag of its own name."""
    folder = tmp_path_factory.mktemp("stores") / "pur"
    for method, settings in METHODS.items():
        asked = ("--purifier", method, *settings, "--prior", prior, "--device", "cpu", "--tag", method)
        ran = zipbatch("purify", staged, *asked, "--store", folder)
        assert ran.code == 0, ran.err
    return folder


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[SheetColumn]:
    """The columns of the sheets that are drawn from here on."""
    columns: list[SheetColumn] = []

    def noted(title: str, row_titles: Sequence[str], given: Sequence[SheetColumn]) -> bytes:
        columns.extend(given)
        return contact_sheet(title, row_titles, given)

    monkeypatch.setattr(sheet, "contact_sheet", noted)
    return columns


def test_three_purifiers_in_one_sheet_and_table(
    staged: Path, victim: Path, store: Path, drawn: list[SheetColumn], tmp_path: Path
):
    out, tags = tmp_path / "sheet.png", ("ddnm", "jpeg", "shrinkpad")
    versions = [word for tag in tags for word in ("--purified", f"tiny-badnets@{tag}")]
    asked = ("evaluate", victim, "--data", staged, *versions, "--store", store)
    ran = zipbatch(*asked, "--sheet", out, "--json")
    assert ran.code == 0, ran.err
    described = ["ddnm blur:2 S=2 eta=0.85 t0=1000", "jpeg quality=10", "shrinkpad pad=4"]
    assert [row["settings"] for row in ran.json["rows"]] == [None, *described]
    assert all(row["n_ca"] == 12 for row in ran.json["rows"])
    assert [column.title for column in drawn] == [
        "clean",
        "poisoned",
        "blur:2",
        "ddnm blur:2 S=2\neta=0.85 t0=1000",
        "jpeg quality=10",
        "shrinkpad pad=4",
    ]
    with Image.open(io.BytesIO(out.read_bytes())) as image:
        assert min(image.size) > 300
    shrunk = drawn[-1].images
    assert shrunk.shape == (3, IMAGE_SIZE, IMAGE_SIZE, 3)  # of the first shard's four, those not of the target class
    assert all((image == 0).all(axis=2).sum() >= IMAGE_SIZE**2 - 12**2 for image in shrunk)
    table = zipbatch(*asked).out
    assert all(line in table for line in described)


@pytest.mark.parametrize(
    ("tags", "titles"),
    [
        (("jpeg", "diffpure"), ["jpeg quality=10", "diffpure S=100 eta=1\nt0=30"]),  # nothing guides: no blur to show
        (("ddnm", "blur"), ["ddnm blur:2 S=2\neta=0.85 t0=1000", "blur blur:2"]),  # blur is there already
    ],
)
def test_blur_is_shown_where_it_guides_and_is_not_there(
    staged: Path,
    victim: Path,
    store: Path,
    drawn: list[SheetColumn],
    tmp_path: Path,
    tags: tuple[str, ...],
    titles: list[str],
):
    versions = [word for tag in tags for word in ("--purified", f"tiny-badnets@{tag}")]
    asked = ("evaluate", victim, "--data", staged, *versions, "--store", store, "--sheet", tmp_path / "sheet.png")
    assert zipbatch(*asked).code == 0
    assert [column.title for column in drawn] == ["clean", "poisoned", *titles]
