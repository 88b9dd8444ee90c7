"""Everything in S3: data, prior, victim and store. The same bytes as on a disk, all by key, and no secret anywhere."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.making import CLASSES, files_below, sample, write_shard, write_source, zipbatch
from tests.object_store import BUCKET, SECRET, Request, S3Path, S3Server, times
from zipbatch.datasets import open_dataset
from zipbatch.shards import Sample
from zipbatch.stages.train.data import load_split
from zipbatch.storage.remote import client_for

BLUR = ("--purifier", "blur", "--device", "cpu")
ZIP = ("--steps", 3, "--transform", "blur:2", "--device", "cpu")


@pytest.fixture
def bucket(s3: S3Server) -> S3Path:
    """An empty prefix of the bucket."""
    return S3Path.fresh()


def said(*arguments: object) -> dict:
    ran = zipbatch(*arguments, "--json")
    assert ran.code == 0, ran.err
    assert SECRET not in ran.out + ran.err
    return ran.json


def bare(folder: S3Path, count: int, *, first: int = 0) -> S3Path:
    """Unlabelled shards of one image each."""
    for i in range(first, first + count):
        write_shard(folder / f"day-{i:03d}.tar", [sample(f"k{i:03d}", None, seed=i)])
    return folder


def test_the_whole_job(staged: Path, prior: Path, victim: Path, bucket: S3Path, tmp_path: Path):
    copies = {name: (bucket / name).copy_from(path) for name, path in (("prior", prior), ("victim", victim))}
    data = (bucket / "tiny-badnets").copy_from(staged)
    store, local = bucket / "pur", tmp_path / "pur"
    there = said("purify", data, "--prior", copies["prior"], "--store", store, "--tag", "nightly", *ZIP)
    here = said("purify", staged, "--prior", prior, "--store", local, "--tag", "nightly", *ZIP)
    assert (there["reference"], there["version"], there["counts"]) == (
        "tiny-badnets@nightly",
        here["version"],
        here["counts"],
    )
    assert files_below(store / "objects") == files_below(local / "objects")
    assert set(files_below(store)) - {"inputs/tiny-badnets.jsonl.gz"} == {
        name for name in files_below(local) if not name.endswith(".lock")
    }
    urls = zipbatch("store", "urls", "tiny-badnets@nightly", "--store", store, "--split", "test").out.split()
    assert [url.startswith(f"{store}/objects/") for url in urls] == [True] * 3
    asked = ("--data", data, "--purified", "tiny-badnets@nightly")
    rows = said("evaluate", copies["victim"], *asked, "--store", store)["rows"]
    expected = said("evaluate", victim, "--data", staged, "--purified", "tiny-badnets@nightly", "--store", local)
    measures = ("ca", "asr", "pa", "ra", "flip_rate", "psnr_clean_db", "version")
    assert [[row[m] for m in measures] for row in rows] == [[row[m] for m in measures] for row in expected["rows"]]
    again = said("purify", data, "--prior", copies["prior"], "--store", store, *ZIP)
    assert (again["computed"], again["reused"], again["new_version"]) == (0, 6, False)
    assert zipbatch("store", "verify", "--store", store).code == 0
    assert [v["tags"] for v in said("store", "ls", "--store", store)["versions"]] == [["latest", "nightly"]]


def test_quarantine(bucket: S3Path, victim: Path, tmp_path: Path):
    """Set aside, counted, verified and left out of measures as on a disk, with the same bytes."""
    good = sample("b", 1, seed=1)
    broken = Sample("a", {**good.members, "png": good.members["png"][:60]})
    for folder in (bucket / "in", tmp_path / "in"):
        write_shard(folder / "day-0.tar", [broken, good])
        write_shard(folder / "day-1.tar", [sample("c", 0, seed=2)])
    stores = (bucket / "pur", tmp_path / "pur")
    there, here = (said("purify", s.parent / "in", *BLUR, "--store", s, "--name", "in", "--quarantine") for s in stores)
    assert (there["samples"], there["quarantined"], there["version"]) == (2, 1, here["version"])
    assert files_below(stores[0] / "objects") == files_below(stores[1] / "objects")
    again = said("purify", bucket / "in", *BLUR, "--store", stores[0], "--quarantine")
    assert (again["computed"], again["quarantined"]) == (0, 1)
    assert zipbatch("store", "verify", "--store", stores[0]).code == 0
    rows = said("evaluate", victim, "--data", bucket / "in", "--purified", "in", "--store", stores[0])["rows"]
    assert [(row["n_ca"], row["n_quarantined"]) for row in rows] == [(2, 1)] * 2
    (aside,) = (name for name in files_below(stores[0] / "objects") if name.endswith(".quarantine.tar"))
    (stores[0] / "objects" / aside).unlink()
    assert "quarantine" in zipbatch("store", "verify", "--store", stores[0]).out
    assert said("purify", bucket / "in", *BLUR, "--store", stores[0], "--quarantine")["computed"] == 1
    assert zipbatch("store", "verify", "--store", stores[0]).code == 0


def test_no_secret_is_written_anywhere(bucket: S3Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    bare(bucket / "in", 2)
    ran = zipbatch("-vv", "purify", bucket / "in", *BLUR, "--store", bucket / "pur")
    assert ran.code == 0
    seen = ran.out + ran.err + "".join(capfd.readouterr())
    for name, data in files_below(bucket / "pur").items():
        content = gzip.decompress(data) if name.endswith(".gz") else data
        seen += content.decode("latin1")
    assert SECRET not in seen
    assert "AKIA" not in seen


def new(requests: Sequence[Request]) -> list[tuple[str, str]]:
    return [(request.method, request.path) for request in requests]


def listed(requests: Sequence[Request], bucket: S3Path) -> set[str]:
    """The folders that were listed. Every run looks through the notes of what is being removed: nearly always none."""
    prefixes = [request.query["prefix"][0] for request in requests if request.lists]
    return {prefix.removeprefix(f"{bucket.key}/").rstrip("/") for prefix in prefixes} - {"pur/removals"}


def test_staged_data_is_never_listed(s3: S3Server, staged: Path, bucket: S3Path):
    data = (bucket / "tiny-badnets").copy_from(staged)
    with s3.watched() as requests:
        assert said("purify", data, *BLUR, "--store", bucket / "pur")["computed"] == 6
    assert listed(requests, bucket) == set()


def test_the_command_says_nothing_else(bucket: S3Path):
    """As the shell sees it: no warning of a library's at the end, and an exit code of 0."""
    bare(bucket / "in", 1)
    command = [sys.executable, "-m", "zipbatch", "purify", str(bucket / "in"), *BLUR, "--store", str(bucket / "pur")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0
    (said,) = ran.stderr.splitlines()
    assert "purifying in: 1 shards" in said
    assert "1 computed" in ran.stdout


def test_nothing_is_looked_up_by_listing(s3: S3Server, bucket: S3Path):
    bare(bucket / "in", 4)
    asked = ("purify", f"{bucket}/in/day-{{000..003}}.tar", *BLUR, "--store", bucket / "pur", "--name", "in")
    with s3.watched() as first:
        said(*asked)
    with s3.watched() as second:
        said(*asked)
    for requests in (first, second):
        assert listed(requests, bucket) == set()
    with s3.watched() as evaluated:
        version = zipbatch("store", "urls", "in", "--store", bucket / "pur")
    assert version.code == 0
    assert [request for request in evaluated if request.lists] == []
    writes = {path for method, path in new(second) if method == "PUT"}
    assert {path.removeprefix(f"/{BUCKET}/{bucket.key}/pur/").partition("@")[0] for path in writes} == {
        "claims/in",
        "tags/in/latest",
        ".zipbatch-writable",
    }


def test_the_cost_does_not_grow_with_what_is_there(s3: S3Server, bucket: S3Path):
    """The same nightly step, in a store of its own and in one with much else: as many requests."""
    counts = []
    for name, others in (("small", 0), ("large", 12)):
        store = bucket / name / "pur"
        if others:
            said("purify", bare(bucket / name / "others", others, first=100), *BLUR, "--store", store)
        data = bare(bucket / name / "in", 2)
        said("purify", f"{data}/day-{{000..001}}.tar", *BLUR, "--store", store, "--name", "in")
        bare(data, 1, first=2)
        with s3.watched() as requests:
            made = said("purify", f"{data}/day-{{000..002}}.tar", *BLUR, "--store", store, "--name", "in")
        assert (made["computed"], made["reused"]) == (1, 2)
        counts.append(sorted(request.method for request in requests))
    assert counts[0] == counts[1]


def test_only_what_is_new_or_changed_is_computed(s3: S3Server, bucket: S3Path):
    data, store = bare(bucket / "in", 3), bucket / "pur"
    asked = ("purify", data, *BLUR, "--store", store)
    first = said(*asked)
    assert (first["reference"], first["computed"]) == ("in@latest", 3)
    plan = said(*asked, "--dry-run")
    assert (plan["store"], plan["reused"], plan["of_unknown_digest"]) == (str(store), 3, 0)
    bare(data, 1, first=3)
    write_shard(data / "day-001.tar", [sample("k001", None, seed=77)])
    with s3.watched() as requests:
        second = said(*asked)
    assert (second["computed"], second["reused"]) == (2, 2)
    read = {Path(r.path).name for r in requests if r.method == "GET" and r.path.startswith(f"/{BUCKET}/{data.key}/day")}
    assert read == {"day-001.tar", "day-003.tar"}
    (data / "day-000.tar").unlink()
    assert said(*asked)["shards"] == 3


def test_a_run_that_lost_its_store_goes_on_later(s3: S3Server, bucket: S3Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ZIPBATCH_REMOTE_TRIES", "2")
    client_for.cache_clear()
    data, store = bare(bucket / "in", 4), bucket / "pur"
    puts = [0]

    def after_two(request: Request) -> str | None:
        puts[0] += request.method == "PUT" and "/objects/" in request.path
        return "503" if puts[0] > 2 else None

    with s3.failing(after_two):
        ran = zipbatch("purify", data, *BLUR, "--store", store)
    client_for.cache_clear()
    assert ran.code == 1
    assert "cannot be reached" in ran.err
    assert files_below(store / "versions") == files_below(store / "tags") == {}
    kept = len(files_below(store / "tasks"))
    assert kept <= 2
    again = said("purify", data, *BLUR, "--store", store)
    assert (again["computed"], again["reused"]) == (4 - kept, kept)
    assert zipbatch("store", "verify", "--store", store).code == 0
    other = said("purify", data, *BLUR, "--store", bucket / "undisturbed")
    assert other["version"] == again["version"]
    assert files_below(bucket / "undisturbed" / "objects") == files_below(store / "objects")


def test_staged_data_that_is_not_what_its_manifest_says(staged: Path, bucket: S3Path):
    data = (bucket / "tiny-badnets").copy_from(staged)
    shard, asked = data / "test-000001.tar", ("purify", data, *BLUR, "--store", bucket / "pur")
    sound = shard.read_bytes()
    shard.write_bytes(sound[:700] + bytes([sound[700] ^ 1]) + sound[701:])
    ran = zipbatch(*asked)
    assert ran.code == 1
    assert f"{shard}: its bytes are not those the manifest lists" in ran.err
    shard.write_bytes(sound[:-512])
    ran = zipbatch(*asked)
    assert (ran.code, "shards.jsonl says" in ran.err) == (2, True)
    shard.unlink()
    ran = zipbatch(*asked)
    assert (ran.code, "listed in shards.jsonl but missing" in ran.err) == (2, True)


def test_training_reads_from_there_too(staged: Path, bucket: S3Path):
    data = open_dataset([str((bucket / "tiny-badnets").copy_from(staged))])
    there, here = (load_split(dataset.split("train")) for dataset in (data, open_dataset([str(staged)])))
    assert data.classes == CLASSES
    assert there.images.equal(here.images)
    assert there.labels.equal(here.labels)


def test_a_bad_shard_is_named_by_its_url(bucket: S3Path):
    data = bare(bucket / "in", 1)
    (data / "day-001.tar").write_bytes(b"no tar at all")
    ran = zipbatch("purify", data, *BLUR, "--store", bucket / "pur")
    assert ran.code == 1
    assert f"{data}/day-001.tar: is plain text, not a readable tar" in ran.err


@pytest.mark.parametrize("what", ["--prior", "victim", "data", "store"])
def test_what_is_not_there(staged: Path, bucket: S3Path, tmp_path: Path, what: str):
    asked = {
        "--prior": ("purify", staged, "--prior", bucket / "no", "--store", tmp_path / "pur"),
        "victim": ("evaluate", bucket / "no", "--data", staged),
        "data": ("purify", bucket / "no", *BLUR, "--store", tmp_path / "pur"),
        "store": ("store", "urls", "tiny-badnets", "--store", bucket / "no"),
    }
    ran = zipbatch(*asked[what])
    assert ran.code == 2
    assert f"{bucket}/no" in ran.err


def test_the_cache_flags(bucket: S3Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ZIPBATCH_CACHE", "/nowhere")
    monkeypatch.setenv("ZIPBATCH_CACHE_GB", "1")
    data = bare(bucket / "in", 3)
    cache = ("--cache", tmp_path / "mine", "--cache-gb", "0.000015")
    assert said("purify", data, *BLUR, "--store", bucket / "pur", *cache)["computed"] == 3
    kept = [file for file in (tmp_path / "mine" / "objects").iterdir() if not file.name.startswith(".")]
    assert 1 <= len(kept) < 3
    assert zipbatch("purify", data, *BLUR, "--store", bucket / "pur", "--cache-gb", "0").code == 2


@pytest.mark.ray
def test_ray_workers_open_their_own_client(staged: Path, prior: Path, bucket: S3Path):
    data = (bucket / "tiny-badnets").copy_from(staged)
    asked = (data, "--prior", (bucket / "prior").copy_from(prior), *ZIP)
    alone = said("purify", *asked, "--store", bucket / "alone")
    many = said("purify", *asked, "--store", bucket / "many", "--workers", 2)
    assert (many["computed"], many["version"]) == (6, alone["version"])
    assert files_below(bucket / "many" / "objects") == files_below(bucket / "alone" / "objects")


def test_a_source_on_a_disk_and_a_store_that_falters(s3: S3Server, bucket: S3Path, tmp_path: Path):
    source = write_source(tmp_path / "in", counts={"test": 4})
    with s3.failing(times(1, "503", of=lambda r: r.method == "PUT" and "/objects/" in r.path)):
        assert said("purify", source, *BLUR, "--store", bucket / "pur")["computed"] == 2
