"""The commands together: poison, purify, evaluate, store, as scripts call them."""

from __future__ import annotations

import json
from pathlib import Path

from tests.making import files_below, zipbatch

PURIFY = [
    "--transform",
    "blur:2",
    "--guidance-exponent",
    "1",
    "--steps",
    "4",
    "--eta",
    "1",
    "--start-step",
    "1000",
    "--seed",
    "0",
    "--batch-size",
    "2",
    "--tag",
    "t",
]


def without_times(store: Path) -> dict[str, bytes]:
    """Every file of a store; of tags only the version, not when the run began that moved them."""
    return {n: data.split(b"\n")[0] if n.startswith("tags/") else data for n, data in files_below(store).items()}


def test_purify_then_evaluate(staged: Path, prior: Path, victim: Path, tmp_path: Path):
    store = tmp_path / "pur"
    first = zipbatch("purify", staged, "--prior", prior, "--store", store, *PURIFY, "--json")
    assert first.code == 0, first.err
    assert (first.json["computed"], first.json["reused"]) == (6, 0)
    before = without_times(store)
    second = zipbatch("purify", staged, "--prior", prior, "--store", store, *PURIFY, "--json")
    assert second.code == 0
    assert (second.json["computed"], second.json["reused"], second.json["new_version"]) == (0, 6, False)
    assert without_times(store) == before

    urls = zipbatch("store", "urls", "tiny-badnets@t", "--store", store)
    assert len(urls.out.splitlines()) == 6
    assert all(Path(line).is_file() for line in urls.out.splitlines())
    assert zipbatch("store", "verify", "--store", store).code == 0

    sheet = tmp_path / "sheet.png"
    ran = zipbatch(
        *("evaluate", victim, "--data", staged, "--purified", "tiny-badnets@t", "--store", store, "--sheet", sheet),
        "--json",
    )
    assert ran.code == 0, ran.err
    undefended, purified = ran.json["rows"]
    assert undefended["purifier"] is None
    assert undefended["purified"] is None
    assert (purified["purifier"], purified["purified"]) == ("zip", "tiny-badnets@t")
    assert (purified["n_ca"], purified["n_pa"], purified["n_asr"], purified["n_ra"]) == (12, 12, 8, 8)
    assert sheet.read_bytes().startswith(b"\x89PNG")


def test_a_split_that_was_not_purified_is_null(staged: Path, victim: Path, tmp_path: Path):
    store = tmp_path / "pur"
    assert zipbatch("purify", staged, "--purifier", "blur", "--split", "test", "--store", store).code == 0
    assert len(zipbatch("store", "urls", "tiny-badnets", "--store", store).out.splitlines()) == 3
    ran = zipbatch("evaluate", victim, "--data", staged, "--purified", "tiny-badnets", "--store", store, "--json")
    purified = ran.json["rows"][1]
    assert purified["ca"] is not None
    assert [purified[name] for name in ("asr", "pa", "ra", "n_asr")] == [None, None, None, 0]


def test_results_only_on_stdout(staged: Path, tmp_path: Path):
    ran = zipbatch("purify", staged, "--purifier", "blur", "--store", tmp_path / "pur", "--json")
    assert json.loads(ran.out)["reference"] == "tiny-badnets@latest"
