"""Contact sheets of versions made by different purifiers."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.making import IMAGE_SIZE, write_source, zipbatch
from zipbatch.report.sheet import SheetColumn, SheetRow, contact_sheet
from zipbatch.stages.evaluate import sheet

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

    def noted(title: str, rows: Sequence[SheetRow], given: Sequence[SheetColumn], *, suffix: str) -> bytes:
        columns.extend(given)
        return contact_sheet(title, rows, given, suffix=suffix)

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
        "ddnm blur:2 S=2 eta=0.85 t0=1000",
        "jpeg quality=10",
        "shrinkpad pad=4",
    ]
    with Image.open(io.BytesIO(out.read_bytes())) as image:
        assert min(image.size) > 300
    shrunk = drawn[-1].images
    assert [image.shape for image in shrunk] == [(IMAGE_SIZE, IMAGE_SIZE, 3)] * 4  # the first shard's
    assert all((image == 0).all(axis=2).sum() >= IMAGE_SIZE**2 - 12**2 for image in shrunk)
    table = zipbatch(*asked).out
    assert all(line in table for line in described)


@pytest.mark.parametrize(
    ("tags", "titles"),
    [
        (("jpeg", "diffpure"), ["jpeg quality=10", "diffpure S=100 eta=1 t0=30"]),  # nothing guides: no blur to show
        (("ddnm", "blur"), ["ddnm blur:2 S=2 eta=0.85 t0=1000", "blur blur:2"]),  # blur is there already
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


def test_rows_are_chosen_to_tell_something():
    """Every kind of outcome that occurs is shown, and no kind crowds another out; classes take turns within a kind."""
    truth = np.array([0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 3, -1])
    wanted = np.array([5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, -1])
    before = np.array([5, 5, 5, 5, 5, 5, 5, 2, 3, 5, 4, 1])
    after_ = np.array([0, 0, 0, 0, 1, 5, 5, 4, 3, 1, 3, 2])
    kinds = sheet._outcomes(before, after_, truth, wanted)
    assert kinds == [*["fixed"] * 5, "left", "left", "broken", "unchanged", "broken", "fixed", "flipped"]
    chosen = sheet._in_turn(kinds, truth, 6)
    assert {kinds[i] for i in chosen} == {"fixed", "left", "broken", "flipped", "unchanged"}
    assert [kinds[i] for i in chosen].count("fixed") == 2
    assert {int(truth[i]) for i in chosen if kinds[i] == "fixed"} == {0, 1}
    assert sorted(sheet._in_turn(kinds, truth, 99)) == list(range(12))


def test_without_labels_nothing_is_right_or_wrong(victim: Path, drawn: list[SheetColumn], tmp_path: Path):
    data, store = write_source(tmp_path / "in", counts={"day": 6}, labelled=False, shards=1), tmp_path / "pur"
    assert zipbatch("purify", data, "--purifier", "blur", "--store", store).code == 0
    asked = ("evaluate", victim, "--data", data, "--purified", "in", "--store", store, "--sheet", tmp_path / "s.svg")
    assert zipbatch(*asked).code == 0
    assert {mark for column in drawn for mark in column.marks} == {"unknown"}
    assert (tmp_path / "s.svg").read_bytes().startswith(b"<?xml")


@pytest.mark.parametrize("name", ["s.jpg", "s", "s.png.txt"])
def test_a_figure_of_another_kind_is_refused_before_the_work(victim: Path, staged: Path, tmp_path: Path, name: str):
    ran = zipbatch("evaluate", victim, "--data", staged, "--sheet", tmp_path / name)
    assert (ran.code, ran.out) == (2, "")
    assert ".png, .pdf, .svg" in ran.err
    assert list(tmp_path.iterdir()) == []
