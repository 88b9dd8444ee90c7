"""``purify --set`` and what ``ls purifiers`` says can be set."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.making import zipbatch
from zipbatch.purifiers import PURIFIERS


def planned(staged: Path, store: Path, *arguments: object) -> dict[str, object]:
    """The settings of a dry run."""
    ran = zipbatch("purify", staged, "--store", store, *arguments, "--dry-run", "--json")
    assert ran.code == 0, ran.err
    return ran.json["purifier"]["settings"]  # type: ignore[no-any-return]


def test_any_setting_of_any_purifier(staged: Path, prior: Path, tmp_path: Path):
    assert planned(staged, tmp_path, "--purifier", "jpeg", "--set", "quality=75") == {"quality": 75}
    assert planned(staged, tmp_path, "--purifier", "median", "--set", " window = 5 ") == {"window": 5}
    assert planned(staged, tmp_path, "--preset", "bitdepth", "--set", "bits=5") == {"bits": 5}
    given = ("--purifier", "diffpure", "--prior", prior, "--set", "steps=50", "--set", "eta=0.5", "--start-step", 75)
    assert planned(staged, tmp_path, *given) == {"steps": 50, "eta": 0.5, "start_step": 75}
    guided = ("--purifier", "zip", "--prior", prior, "--set", "transforms=blur:4,gray", "--set", "start_step=null")
    assert planned(staged, tmp_path, *guided)["transforms"] == ["blur:4", "gray"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--set", "quality"], ["--set takes NAME=VALUE, got 'quality'"]),
        (["--set", "quality=5", "--set", "quality=6"], ["--set quality is given twice: '5' and '6'"]),
        (["--set", "qualty=5"], ["--set qualty=5", "it has: quality"]),
        (["--set", "quality=0"], ["quality = '0'", "greater than or equal to 1"]),
        (["--set", "quality="], ["quality = ''", "valid integer"]),
        (["--steps", 5], ["--steps does not apply to the purifier jpeg"]),
    ],
)
def test_wrong_settings(staged: Path, tmp_path: Path, arguments: list[object], named: list[str]):
    ran = zipbatch("purify", staged, "--purifier", "jpeg", *arguments, "--store", tmp_path / "pur")
    assert (ran.code, ran.out) == (2, "")
    for part in named:
        assert part in ran.err
    assert not (tmp_path / "pur").exists()


def test_images_that_a_purifier_leaves_nothing_of(staged: Path, tmp_path: Path):
    ran = zipbatch("purify", staged, "--purifier", "shrinkpad", "--set", "pad=16", "--store", tmp_path / "pur")
    assert (ran.code, ran.out) == (2, "")
    assert "pad 16 leaves nothing of an image of 16x16 pixels" in ran.err


def test_the_listing_names_settings_defaults_and_sources():
    rows = {row["name"]: row for row in zipbatch("ls", "purifiers", "--json").json["purifiers"]}
    assert set(rows) == set(PURIFIERS)
    assert rows["jpeg"]["settings"] == {"quality": 50}
    assert rows["jpeg"]["meaning"] == {"quality": "libjpeg's quality, 1 to 100"}
    assert all("arXiv" in row["source"] for row in rows.values())
    listed = zipbatch("ls", "purifiers").out
    for line in ("    transforms=blur:2,blur:1 ", "    steps=null ", "  source       Li et al. 2021, arXiv 2104.02361"):
        assert line in listed
