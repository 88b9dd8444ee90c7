"""``purify --quarantine``: what cannot be read is set aside whole, the rest is what it would be without it."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.making import Ran, files_below, picture, sample, write_shard, write_tar, write_victim, zipbatch
from tests.test_images import png_header
from zipbatch import images
from zipbatch.atomic import sha256_file
from zipbatch.datasets import open_dataset
from zipbatch.shards import Sample, read_shard
from zipbatch.store import GcPolicy, Store, VersionRow, collect, find_garbage, verify
from zipbatch.store.versions import version_id

BLUR = ("--purifier", "blur", "--device", "cpu")
PNG = images.encode_png(picture(0))
Members = dict[str, bytes]
BROKEN: dict[str, Members] = {
    "b_cut": {"png": PNG[:60], "cls": b"1", "txt": b"a note \xff"},
    "d_empty": {"jpg": b"", "cls": b"2"},
    "e_none": {"cls": b"0", "json": b"{broken"},
    "f_two": {"png": PNG, "jpg": b"\xff\xd8", "cls": b"0"},
    "h_bomb": {"png": png_header(60_000, 60_000)},
}
GOOD = ("a", "c", "g", "i", "j")


def good(key: str) -> Members:
    return sample(key, ord(key) % 3, seed=ord(key)).members


def tar_of(path: Path, samples: dict[str, Members]) -> Path:
    path.parent.mkdir(exist_ok=True)
    return write_tar(path, [(f"{key}.{name}", data) for key, found in samples.items() for name, data in found.items()])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two shards: broken samples among good ones, and nothing but good ones."""
    mixed = dict(sorted({**{key: good(key) for key in GOOD}, **BROKEN}.items()))
    tar_of(tmp_path / "in" / "day-0.tar", mixed)
    tar_of(tmp_path / "in" / "day-1.tar", {"x": good("x"), "y": good("y")})
    return tmp_path / "in"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "pur"


def purify(data: Path, store: Path, *options: object) -> Ran:
    return zipbatch("purify", data, *BLUR, "--store", store, "--json", *options)


def record_of(store: Path) -> dict[str, Any]:
    """The one task record that quarantined."""
    (found,) = [r for f in (store / "tasks").rglob("*.json") if (r := json.loads(f.read_bytes()))["quarantined"]]
    return dict(found)


def quarantine_in(store: Path) -> Path:
    (found,) = (store / "objects").glob("??/*.quarantine.tar")
    return found


def test_broken_samples_are_set_aside_untouched(data: Path, store: Path, caplog: pytest.LogCaptureFixture):
    ran = purify(data, store, "--quarantine")
    assert ran.code == 0, ran.err
    assert (ran.json["samples"], ran.json["quarantined"], ran.json["computed"]) == (7, 5, 2)
    aside = {s.key: s.members for s in read_shard(quarantine_in(store), imageless=True)}
    assert aside == BROKEN
    assert list(aside) == sorted(BROKEN)
    record = record_of(store)
    assert record["quarantined"] == sorted(BROKEN)
    assert (record["samples_in"], record["samples_out"]) == (10, 5)
    assert quarantine_in(store).name == f"{record['quarantine_sha256']}.quarantine.tar"
    reasons = record["reasons"]
    assert list(reasons) == sorted(BROKEN)
    assert "unreadable png" in reasons["b_cut"]
    assert "is not a jpg image" in reasons["d_empty"]
    assert "needs exactly one image member" in reasons["e_none"]
    assert "has png, jpg" in reasons["f_two"]
    assert "3600000000 pixels" in reasons["h_bomb"]
    assert verify(Store(store)).faults == ()
    assert "day-0.tar: 5 of 10 samples quarantined; the first is 'b_cut'" in caplog.text


def test_the_rest_is_as_if_they_had_never_been_there(data: Path, store: Path, prior: Path, tmp_path: Path):
    """Batches and canvases are filled with what can be read alone."""
    tar_of(tmp_path / "alone" / "day-0.tar", {key: good(key) for key in GOOD})
    sampled = ("--prior", prior, "--steps", 2, "--transform", "blur:2", "--device", "cpu", "--batch-size", 2)
    for options in ((*BLUR, "--batch-size", 2), sampled):
        outputs = []
        for folder, flags in ((data, ["--quarantine"]), (tmp_path / "alone", [])):
            command = ("purify", folder, *options, *flags, "--store", store, "--name", folder.name)
            assert zipbatch(*command).code == 0
            first = zipbatch("store", "urls", folder.name, "--store", store).out.splitlines()[0]
            outputs.append(Path(first).read_bytes())
        assert outputs[0] == outputs[1]


