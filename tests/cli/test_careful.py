"""What a careful operator would trip over: paths, changed data, damage, leftovers, clocks."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.making import CLASSES, files_below, picture, sample, write_prior, write_shard, write_source, zipbatch
from zipbatch import images
from zipbatch.atomic import hold, sweep, temp_path
from zipbatch.datasets import open_dataset
from zipbatch.shards import read_shard


@pytest.fixture
def source12(tmp_path: Path) -> Path:
    return write_source(tmp_path / "in", counts={"test": 12})


def blur(source: Path | str, store: Path | str, *more: object):
    return zipbatch("purify", source, "--purifier", "blur", "--store", store, *more)


def test_relative_paths_reach_workers_as_absolute_ones(
    staged: Path, prior: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    from zipbatch.checkpoints import open_prior, open_victim

    monkeypatch.chdir(staged.parent)
    assert all(shard.path.is_absolute() for shard in open_dataset([staged.name]).shards)
    monkeypatch.chdir(prior.parent)
    assert open_prior(Path(prior.name)).weights.is_absolute()
    with pytest.raises(Exception, match="no such folder"):
        open_victim(Path("nowhere"))


def test_evaluating_other_data_under_the_same_names_is_refused(source12: Path, victim: Path, tmp_path: Path):
    store = tmp_path / "pur"
    assert blur(source12, store).code == 0
    for file in source12.glob("*.tar"):
        write_shard(file, [sample(s.key, 0, seed=99 + i) for i, s in enumerate(read_shard(file))])
    ran = zipbatch("evaluate", victim, "--data", source12, "--purified", "in", "--store", store)
    assert ran.code == 1
    assert "not what the purified version was made from" in ran.err
    assert ran.out == ""


def test_ca_is_of_the_test_split_alone(tmp_path: Path, victim: Path):
    source = write_source(tmp_path / "both", counts={"train": 24, "test": 12})
    assert zipbatch("evaluate", victim, "--data", source, "--json").json["rows"][0]["n_ca"] == 12


def test_a_sample_without_label_among_labelled_ones_is_counted(tmp_path: Path, victim: Path):
    write_shard(tmp_path / "in" / "a.tar", [sample("x", 0, seed=1), sample("y", None, seed=2)])
    ran = zipbatch("evaluate", victim, "--data", tmp_path / "in", "--json")
    (row,) = ran.json["rows"]
    assert (ran.code, row["n_ca"], row["n_unlabelled"]) == (0, 1, 1)


def test_an_empty_shard_is_no_obstacle(source12: Path, tmp_path: Path, victim: Path):
    write_shard(source12 / "test-000009.tar", [])
    assert blur(source12, tmp_path / "pur").code == 0
    ran = zipbatch("evaluate", victim, "--data", source12, "--purified", "in", "--store", tmp_path / "pur", "--json")
    assert [row["n_ca"] for row in ran.json["rows"]] == [12, 12]


def test_classes_are_numbered_alike_whatever_split_is_staged(tmp_path: Path):
    for name in ("train/a", "train/b", "train/c", "test/a", "test/c"):
        (tmp_path / "in" / name).mkdir(parents=True)
        for i in range(2):
            (tmp_path / "in" / name / f"{i}.png").write_bytes(images.encode_png(picture(i)))
    for split in ((), ("--split", "test")):
        out = tmp_path / f"out{len(split)}"
        assert zipbatch("poison", tmp_path / "in", "--attack", "badnets", "--out", out, *split).code == 0
        dataset = open_dataset([str(out)])
        assert dataset.classes == ["a", "b", "c"]
        labels = {s.label() for shard in dataset.split("test") for s in read_shard(shard.path)}
        assert labels == {0, 2}


def test_val_is_attacked_where_there_is_no_test(tmp_path: Path):
    source = write_source(tmp_path / "in", counts={"train": 12, "val": 6})
    assert zipbatch("poison", source, "--attack", "badnets", "--out", tmp_path / "out").code == 0
    dataset = open_dataset([str(tmp_path / "out")])
    assert dataset.splits == ("train", "test", "test_poisoned")
    assert dataset.classes == CLASSES


def test_physicalba_draws_the_same_images_when_train_is_staged_alone(source: Path, tmp_path: Path):
    poisoned = []
    for number, split in enumerate(((), ("--split", "train"))):
        out = tmp_path / str(number)
        options = ("--attack", "physicalba", "--poison-rate", "0.3", "--out", out, *split)
        assert zipbatch("poison", source, *options).code == 0
        shards = open_dataset([str(out)]).split("train")
        poisoned.append([s.key for shard in shards for s in read_shard(shard.path) if s.metadata()["poisoned"]])
    assert len(poisoned[0]) == 7
    assert poisoned[0] == poisoned[1]


def test_damage_is_repaired_by_verify_and_a_rerun(source12: Path, tmp_path: Path):
    store = tmp_path / "pur"
    version = blur(source12, store, "--json").json["version"]
    sound = files_below(store / "objects")
    damaged = next((store / "objects").glob("??/*.tar"))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    first = zipbatch("store", "verify", "--store", store)
    assert first.code == 1
    assert "--repair" in first.err
    assert zipbatch("store", "verify", "--store", store, "--repair").code == 1
    again = blur(source12, store, "--json").json
    assert (again["computed"], again["version"]) == (1, version)
    assert files_below(store / "objects") == sound
    assert zipbatch("store", "verify", "--store", store).code == 0


def test_what_killed_runs_left_is_swept_but_not_what_a_run_holds(source12: Path, tmp_path: Path):
    store = tmp_path / "pur"
    assert blur(source12, store).code == 0
    stale, held, fresh = (temp_path(store / "objects") for _ in range(3))
    for path in (stale, held, fresh):
        path.write_bytes(b"part of a shard")
    for path in (stale, held):
        os.utime(path, (time.time() - 3600, time.time() - 3600))
    with held.open("rb") as stream:
        hold(stream)
        sweep(store / "objects")
        assert [path.exists() for path in (stale, held, fresh)] == [False, True, True]
    assert blur(source12, store).code == 0
    assert [path.exists() for path in (stale, held, fresh)] == [False, False, True]


def an_hour_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that are planned from now on started an hour ago, and are slow."""
    started = time.time_ns() - 3600 * 10**9
    monkeypatch.setattr("zipbatch.stages.purify.plan.time", SimpleNamespace(time_ns=lambda: started))


