"""``zipbatch bench``: what it prints, and what a dry run makes of it."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest

from tests.making import write_prior, write_source, zipbatch
from zipbatch.results.schema import schema_of
from zipbatch.stages.purify import measured

QUICK = ("--seconds", 0.3, "--device", "cpu", "--batch-size", 4)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZIPBATCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_figures_fit_each_other(prior: Path, own_cache: Path):
    ran = zipbatch("bench", "--prior", prior, "--preset", "fast-v1", *QUICK, "--images", 10_000, "--gpus", 4, "--json")
    assert ran.code == 0, ran.err
    found = ran.json
    jsonschema.validate(found, schema_of("bench"))
    assert (found["image_size"], found["batch_size"], found["calls"]) == (16, 4, 3.0)
    best = max(found["passes_per_s"].values())
    assert found["floor_images_per_s"] == pytest.approx(best / 3)
    assert found["efficiency"] == pytest.approx(found["images_per_s"] / found["floor_images_per_s"])
    assert str(found["best_batch"]) in found["passes_per_s"]
    foretold = found["foretold"]
    assert foretold["hours"] * 3600 == pytest.approx(found["start_s"] + 10_000 / found["images_per_s"] / 4)
    assert foretold["store_gb"] == pytest.approx(10_000 * found["store_bytes_per_image"] / 1e9)
    assert [file.name for file in own_cache.iterdir()] == ["bench.json"]


def test_repaint_is_measured_with_the_calls_that_it_makes(prior: Path):
    found = zipbatch("bench", "--prior", prior, "--preset", "repaint", *QUICK, "--json").json
    assert 3 <= found["calls"] <= 5


def test_for_people_and_without_a_prior():
    ran = zipbatch("bench", "--preset", "jpeg", *QUICK)
    assert ran.code == 0, ran.err
    assert "images/s from shards to a store" in ran.out
    assert "None" not in ran.out
    assert "matrices" not in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80


def test_a_dry_run_tells_what_was_measured_of_the_same_purifier(prior: Path, tmp_path: Path):
    shards = write_source(tmp_path / "in", counts={"test": 8}, shards=2)
    zipbatch("poison", shards, "--attack", "badnets", "--out", tmp_path / "staged")
    dry = ("purify", tmp_path / "staged", "--prior", prior, "--store", tmp_path / "pur", "--device", "cpu", "--dry-run")
    same = ("--preset", "fast-v1", "--batch-size", 4)
    assert "'zipbatch bench' with these settings" in zipbatch(*dry, *same).out.replace("\n", " ").replace("  ", " ")
    assert zipbatch("bench", "--prior", prior, "--preset", "fast-v1", *QUICK, "--seed", 7).code == 0
    assert "less than a minute, as 'zipbatch bench' measured" in zipbatch(*dry, *same).out
    assert zipbatch(*dry, *same, "--json").json["estimated_seconds"] is not None
    for other in (("--preset", "fast-v1"), (*same, "--steps", 10), ("--preset", "fast-v1", "--batch-size", 8)):
        assert "bench' measured" not in zipbatch(*dry, *other).out


def test_what_is_remembered_may_be_damaged(prior: Path, own_cache: Path, tmp_path: Path):
    own_cache.mkdir()
    for text in ("{", "[]", '{"a": 1}'):
        (own_cache / "bench.json").write_text(text)
        assert zipbatch("bench", "--preset", "jpeg", *QUICK).code == 0
    assert measured._all(own_cache / "bench.json")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--preset", "fast-v1"), "needs a diffusion model"),
        (("--preset", "jpeg", "--data", "nowhere"), "nowhere"),
        (("--preset", "jpeg", "--seconds", 0), "--seconds"),
        (("--preset", "jpeg", "--gpus", 0), "--gpus"),
    ],
)
def test_mistakes_are_told(options: tuple[object, ...], said: str, tmp_path: Path):
    ran = zipbatch("bench", *options)
    assert ran.code == 2
    assert said in ran.err


def test_images_that_do_not_fit_are_told_by_their_key(tmp_path: Path):
    prior, shards = write_prior(tmp_path / "prior"), write_source(tmp_path / "in", size=24)
    ran = zipbatch("bench", "--prior", prior, "--preset", "fast-v1", "--data", shards, *QUICK)
    assert ran.code == 1
    assert "key '00000000'" in ran.err
    assert "24x24" in ran.err