@pytest.mark.parametrize("size", [12, 24, 17])
def test_images_that_do_not_tile_go_too(size: int, store: Path, prior: Path, tmp_path: Path):
    rows = [sample("a", 0, seed=1), sample("odd", 0, seed=2, size=size), sample("z", 0, seed=3)]
    data = write_shard(tmp_path / "in" / "t.tar", rows)
    command = ("purify", data, "--prior", prior, "--steps", 2, "--transform", "gray", "--store", store, "--quarantine")
    ran = zipbatch(*command, "--json")
    assert (ran.code, ran.json["samples"], ran.json["quarantined"]) == (0, 2, 1)
    record = record_of(store)
    assert f"{size}x{size}" in record["reasons"]["odd"]
    assert record["slots"] == [{"samples": 2, "width": 16, "height": 16, "slots": 1}]
    again = zipbatch(*command, "--resize", "stretch", "--json")
    assert (again.code, again.json["samples"], again.json["quarantined"]) == (0, 3, 0)


def test_a_strict_run_does_not_take_what_quarantined(data: Path, store: Path, caplog: pytest.LogCaptureFixture):
    assert purify(data, store, "--quarantine").code == 0
    strict = purify(data, store)
    assert strict.code == 1
    assert "day-0.tar: key 'b_cut'" in strict.err
    assert "1 of 2 shards failed" in strict.err
    caplog.clear()
    again = purify(data, store, "--quarantine")
    assert (again.code, again.json["computed"], again.json["quarantined"]) == (0, 0, 5)
    assert not again.json["new_version"]
    assert "quarantined" not in caplog.text  # said once; the summary goes on counting


def test_a_strict_run_after_a_repair_takes_nothing_from_it(data: Path, store: Path):
    short = purify(data, store, "--quarantine").json["version"]
    tar_of(data / "day-0.tar", {key: good(key) for key in GOOD})
    whole = purify(data, store)
    assert (whole.code, whole.json["samples"], whole.json["quarantined"]) == (0, 7, 0)
    assert whole.json["version"] != short


def test_without_broken_samples_the_flag_changes_nothing(store: Path, tmp_path: Path):
    data = tar_of(tmp_path / "in" / "x.tar", {"x": good("x")})
    first = purify(data, store, "--quarantine")
    strict = purify(data, store)
    assert (first.json["quarantined"], strict.json["computed"], strict.json["new_version"]) == (0, 0, False)
    row = zipbatch("store", "show", "in", "--store", store, "--json").json["shards"][0]
    assert set(row) == {"split", "shard", "output", "input", "samples"}
    # the id that such a list had before there was a quarantine
    fields = {"split": "data", "shard": "x.tar", "output": "0" * 64, "input": "1" * 64, "samples": 1}
    assert version_id("d", {"method": "blur"}, [VersionRow(**fields)]) == "440d0e3fdfdb4b86b812"


def test_two_shards_of_nothing_but_broken_samples_keep_their_own(store: Path, tmp_path: Path):
    """Their purified shards are one and the same empty object."""
    tar_of(tmp_path / "in" / "a.tar", {"p": BROKEN["b_cut"]})
    tar_of(tmp_path / "in" / "b.tar", {"q": BROKEN["d_empty"]})
    tar_of(tmp_path / "in" / "c.tar", {"x": good("x")})
    ran = purify(tmp_path / "in", store, "--quarantine")
    assert (ran.code, ran.json["samples"], ran.json["quarantined"]) == (0, 1, 2)
    found = [s.key for f in (store / "objects").glob("??/*.quarantine.tar") for s in read_shard(f, imageless=True)]
    assert sorted(found) == ["p", "q"]
    assert verify(Store(store)).faults == ()


def test_settings_that_fit_no_image_publish_no_version(store: Path, tmp_path: Path):
    data = write_shard(tmp_path / "in" / "x.tar", [sample(f"k{i}", 0, seed=i) for i in range(3)])
    ran = purify(data, store, "--transform", "blur:3", "--quarantine")
    assert ran.code == 1
    assert "not one of 3 samples could be read" in ran.err
    assert "key 'k0'" in ran.err
    assert not list((store / "versions").rglob("*.json"))


