"""``evaluate --per-image``: the very answers that the measures are made of."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.making import zipbatch


@pytest.fixture(scope="module")
def purified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("answers")
    flags = ("--attack", "badnets", "--limit", 30, "--samples-per-shard", 10)
    assert zipbatch("poison", "embedded", *flags, "--out", folder / "s").code == 0
    for preset in ("jpeg", "blur"):
        ran = zipbatch("purify", folder / "s", "--preset", preset, "--store", folder / "pur", "--tag", preset)
        assert ran.code == 0, ran.err
    return folder


def test_measures_can_be_counted_from_the_rows(purified: Path):
    flags = ("--data", purified / "s", "--purified", "s@jpeg", "--purified", "s@blur", "--store", purified / "pur")
    victims = ("embedded:badnets", "embedded:blended")
    ran = zipbatch("evaluate", *victims, *flags, "--per-image", purified / "rows.jsonl", "--json")
    assert ran.code == 0, ran.err
    rows = [json.loads(line) for line in (purified / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == 2 * 2 * 60
    measured = [row for row in ran.json["rows"] if row["purified"] is not None]
    for row in measured:
        mine = [one for one in rows if one["victim"] == row["victim"] and one["version"].endswith(row["version"])]
        clean = [one for one in mine if one["split"] == "test"]
        assert sum(one["after"] == one["true_class"] for one in clean) / len(clean) == pytest.approx(row["ca"])
        triggered = [one for one in mine if one["split"] == "test_poisoned" and one["true_class"] != "automobile"]
        assert sum(one["after"] == "automobile" for one in triggered) / len(triggered) == pytest.approx(row["asr"])
        flips = sum(one["before"] != one["after"] for one in mine) / len(mine)
        assert flips == pytest.approx(row["flip_rate"], abs=1e-6)


def test_without_a_version_there_is_nothing_after(purified: Path):
    ran = zipbatch("evaluate", "embedded:badnets", "--data", purified / "s", "--per-image", purified / "rows.csv")
    assert ran.code == 0, ran.err
    rows = list(csv.DictReader((purified / "rows.csv").open()))
    assert len(rows) == 60
    assert {row["after"] for row in rows} == {""}
    assert rows[0]["shard"] == "test-000000.tar"


def test_another_suffix_is_told_before_any_work(purified: Path):
    ran = zipbatch("evaluate", "embedded:badnets", "--data", purified / "s", "--per-image", purified / "rows.txt")
    assert (ran.code, ".csv, .jsonl" in ran.err) == (2, True)
