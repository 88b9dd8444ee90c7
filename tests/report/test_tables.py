"""Tables for the terminal."""

from __future__ import annotations

from typing import Any

from zipbatch.report import evaluation_table, versions_table


def row(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "victim": "victims/a",
        "attack": "badnets",
        "settings": None,
        "ca": 0.5,
        "ca_ci95": (0.4, 0.6),
        "n_ca": 100,
        "flip_rate": None,
        "fled": {},
        "psnr_poisoned_db": None,
        "psnr_clean_db": None,
        "ssim_poisoned": None,
        "ssim_clean": None,
    }
    for name in ("asr", "fpr", "pa", "ra"):
        values |= {name: None, f"{name}_ci95": None, f"n_{name}": 0}
    return values | changes


def test_shares_carry_their_interval_and_missing_ones_a_dash():
    lines = evaluation_table([row()]).splitlines()
    assert "no defence" in lines[1]
    assert "0.500 ±0.100" in lines[1]
    assert "–" in lines[1]
    assert "CA 100" in lines[-1]


def test_without_labels_the_classes_fled_are_named():
    purified = row(settings="blur blur:2", ca=None, n_ca=0, flip_rate=0.25, fled={"cat": 3, "dog": 1})
    text = evaluation_table([purified])
    assert "0.250" in text
    assert "cat 3, dog 1" in text
    assert "ASR" not in text


def test_an_empty_store_says_so():
    assert "no version" in versions_table({})
