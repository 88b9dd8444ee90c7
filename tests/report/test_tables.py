"""Tables for the terminal."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

from tests.results.making import evaluation_row, seed_row
from zipbatch.report.columns import Column, Look, pairs_text, table_text
from zipbatch.report.tables import evaluation_table, tune_table
from zipbatch.report.versions import versions_table
from zipbatch.results import EvaluationRow, SeedlessRow, SeedRow, StrengthRow, TuneReport, Undefended, dump
from zipbatch.store import VersionHeader


def test_shares_carry_their_interval_and_missing_ones_a_dash():
    lines = evaluation_table([evaluation_row(ca=0.5, ca_ci95=(0.4, 0.6), n_ca=100)]).splitlines()
    assert "no defence" in lines[1]
    assert ".500 ±.100" in lines[1]
    assert "–" in lines[1]
    assert "CA 100" in lines[-1]


def test_without_labels_the_classes_fled_are_named():
    purified = evaluation_row(settings="blur blur:2", flip_rate=0.25, fled={"cat": 3, "dog": 1})
    text = evaluation_table([purified])
    assert "0.250" in text
    assert "cat 3, dog 1" in text
    assert "ASR" not in text


def test_an_empty_store_says_so():
    assert "no version" in versions_table({})


def measures(name: str, asr: float) -> dict[str, Any]:
    values: dict[str, Any] = {"attack": name, "victim": f"victims/{name}"}
    for measure, value in (("ca", 0.9), ("asr", asr), ("fpr", 0.008), ("pa", 0.8), ("ra", 0.8)):
        values |= {measure: value, f"{measure}_ci95": (max(0, value - 0.005), value + 0.005), f"n_{measure}": 9000}
    return values | {"psnr_poisoned_db": 28.4, "ssim_poisoned": 0.91, "flip_rate": 0.1}


def measured(name: str, asr: float, **changes: Any) -> EvaluationRow:
    return evaluation_row(**(measures(name, asr) | changes))


def over_seeds(name: str, asr: float, **changes: Any) -> SeedRow:
    values = {key: value for key, value in measures(name, asr).items() if not key.endswith("_ci95")}
    return seed_row(**(values | changes))


def width(text: str) -> int:
    return max(map(len, text.splitlines()))


@pytest.mark.parametrize("length", [3, 12, 30, 70])
def test_tables_fit_80_columns_however_long_names_are_and_wide_ones_show_all(length: int):
    rng = random.Random(length)
    name = "".join(rng.choices("abcdefgh -/", k=length))
    settings = f"{name} blur:2+blur:1 k=10 S=20 eta=1 t0=300"
    rows = [measured(name, 1.0), measured(name, 0.007, settings=settings, purifier=name)]
    narrow, wide = evaluation_table(rows), evaluation_table(rows, look=Look(wide=True))
    table = narrow.split("images:")[0]
    assert width(table) <= 80
    for title in ("CA", "ASR", "FPR"):
        assert title in table.splitlines()[0]
    for title in ("CA", "ASR", "FPR", "PA", "RA", "flips", "PSNR dB", "SSIM"):
        assert title in wide.splitlines()[0]
    gone = re.search("‹wide› adds: (.*)", table)
    shown = set(re.split("  +", table.splitlines()[0])) | set(gone[1].split(", ") if gone else ())
    assert {"PA", "RA", "flips", "PSNR dB", "SSIM"} <= shown, "what is left out is named"
    assert re.sub(" +", " ", settings) in re.sub(" +", " ", wide)


def test_each_defended_victim_gets_a_verdict():
    names = ["one", "two", "three"]
    rows = [measured(name, 1.0) for name in names]
    rows += [measured(name, 0.007, settings="zip k=10", purifier="zip") for name in names]
    lines = [line for line in evaluation_table(rows, look=Look(wide=True)).splitlines() if "equals the plain" in line]
    assert lines == [
        f"{name}, zip k=10: what is left of the attack (ASR .007) equals the plain errors (FPR .008)" for name in names
    ]
    assert width(evaluation_table(rows)) <= 80
    assert "the attack still works" in evaluation_table(rows[:1])


def test_rows_over_seeds_have_their_spread_and_others_none():
    spread = {
        "seeds": [0, 1, 4],
        "seeds_of": ["pur"],
        "ca_sd": 0.0123,
        "der": 0.987,
        "der_sd": 0.004,
        "asr_sd": 0.001,
    }
    named = {"settings": "zip", "purifier": "zip", "axes": {"attack": "a"}, "findings": {"nothing left": 3}}
    of_seeds = over_seeds("a", 0.007, **named, **spread)
    one = evaluation_row(**measures("a", 1.0))
    whatever = SeedlessRow(axes={"attack": "a"}, **dump(one), seeds=[], n_seeds=0, seeds_of=[])
    lines = evaluation_table([whatever, of_seeds], ["attack"], Look(wide=True)).splitlines()
    assert lines[0].split()[2:5] == ["seeds", "CA", "ASR"]
    assert lines[1].split()[3:6] == ["–", ".900", "1.000"]
    assert lines[2].split()[2:7] == ["3", ".900", "±.012", ".007", "±.001"]
    assert "0.987 ±0.004" in lines[2]
    assert "mean ± standard deviation (n - 1) over the seeds 0, 1, 4 of pur" in lines
    assert not any("Wilson" in line for line in lines)
    assert lines[-1] == "a: no more than plain errors is left with any of 3 seeds (mean ASR .007, plain errors .008)"
    assert width(evaluation_table([whatever, of_seeds], ["attack"])) <= 80


@pytest.mark.parametrize(
    ("findings", "words"),
    [
        ({"nothing left": 1, "something left": 2}, "the attack still works with 2 of 3 seeds"),
        ({"nothing left": 2, "too few": 1}, "too few images to tell with 1 of 3 seeds"),
        ({"nothing left": 3}, "no more than plain errors is left with any of 3 seeds"),
    ],
)
def test_the_worst_seed_decides(findings: dict[str, int], words: str):
    row = over_seeds("a", 0.2, settings="zip", purifier="zip", findings=findings)
    assert words in evaluation_table([row], look=Look(wide=True))


def test_colours_are_for_terminals():
    rows = [measured("a", 1.0), measured("a", 0.007, settings="zip", purifier="zip")]
    plain, coloured = evaluation_table(rows), evaluation_table(rows, look=Look(colour=True))
    assert "\x1b" not in plain
    assert "\x1b[32m" in coloured
    assert [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", coloured).splitlines()] == plain.splitlines()


def test_columns_of_the_highest_rank_go_first_and_empty_ones_at_once():
    columns = [Column("name"), Column("a", rank=1), Column("b", rank=2), Column("none", rank=1)]
    rows = [("x" * 30, "y" * 30, "z" * 30, "–")]
    assert table_text(columns, rows, Look()).splitlines()[0].split() == ["name", "a"]
    assert "‹wide› adds: b\n" in table_text(columns, rows, Look())
    assert table_text(columns, rows, Look(wide=True)).splitlines()[0].split() == ["name", "a", "b", "none"]


def test_text_that_looks_like_markup_stays_as_it_is():
    assert "[red]x[/red]" in table_text([Column("name")], [("[red]x[/red]",)], Look())
    assert ":smile: [b]" in pairs_text({"name": ":smile: [b]"}, Look())


def header(dataset: str, version: str, **changes: Any) -> VersionHeader:
    values = {
        "dataset": dataset,
        "version": version,
        "purifier": {"method": "zip", "settings": {"steps": 20}},
        "prior_sha256": None,
        "seed": 0,
        "counts": {"test": {"shards": 3, "samples": 180}},
        "quarantined": 0,
        "parent": None,
        "started": "2026-01-31T03:00:00+00:00",
        "zipbatch": "1",
    }
    return VersionHeader.model_validate(values | changes)


@pytest.mark.parametrize("length", [5, 60])
def test_a_listing_of_versions_has_settings_images_bytes_and_age(length: int):
    one, other = header("d" * length, "a" * 20), header("d" * length, "b" * 20, quarantined=4)
    text = versions_table(
        {one.dataset: ([one, other], {"latest": "a" * 20})},
        settings=lambda header: f"zip start_step={header.version[0]}50",
        sizes={f"{one.dataset}@{one.version}": 3 * 2**20},
        now_s=one.started_s + 7200,
    )
    assert width(text) <= 80
    joined = re.sub(r"\s+", "", text)
    for part in ("latest", "bbbbb", "180", "3.0MiB", "2h"):
        assert part in joined
    assert "start_step" in joined


def test_the_table_of_strengths_fits_80_columns():
    shares = dict.fromkeys(("agreement", "residual", "residual_upper", "ca", "asr", "pa"), 0.123)
    found = TuneReport(
        victim="v",
        data="d",
        images=100,
        suspect=None,
        triggered=0.0,
        limit=0.02,
        undefended=Undefended(ca=0.9, asr=1.0),
        rungs=[StrengthRow(guidance_exponent=10.0, chosen=True, **shares)],
        chosen=10.0,
        settings={},
    )
    text = tune_table(found)
    assert width(text.split("no class")[0]) <= 80
    assert "chosen" in text.splitlines()[1]
    fled = tune_table(found.model_copy(update={"suspect": "ship", "triggered": 41.6}))
    assert "answers flee the class ship: about 42 of 100 images look triggered" in fled
