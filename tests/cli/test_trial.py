"""``purify --limit``: a trial on the first shards, which nobody takes for the whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.making import Ran, stage_sample, write_source, write_victim, zipbatch

BLUR = ("--purifier", "blur", "--device", "cpu")


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of 24 images of test, and as many of test_poisoned."""
    return stage_sample(tmp_path_factory.mktemp("trial") / "d", limit=72)


def purify(data: Path, store: Path, *options: object) -> Ran:
    return zipbatch("purify", data, "--store", store, *BLUR, *options, "--json")


def show(store: Path, reference: str) -> dict:
    return zipbatch("store", "show", reference, "--store", store, "--json").json


def test_a_trial_takes_whole_shards_is_tagged_and_says_what_it_is(staged: Path, tmp_path: Path):
    done = purify(staged, tmp_path / "pur", "--limit", 25).json
    assert done["counts"] == {name: {"shards": 2, "samples": 48} for name in ("test", "test_poisoned")}
    assert done["tags"] == ["trial"]
    assert done["trial"] == {"test": 3, "test_poisoned": 3}
    shown = show(tmp_path / "pur", "d@trial")
    assert shown["trial"] == {"test": 3, "test_poisoned": 3}
    assert "2 of 3 shards of test" in zipbatch("store", "show", "d@trial", "--store", tmp_path / "pur").out
    assert "(trial)" in zipbatch("store", "ls", "--store", tmp_path / "pur").out


def test_a_whole_run_after_it_computes_the_rest_and_is_what_it_would_be_without(staged: Path, tmp_path: Path):
    trial = purify(staged, tmp_path / "pur", "--limit", 24).json
    whole = purify(staged, tmp_path / "pur").json
    alone = purify(staged, tmp_path / "alone").json
    assert (whole["computed"], whole["reused"], whole["tags"]) == (4, 2, ["latest"])
    assert whole["version"] == alone["version"] != trial["version"]
    assert "trial" not in show(tmp_path / "pur", "d@latest")


def test_whole_data_of_the_very_shards_of_a_trial_is_another_version(tmp_path: Path):
    data, store = write_source(tmp_path / "in", counts={"test": 12}, shards=3), tmp_path / "pur"
    trial = purify(data, store, "--limit", 5).json
    for number in (2,):
        (data / f"test-{number:06d}.tar").unlink()
    whole = purify(data, store).json
    assert (trial["shards"], whole["shards"], whole["computed"]) == (2, 2, 0)
    assert whole["version"] != trial["version"]
    assert "trial" not in show(store, "in@latest")


def test_a_limit_that_takes_all_makes_the_whole_version_and_still_no_latest(staged: Path, tmp_path: Path):
    done = purify(staged, tmp_path / "pur", "--limit", 1000, "--tag", "mine").json
    assert (done["trial"], done["tags"]) == (None, ["mine"])
    assert done["version"] == purify(staged, tmp_path / "pur").json["version"]


def test_bare_shards_are_counted(tmp_path: Path):
    data = write_source(tmp_path / "in", counts={"test": 12}, shards=4)
    assert purify(data, tmp_path / "pur", "--limit", 4).json["counts"] == {"test": {"shards": 2, "samples": 6}}


def test_evaluate_measures_what_the_trial_has_and_says_so(staged: Path, tmp_path: Path):
    store, victim = tmp_path / "pur", write_victim(tmp_path / "v", classes=10, size=32)
    purify(staged, store, "--limit", 1)
    purify(staged, store)
    ran = zipbatch(
        *("evaluate", victim, "--data", staged, "--store", store, "--json"),
        *("--purified", "d@trial", "--purified", "d@latest"),
    )
    assert ran.code == 0, ran.err
    undefended, trial, whole = ran.json["rows"]
    assert [row["n_ca"] for row in (undefended, trial, whole)] == [24, 24, 24]
    assert "1 of 3 shards of test" in trial["settings"]
    assert "trial" not in whole["settings"]
    assert "is a trial: 1 of 3 shards of test, 1 of 3 shards of test_poisoned" in ran.err
    assert zipbatch("evaluate", victim, "--data", staged, "--json").json["rows"][0]["n_ca"] == 72


def test_a_trial_of_other_data_is_told(staged: Path, tmp_path: Path):
    store, victim = tmp_path / "pur", write_victim(tmp_path / "v", classes=10, size=32)
    purify(write_source(tmp_path / "d", counts={"test": 12}, size=32), store, "--limit", 1)
    ran = zipbatch("evaluate", victim, "--data", staged, "--store", store, "--purified", "d@trial")
    assert (ran.code, "was not made from" in ran.err) == (2, True)


@pytest.mark.parametrize("options", [("--latest",), ("--tag", "latest")])
def test_a_trial_never_becomes_latest(staged: Path, tmp_path: Path, options: tuple[str, ...]):
    ran = purify(staged, tmp_path / "pur", "--limit", 5, *options)
    assert (ran.code, "never becomes 'latest'" in ran.err) == (2, True)


def test_latest_is_not_pointed_at_a_trial_by_hand(staged: Path, tmp_path: Path):
    store = tmp_path / "pur"
    purify(staged, store, "--limit", 5)
    ran = zipbatch("store", "tag", "d@trial", "latest", "--store", store)
    assert (ran.code, "is a trial" in ran.err) == (2, True)
    assert zipbatch("store", "tag", "d@trial", "kept", "--store", store).code == 0


def test_nothing_is_trained_on_a_trial(tmp_path: Path):
    store, data = tmp_path / "pur", write_source(tmp_path / "s", counts={"train": 24})
    assert zipbatch("poison", data, "--attack", "badnets", "--out", tmp_path / "d", "--samples-per-shard", 8).code == 0
    purify(tmp_path / "d", store, "--split", "train", "--limit", 8)
    ran = zipbatch(
        "train", "victim", tmp_path / "d", "--purified", "d@trial", "--store", store, "--out", tmp_path / "v"
    )
    assert (ran.code, "is a trial (1 of 3 shards of train)" in ran.err) == (2, True)


def test_a_mark_that_was_taken_off_is_noticed(staged: Path, tmp_path: Path):
    store = tmp_path / "pur"
    version = purify(staged, store, "--limit", 5).json["version"]
    file = store / "versions" / "d" / f"{version}.json"
    header = json.loads(file.read_text())
    del header["trial"], header["seal"]
    file.chmod(0o644)
    file.write_text(json.dumps(header))
    ran = zipbatch("store", "show", "d@trial", "--store", store)
    assert (ran.code, "damaged version" in ran.err) == (1, True)


def test_a_plan_says_what_a_trial_would_take(staged: Path, tmp_path: Path):
    ran = purify(staged, tmp_path / "pur", "--limit", 30, "--dry-run")
    assert (ran.json["shards"], ran.json["trial"]) == (4, {"test": 3, "test_poisoned": 3})
    text = zipbatch("purify", staged, "--store", tmp_path / "pur", *BLUR, "--limit", 30, "--dry-run").out
    assert "2 of 3 shards of test" in text