@pytest.mark.parametrize("within", [0, 100, 700])
def test_a_damaged_container_still_fails_its_shard(data: Path, store: Path, within: int):
    """Cut before, in and after the header of a late member: how much more there was, nobody can say."""
    path = data / "day-0.tar"
    with tarfile.open(path) as tar:
        start = tar.getmember("i.png").offset
    path.write_bytes(path.read_bytes()[: start + within])
    ran = purify(data, store, "--quarantine")
    assert ran.code == 1
    assert "day-0.tar" in ran.err
    assert [n for n in files_below(store) if ".tmp-" in n or "quarantine" in n or n.startswith("versions/")] == []


def test_the_version_counts_and_shows_them(data: Path, store: Path):
    purify(data, store, "--quarantine")
    header = Store(store).versions.read("in").header
    assert header.quarantined == 5
    assert header.counts == {"data": {"shards": 2, "samples": 7, "quarantined": 5}}
    assert "7 (+5 quarantined)" in zipbatch("store", "ls", "--store", store).out
    shown = zipbatch("store", "show", "in", "--store", store)
    assert f"5 quarantined  {quarantine_in(store)}" in shown.out
    rows = zipbatch("store", "show", "in", "--store", store, "--json").json["shards"]
    assert [row.get("quarantined") for row in rows] == [5, None]
    said = zipbatch("purify", data, *BLUR, "--store", store, "--quarantine")
    assert "5 more images quarantined: see 'zipbatch store show in@latest'" in said.out


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[600] ^= 1
    path.write_bytes(content)


def forget(path: Path) -> None:
    path.unlink()


def miscount(path: Path) -> None:
    record = next(f for f in (path.parents[2] / "tasks").rglob("*.json") if json.loads(f.read_bytes())["quarantined"])
    value = json.loads(record.read_bytes())
    value["quarantined"][0] = "another"
    del value["seal"]  # as in a store of an older release
    record.write_text(json.dumps(value))


@pytest.mark.parametrize("damage", [flip, forget, miscount])
def test_verify_looks_at_quarantine_shards(data: Path, store: Path, damage: Callable[[Path], None]):
    purify(data, store, "--quarantine")
    before = quarantine_in(store).read_bytes()
    damage(quarantine_in(store))
    checked = zipbatch("store", "verify", "--store", store, "--repair")
    assert checked.code == 1
    assert "quarantine" in checked.out
    assert purify(data, store, "--quarantine").code == 0
    assert quarantine_in(store).read_bytes() == before
    assert verify(Store(store)).faults == ()


def test_evaluation_says_how_many_it_leaves_out(data: Path, store: Path, tmp_path: Path):
    purify(data, store, "--quarantine", "--tag", "one")
    purify(data, store, "--quarantine", "--tag", "two", "--transform", "gray")
    victim = write_victim(tmp_path / "v")
    command = ("evaluate", victim, "--data", data, "--store", store, "--purified", "in@one", "--purified", "in@two")
    ran = zipbatch(*command, "--json", "--sheet", tmp_path / "sheet.png")
    assert ran.code == 0, ran.err
    assert [(row["n_ca"], row["n_quarantined"]) for row in ran.json["rows"]] == [(7, 5)] * 3
    assert [row["n_flip"] for row in ran.json["rows"]] == [0, 7, 7]
    assert "5 more images are in quarantine and in none of these measures" in zipbatch(*command).out
    plain = zipbatch("evaluate", victim, "--data", data)
    assert plain.code == 1
    assert "b_cut" in plain.err  # without a version that holds it in quarantine, a broken image is an error as ever


def test_a_quarantined_sample_is_one_again_when_it_is_repaired(data: Path, store: Path, tmp_path: Path):
    """The quarantine shard is a webdataset shard like any other."""
    purify(data, store, "--quarantine")
    fixed = [
        Sample(s.key, {**{k: v for k, v in s.members.items() if k not in {"png", "jpg"}}, "png": PNG})
        for s in read_shard(quarantine_in(store), imageless=True)
    ]
    ran = purify(write_shard(tmp_path / "fixed" / "day-0-fixed.tar", fixed), store)
    assert (ran.code, ran.json["samples"]) == (0, 5)


# ---- what looks after the store


def test_gc_keeps_them_as_long_as_a_version_lists_them(data: Path, store: Path):
    purify(data, store, "--quarantine")
    everything = GcPolicy(untagged_older_than_s=0.0)
    make_old(store)
    assert find_garbage(Store(store), everything).objects == ()
    tar_of(data / "day-0.tar", {key: good(key) for key in GOOD})
    purify(data, store)
    make_old(store)
    garbage = find_garbage(Store(store), everything)
    assert [file.name for file in garbage.objects] == [quarantine_in(store).relative_to(store).as_posix()]
    assert collect(Store(store), garbage).objects == 1
    assert not list(store.rglob("*.quarantine.tar"))
    assert verify(Store(store)).faults == ()