def test_a_run_that_cannot_move_its_tag_says_so_wherever_it_is_asked(
    source12: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    store, summary, metrics = tmp_path / "pur", tmp_path / "s.json", tmp_path / "m.prom"
    first = blur(source12, store, "--tag", "nightly", "--json").json
    an_hour_ago(monkeypatch)
    ran = blur(
        *(source12, store, "--transform", "blur:4", "--tag", "nightly", "--json"),
        *("--summary", summary, "--metrics", metrics),
    )
    second, told = ran.json, json.loads(summary.read_text())
    stays = {"nightly": first["version"], "latest": first["version"]}
    assert (first["tags"], second["tags"], second["tags_left"]) == (["nightly", "latest"], [], stays)
    assert (ran.code, told["outcome"], told["exit_code"], told["tags_left"]) == (1, "not tagged", 1, stays)
    assert 'outcome="not tagged"} 1' in metrics.read_text()
    assert f"in@nightly stays at {first['version']}" in ran.err and "no tag keeps it from gc" in ran.err
    assert f"zipbatch store tag in@{second['version']} nightly" in ran.err
    assert "stays at" in caplog.text
    assert zipbatch("store", "tag", f"in@{second['version']}", "nightly", "--store", store).code == 0
    assert (store / "tags/in/nightly").read_text().split()[0] == second["version"]


def test_a_run_whose_own_tag_moved_does_not_fail_over_latest(
    source12: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = tmp_path / "pur"
    assert blur(source12, store).code == 0
    an_hour_ago(monkeypatch)
    ran = blur(source12, store, "--transform", "blur:4", "--tag", "mine", "--latest", "--json")
    assert (ran.code, ran.json["tags"], list(ran.json["tags_left"])) == (0, ["mine"], ["latest"])


def test_one_run_with_the_clock_ahead_binds_nobody(source12: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In a year's time a run moved the tag; then somebody set the clock."""
    store, ahead = tmp_path / "pur", time.time_ns() + 365 * 86_400 * 10**9
    with monkeypatch.context() as fast:
        fast.setattr("zipbatch.stages.purify.plan.time", SimpleNamespace(time_ns=lambda: ahead))
        first = blur(source12, store, "--tag", "nightly", "--json").json
    assert int((store / "tags/in/nightly").read_text().split()[1]) == ahead
    second = blur(source12, store, "--transform", "blur:4", "--tag", "nightly", "--json")
    assert (second.code, second.json["tags"]) == (0, ["nightly", "latest"])
    (store / "tags/in/nightly").write_text(f"{second.json['version']}\n{ahead}\n")
    ran = zipbatch("store", "tag", f"in@{first['version']}", "nightly", "--store", store)
    assert (ran.code, ran.out.split()[-1]) == (0, first["version"])
    assert (store / "tags/in/nightly").read_text().split()[0] == first["version"]


def test_a_run_that_did_nothing_leaves_no_store(source12: Path, tmp_path: Path):
    (source12 / "test-000001.tar").write_text("no tar")
    (source12 / "test-000000.tar").unlink()
    assert blur(source12, tmp_path / "a" / "pur").code == 1
    assert not (tmp_path / "a").exists()


def test_the_default_start_is_pure_noise_for_any_schedule(staged: Path, tmp_path: Path, prior: Path):
    plans = [
        zipbatch(*("purify", staged, "--prior", prior, "--store", tmp_path, "--preset", "paper"), *more).json[
            "purifier"
        ]
        for more in (
            ("--dry-run", "--json"),
            ("--start-step", 1000, "--dry-run", "--json"),
            ("--start-step", 5000, "--dry-run", "--json"),
        )
    ]
    assert plans[0]["settings"]["start_step"] == 1000
    assert plans[0] == plans[1] == plans[2]


def test_flags_are_blamed_and_not_the_preset(staged: Path, tmp_path: Path, prior: Path):
    ran = zipbatch("purify", staged, "--prior", prior, "--store", tmp_path, "--steps", 0, "--transform", "blur:0")
    assert ran.code == 2
    assert "balanced.yaml" not in ran.err
    assert "steps = 0" in ran.err
    assert "at least 1 item" not in ran.err


def test_resize_is_for_images_that_do_not_fit(tmp_path: Path):
    prior = write_prior(tmp_path / "prior", image_size=16)
    source = write_source(tmp_path / "in", counts={"test": 4}, size=12)
    few = ("--prior", prior, "--steps", 2)
    refused = zipbatch("purify", source, *few, "--store", tmp_path / "pur")
    assert refused.code == 1
    assert "neither equals nor tiles" in refused.err
    assert zipbatch("purify", source, *few, "--store", tmp_path / "pur", "--resize", "stretch").code == 0
    assert (
        zipbatch("purify", source, "--purifier", "blur", "--store", tmp_path / "pur", "--resize", "stretch").code == 2
    )
    small = write_source(tmp_path / "small", counts={"test": 4}, size=8)
    tiled = zipbatch(
        *("purify", small, *few, "--store", tmp_path / "pur", "--resize", "stretch", "--transform", "blur:16"),
    )
    assert tiled.code == 1
    assert "does not divide" in tiled.err


def test_store_urls_of_an_unknown_split_or_a_missing_object(source12: Path, tmp_path: Path):
    store = tmp_path / "pur"
    assert blur(source12, store).code == 0
    unknown = zipbatch("store", "urls", "in", "--store", store, "--split", "nosuch")
    assert (unknown.code, unknown.out) == (2, "")
    next((store / "objects").glob("??/*.tar")).unlink()
    missing = zipbatch("store", "urls", "in", "--store", store)
    assert (missing.code, missing.out) == (1, "")


def test_a_sheet_without_a_folder_is_refused_before_work(staged: Path, victim: Path, tmp_path: Path):
    ran = zipbatch("evaluate", victim, "--data", staged, "--sheet", tmp_path / "no" / "sheet.png")
    assert (ran.code, ran.out) == (2, "")


def test_a_demo_of_other_images_meets_no_old_results(tmp_path: Path):
    first = zipbatch("demo", "--out", tmp_path, "--limit", 8, "--json")
    other = zipbatch("demo", "--out", tmp_path, "--limit", 9, "--json")
    assert {row["n_ca"] for row in first.json["rows"]} == {8}
    assert {row["n_ca"] for row in other.json["rows"]} == {9}
    again = zipbatch("demo", "--out", tmp_path, "--limit", 8, "--json")
    assert (again.json["ran"], again.json["rows"]) == (0, first.json["rows"])


def test_a_foreign_manifest_beside_bare_tars_is_not_ours(source12: Path, tmp_path: Path):
    (source12 / "manifest.json").write_text('{"owner": "me"}')
    assert blur(source12, tmp_path / "pur").code == 0
    (source12 / "shards.jsonl").write_text("")
    ran = blur(source12, tmp_path / "pur")
    assert ran.code == 2
    assert "pydantic" not in ran.err


def test_a_staged_dataset_is_not_mixed_with_bare_tars(staged: Path, source12: Path, tmp_path: Path):
    ran = zipbatch("purify", staged, source12, "--purifier", "blur", "--store", tmp_path / "pur")
    assert ran.code == 2
    assert "only input" in ran.err
