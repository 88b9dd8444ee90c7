"""Images beside a sample's own, and members that are nobody's: never purified in silence, never lost in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.making import Ran, picture, sample, write_tar, zipbatch
from zipbatch import images
from zipbatch.pipeline.stage_types import STAGE_TYPES
from zipbatch.shards import read_shard
from zipbatch.store import Store, TaskRecord, verify
from zipbatch.store.seal import unsealed

BLUR = ("--purifier", "blur", "--device", "cpu")
MASK = images.encode_png(picture(77))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "pur"


@pytest.fixture(params=["5.jpg", "mask.png", "thumb"])
def odd(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def data(tmp_path: Path, odd: str) -> Path:
    """Two shards of four samples; two of the first have another image."""
    for number in range(2):
        rows = [sample(f"{number}{i}", i, seed=i) for i in range(4)]
        members = [(f"{row.key}.{kind}", body) for row in rows for kind, body in row.members.items()]
        if number == 0:
            members[2:2] = [(f"00.{odd}", MASK)]
            members += [(f"03.{odd}", MASK)]
        (tmp_path / "in").mkdir(exist_ok=True)
        write_tar(tmp_path / "in" / f"day-{number}.tar", members)
    return tmp_path / "in"


def purify(data: Path, store: Path, *options: object) -> Ran:
    return zipbatch("purify", data, *BLUR, "--store", store, "--json", *options)


def outputs(store: Path) -> dict[str, dict[str, bytes]]:
    opened = Store(store)
    rows = opened.versions.read("in").rows
    return {s.key: s.members for row in rows for s in read_shard(opened.objects.path(row.output))}


def records(store: Path) -> list[dict[str, Any]]:
    return [unsealed(file.read_bytes()) for file in sorted((store / "tasks").rglob("*.json"))]


def test_they_are_refused(data: Path, store: Path, odd: str):
    ran = purify(data, store)
    assert (ran.code, ran.out) == (1, "")
    assert f"day-0.tar: key '00': holds other images than .png, which is purified: .{odd}." in ran.err
    for way in ("rename", "--other-images keep", "--quarantine"):
        assert way in ran.err


def test_kept_ones_are_untouched_counted_and_said(data: Path, store: Path, odd: str, caplog: pytest.LogCaptureFixture):
    ran = purify(data, store, "--other-images", "keep")
    assert ran.code == 0, ran.err
    assert (ran.json["samples"], ran.json["other_images"]) == (8, 2)
    assert ran.json["counts"]["data"] == {"shards": 2, "samples": 8, "other_images": 2}
    assert caplog.text.count("2 images beside the samples' own were kept as they are") == 1
    found = outputs(store)
    assert {key: members[odd] for key, members in found.items() if odd in members} == {"00": MASK, "03": MASK}
    assert found["00"]["png"] != sample("00", 0, seed=0).members["png"]
    assert sorted(record.get("other_images", 0) for record in records(store)) == [0, 2]
    assert verify(Store(store)).faults == ()
    assert "2 images beside" in zipbatch("purify", data, *BLUR, "--store", store, "--other-images", "keep").out


def test_the_purified_images_are_those_of_a_run_without_them(data: Path, store: Path, odd: str, tmp_path: Path):
    assert purify(data, store, "--other-images", "keep").code == 0
    kept = outputs(store)
    for file in data.iterdir():
        members = [(f"{s.key}.{k}", b) for s in read_shard(file) for k, b in s.members.items() if k != odd]
        write_tar(file, members)
    assert purify(data, store).code == 0
    assert outputs(store) == {key: {k: b for k, b in found.items() if k != odd} for key, found in kept.items()}


def test_a_strict_run_takes_nothing_that_kept(data: Path, store: Path):
    kept = purify(data, store, "--other-images", "keep").json
    strict = purify(data, store)
    assert strict.code == 1
    assert "day-0.tar: key '00'" in strict.err
    assert "1 of 2 shards failed" in strict.err
    again = purify(data, store, "--other-images", "keep").json
    assert (again["computed"], again["version"], again["new_version"]) == (0, kept["version"], False)
    plan = zipbatch("purify", data, *BLUR, "--store", store, "--dry-run", "--json").json
    assert (plan["to_compute"], plan["other_images"]) == (1, "refuse")


def test_a_quarantine_takes_them_and_keep_brings_them_back(data: Path, store: Path):
    aside = purify(data, store, "--quarantine").json
    assert (aside["samples"], aside["quarantined"], aside["other_images"]) == (6, 2, 0)
    assert "00" not in outputs(store)
    kept = purify(data, store, "--quarantine", "--other-images", "keep").json
    assert (kept["samples"], kept["quarantined"], kept["other_images"], kept["computed"]) == (8, 0, 2, 1)
    again = purify(data, store, "--quarantine").json
    assert (again["version"], again["computed"]) == (aside["version"], 1)
    assert verify(Store(store)).faults == ()


@pytest.mark.parametrize("given", [None, "refuse", "keep"])
def test_a_pipeline_can_keep_them(data: Path, tmp_path: Path, given: str | None):
    purify = {"run": "purify", "data": str(data), "purifier": "blur"} | ({"other_images": given} if given else {})
    recipe = tmp_path / "p.yaml"
    recipe.write_text(json.dumps({"about": "x", "stages": {"pur": purify}}))
    ran = zipbatch("run", recipe, "--out", tmp_path / "out")
    assert (ran.code == 0, "other_images: keep" in ran.err) == (given == "keep", given != "keep"), ran.err


def test_an_unsaid_setting_changes_no_fact():
    """Pipelines that ran before are not run anew."""
    purify, poison = STAGE_TYPES["purify"], STAGE_TYPES["poison"]
    assert "other_images" not in purify.decides(purify.settings(purifier="blur"))
    assert "skip_unreadable" not in poison.decides(poison.settings(attack="badnets"))
    assert purify.decides(purify.settings(purifier="blur", other_images="keep"))["other_images"] == "keep"
    assert poison.decides(poison.settings(attack="badnets", skip_unreadable=True))["skip_unreadable"] is True


def test_records_without_the_count_stay_accepted(store: Path, tmp_path: Path):
    """They are written as they always were where there is nothing to count."""
    write_tar(tmp_path / "a.tar", [("a.png", MASK)])
    assert purify(tmp_path / "a.tar", store).code == 0
    (record,) = records(store)
    assert not {"other_images", "passed_over"} & set(record)
    assert TaskRecord.model_validate(record).other_images == 0
    for flags in ((), ("--quarantine",), ("--other-images", "keep")):
        assert purify(tmp_path / "a.tar", store, *flags).json["computed"] == 0


@pytest.mark.parametrize("flags", [(), ("--quarantine",)])
@pytest.mark.parametrize("stray", ["._{}.jpg", ".DS_Store", "sub/._{}.jpg", "__MACOSX/._{}.png", "README", "sub/NOTES"])
def test_strays_in_a_shard_are_counted(
    store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, stray: str, flags: tuple[str, ...]
):
    members = [("a.png", MASK), (stray.format("a"), b"\0\5\x16\7"), ("b.png", MASK)]
    path = write_tar(tmp_path / "a.tar", members)
    ran = purify(path, store, *flags)
    assert ran.code == 0, ran.err
    assert (ran.json["samples"], ran.json["quarantined"]) == (2, 0)
    (record,) = records(store)
    assert (record["passed_over"], record["samples_in"], record["samples_out"]) == (1, 2, 2)
    assert f"a.tar: passed over members that are no samples: 1 ({stray.format('a')})" in caplog.text


def test_a_file_that_is_no_sample_is_told_what_to_do_with(store: Path, tmp_path: Path):
    path = write_tar(tmp_path / "a.tar", [("a.png", MASK), ("README.md", b"x")])
    ran = purify(path, store)
    assert ran.code == 1
    assert "key 'README': needs exactly one image member" in ran.err
    assert "pack the shard without it ('zipbatch purify --quarantine' sets it aside)" in ran.err
    assert purify(path, store, "--quarantine").json["quarantined"] == 1