def make_old(store: Path) -> None:
    for file in store.rglob("*"):
        if file.is_file():
            os.utime(file, (1, 1))


def test_export_leaves_them_in_the_store_and_says_so(data: Path, store: Path, tmp_path: Path):
    purify(data, store, "--quarantine")
    out = tmp_path / "out"
    said = zipbatch("store", "export", "in", out, "--store", store, "--json").json
    assert (said["samples"], said["quarantined"]) == (7, 5)
    beside = {"README.md", "croissant.json", "manifest.json", "wids-data.json"}
    assert {path.name for path in out.iterdir()} == {"day-0.tar", "day-1.tar"} | beside
    assert [s.key for s in read_shard(out / "day-0.tar")] == list(GOOD)
    manifest = json.loads((out / "manifest.json").read_bytes())
    assert manifest["quarantined"] == 5
    assert [shard.get("quarantined") for shard in manifest["shards"]] == [5, None]
    images_out = zipbatch("store", "export", "in", tmp_path / "tree", "--as", "images", "--store", store)
    assert "7 images" in images_out.out
    assert "5 more are in quarantine and stay there" in images_out.out
    assert len(list((tmp_path / "tree").rglob("*.png"))) == 7


def test_the_manifest_of_staged_data_says_so_too(staged: Path, store: Path, tmp_path: Path):
    data = tmp_path / "tiny"
    shutil.copytree(staged, data)
    rows = [json.loads(line) for line in (data / "shards.jsonl").read_text().splitlines()]
    row = next(row for row in rows if row["split"] == "test")
    broken = tar_of(data / row["shard"], {"a": good("a"), **BROKEN})
    lost = row["samples"] - 6
    row |= {"samples": 6, "sha256": sha256_file(broken), "bytes": broken.stat().st_size}
    (data / "shards.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    manifest = json.loads((data / "manifest.json").read_bytes())
    manifest["splits"]["test"]["samples"] -= lost
    (data / "manifest.json").write_text(json.dumps(manifest))
    ran = purify(data, store, "--quarantine")
    assert (ran.code, ran.json["quarantined"]) == (0, 5), ran.err
    assert zipbatch("store", "export", "tiny", tmp_path / "out", "--data", data, "--store", store).code == 0
    exported = open_dataset([str(tmp_path / "out")])
    assert exported.manifest is not None
    assert exported.manifest.options["purified"]["quarantined"] == {row["shard"]: 5}
    assert exported.manifest.splits["test"].samples == manifest["splits"]["test"]["samples"] - 5


def test_diff_tells_them_apart(data: Path, store: Path):
    purify(data, store, "--quarantine", "--tag", "short")
    tar_of(data / "day-0.tar", {key: good(key) for key in GOOD})
    purify(data, store, "--tag", "whole")
    said = zipbatch("store", "diff", "in@short", "in@whole", "--store", store).out
    assert "data: 7 images (+5 quarantined) in 2 shards -> 7 images in 2 shards" in said


@pytest.mark.parametrize("fails", [False, True])
def test_reports_of_unattended_runs_count_them(data: Path, store: Path, tmp_path: Path, fails: bool):
    """Also of one that fails for another reason."""
    if fails:
        (data / "day-2.tar").write_bytes(b"no tar")
    file, prom = tmp_path / "run.json", tmp_path / "run.prom"
    assert purify(data, store, "--quarantine", "--summary", file, "--metrics", prom).code == fails
    assert json.loads(file.read_bytes())["counts"]["quarantined"] == 5
    assert "zipbatch_last_run_quarantined{" in prom.read_text()
    (value,) = [line.split()[-1] for line in prom.read_text().splitlines() if line.startswith("zipbatch_last_run_quar")]
    assert value == "5"


def test_a_version_that_lacks_one_is_not_published(data: Path, store: Path):
    """Nor is a shard taken for done whose quarantine is gone."""
    purify(data, store, "--quarantine")
    before = quarantine_in(store).read_bytes()
    quarantine_in(store).unlink()
    again = purify(data, store, "--quarantine")
    assert (again.code, again.json["computed"], again.json["reused"], again.json["new_version"]) == (0, 1, 1, False)
    assert quarantine_in(store).read_bytes() == before
