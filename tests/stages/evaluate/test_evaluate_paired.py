"""Two purified versions on the same images: rows tell who got which right, and what became of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.making import zipbatch


def test_versions_are_held_against_the_first(staged: Path, victim: Path, tmp_path: Path):
    for tag, method in (("a", "blur"), ("b", "bitdepth")):
        more = ("--set", "bits=1") if method == "bitdepth" else ()
        ran = zipbatch("purify", staged, "--store", tmp_path, "--purifier", method, *more, "--tag", tag)
        assert ran.code == 0, ran.err
    first, second = f"{staged.name}@a", f"{staged.name}@b"
    ran = zipbatch(
        *("evaluate", victim, "--data", staged, "--purified", first, "--purified", second, "--store", tmp_path),
        "--json",
    )
    assert ran.code == 0, ran.err
    none, one, two = ran.json["rows"]
    assert none["paired"] is None
    assert one["paired"] is None
    assert two["paired"]["against"] == first
    for name in ("ca", "asr"):
        pair = two["paired"][name]
        assert pair["n"] == two[f"n_{name}"] > 0
        gained = (two[name] - one[name]) * pair["n"]
        assert pair["only_here"] - pair["only_there"] == pytest.approx(gained)
        assert 0 <= pair["p"] <= 1
    assert none["collapsed"] is None
    assert two["n_collapsed"] == pytest.approx(none["ca"] * none["n_ca"])
    for row in (none, one, two):
        assert row["asr"] + row["ra"] + row["disrupted"] == pytest.approx(1)
        assert row["n_disrupted"] == row["n_asr"]
