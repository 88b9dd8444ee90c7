"""Versions never change, tags only move forward, references say what there is."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.making import files_below, sample, write_source, zipbatch
from zipbatch import storage
from zipbatch.errors import DataError, UsageError
from zipbatch.storage import StoragePath, put_bytes, put_json
from zipbatch.store import Store, VersionHeader, VersionRow, Versions
from zipbatch.store.verify import verify
from zipbatch.store.versions import version_id

IDENTITY = {"method": "blur", "settings": {"transforms": ["blur:2"]}}


@pytest.fixture
def versions(pur: StoragePath) -> Versions:
    store = Store(pur)
    store.prepare()
    return store.versions


def rows(store: Store, count: int = 2) -> list[VersionRow]:
    made = []
    for i in range(count):
        with store.objects.new() as writer:
            writer.write(sample(f"k{i}", i, seed=i))
            info = writer.finish()
            store.objects.publish(writer, info)
        made.append(
            VersionRow(split="test", shard=f"test-{i}.tar", output=info.sha256, input=str(i) * 64, samples=info.samples)
        )
    return made


def header(
    listed: list[VersionRow], *, started: str = "2024-01-01T00:00:00+00:00", dataset: str = "d"
) -> VersionHeader:
    return VersionHeader(
        dataset=dataset,
        version=version_id(dataset, IDENTITY, listed),
        purifier=IDENTITY,
        prior_sha256=None,
        seed=None,
        counts={"test": {"shards": len(listed), "samples": sum(r.samples for r in listed)}},
        quarantined=0,
        parent=None,
        started=started,
        zipbatch="0",
    )


def test_publish_and_read(versions: Versions, pur: StoragePath):
    listed = rows(Store(pur))
    head = header(listed)
    assert versions.publish(head, listed)
    versions.tags.move("d", "latest", head.version, started_ns=1)
    for reference in ("d", "d@latest", f"d@{head.version}"):
        found = versions.read(reference)
        assert (found.header, list(found.rows), found.reference) == (head, listed, f"d@{head.version}")
    assert (versions.datasets(), versions.versions("d"), versions.tags.of("d")) == (
        ["d"],
        [head],
        {"latest": head.version},
    )
    assert not (pur / "inputs").exists()


def test_a_version_id_is_independent_of_time(versions: Versions, pur: StoragePath):
    listed = rows(Store(pur))
    first, second = header(listed), header(listed, started="2030-01-01T00:00:00+00:00")
    assert first.version == second.version
    assert versions.publish(first, listed)
    before = files_below(pur)
    assert not versions.publish(second, listed)
    assert files_below(pur) == before


def test_a_version_id_depends_on_all_it_names(pur: StoragePath, versions: Versions):
    listed = rows(Store(pur))
    ids = {
        version_id("d", IDENTITY, listed),
        version_id("e", IDENTITY, listed),
        version_id("d", {**IDENTITY, "seed": 1}, listed),
        version_id("d", IDENTITY, listed[::-1]),
        version_id("d", IDENTITY, listed[:1]),
    }
    assert len(ids) == 5


def test_the_same_run_at_another_time_adds_nothing(tmp_path: Path):
    source = write_source(tmp_path / "in", counts={"test": 4})
    found = []
    for store in ("one", "two"):
        ran = zipbatch("purify", source, "--purifier", "blur", "--store", tmp_path / store, "--json")
        found.append(ran.json["version"])
    assert found[0] == found[1]
    lists = [next((tmp_path / s / "versions" / "in").glob("*.jsonl.gz")).read_bytes() for s in ("one", "two")]
    assert lists[0] == lists[1]
    assert len(gzip.decompress(lists[0]).splitlines()) == 2


def test_a_version_needs_its_objects(versions: Versions, pur: StoragePath):
    store = Store(pur)
    listed = rows(store)
    store.objects.path(listed[1].output).unlink()
    with pytest.raises(DataError, match=r"test-1\.tar.*not in the store"):
        versions.publish(header(listed), listed)
    assert versions.datasets() == []


def test_versions_are_listed_by_their_start(versions: Versions, pur: StoragePath):
    listed = rows(Store(pur), 3)
    heads = [header(listed[:n], started=f"2024-01-0{4 - n}T00:00:00+00:00") for n in (1, 2, 3)]
    for n, head in enumerate(heads, 1):
        versions.publish(head, listed[:n])
    assert versions.versions("d") == heads[::-1]


def test_tags_move_forward_only(versions: Versions, pur: StoragePath):
    assert versions.tags.move("d", "latest", "aaaa", started_ns=1000)
    assert versions.tags.move("d", "latest", "bbbb", started_ns=2000)
    before = files_below(pur)
    assert not versions.tags.move("d", "latest", "aaaa", started_ns=1999)
    assert versions.tags.move("d", "latest", "bbbb", started_ns=1)  # older, but of one mind
    assert files_below(pur) == before
    assert versions.tags.read("d", "latest") == "bbbb"
    assert versions.tags.move("d", "latest", "cccc", started_ns=2000)
    assert versions.tags.of("d") == {"latest": "cccc"}
    assert (pur / "tags" / "d" / "latest").read_text() == "cccc\n2000\n"


def test_tags_of_one_line_stay_readable(versions: Versions, pur: StoragePath):
    """As they were before they held the start of the run; any run moves them."""
    (pur / "tags" / "d").mkdir(parents=True)
    (pur / "tags" / "d" / "latest").write_text("aaaa\n")
    assert versions.tags.of("d") == {"latest": "aaaa"}
    assert versions.tags.move("d", "latest", "bbbb", started_ns=1)
    assert versions.tags.of("d") == {"latest": "bbbb"}


def test_tags_of_datasets_are_apart(versions: Versions):
    versions.tags.move("d", "x", "aaaa", started_ns=2)
    versions.tags.move("e", "x", "bbbb", started_ns=1)
    assert (versions.tags.of("d"), versions.tags.of("e"), versions.tags.of("f")) == ({"x": "aaaa"}, {"x": "bbbb"}, {})
    assert versions.tags.read("d", "y") is None


@pytest.mark.parametrize("tag", ["../x", "a/b", "", ".x"])
def test_unfit_tags(versions: Versions, pur: StoragePath, tag: str):
    with pytest.raises(UsageError, match="tag"):
        versions.tags.move("d", tag, "aaaa", started_ns=1)
    assert files_below(pur) == {}


def test_an_unknown_reference_says_what_there_is(versions: Versions, pur: StoragePath):
    listed = rows(Store(pur))
    head = header(listed)
    versions.publish(head, listed)
    versions.tags.move("d", "nightly", head.version, started_ns=1)
    with pytest.raises(UsageError, match="d has the tags nightly"):
        versions.read("d@gone")
    with pytest.raises(UsageError, match="datasets there: d"):
        versions.read("e")
    with pytest.raises(UsageError, match="use letters"):
        versions.read("../d")


@pytest.mark.parametrize("damage", ["header", "list", "no list", "list of numbers", "not gzip"])
def test_damaged_versions(versions: Versions, pur: StoragePath, damage: str):
    listed = rows(Store(pur))
    head = header(listed)
    versions.publish(head, listed)
    file = pur / "versions" / "d" / f"{head.version}.json"
    listing = file.with_suffix(".jsonl.gz")
    if damage == "header":
        file.write_text("{}")
    elif damage == "no list":
        listing.unlink()
    else:
        content = {"list": listing.read_bytes()[:-5], "list of numbers": gzip.compress(b"1\n"), "not gzip": b"x"}
        listing.write_bytes(content[damage])
    with pytest.raises(DataError, match=head.version):
        versions.read(f"d@{head.version}")


@pytest.mark.parametrize(
    "damage", ["header", "list cut", "no header", "tag to nowhere", "empty tag", "tag of bytes", "tag to a path"]
)
def test_a_damaged_latest_does_not_break_a_new_run(tmp_path: Path, pur: StoragePath, damage: str):
    source, store = write_source(tmp_path / "in", counts={"test": 4}), pur
    command = ["purify", source, "--purifier", "blur", "--store", store, "--json"]
    first = zipbatch(*command).json
    file = store / "versions" / "in" / f"{first['version']}.json"
    if damage == "header":
        file.write_text("{")
    elif damage == "list cut":
        listing = file.with_suffix(".jsonl.gz")
        listing.write_bytes(listing.read_bytes()[:-5])
    elif damage == "no header":
        file.unlink()
    else:
        content = {
            "tag to nowhere": b"nowhere\n",
            "empty tag": b"",
            "tag of bytes": b"\xff\xfe",
            "tag to a path": b"../x",
        }
        (store / "tags" / "in" / "latest").write_bytes(content[damage])
        assert zipbatch("store", "verify", "--store", store).code == 1
    again = zipbatch(*command)
    assert again.code == 0, again.err
    assert (again.json["computed"], again.json["reused"], again.json["version"]) == (0, 2, first["version"])
    verified = zipbatch("store", "verify", "--store", store)
    assert verified.code == 0, verified.out


def test_any_flipped_byte_of_a_list_is_a_data_error(tmp_path: Path):
    source, store = write_source(tmp_path / "in", counts={"test": 4}), tmp_path / "pur"
    version = zipbatch("purify", source, "--purifier", "blur", "--store", store, "--json").json["version"]
    listing = store / "versions" / "in" / f"{version}.jsonl.gz"
    content, versions = listing.read_bytes(), Store(store).versions
    sound = versions.read("in")
    for at in range(10, len(content)):
        listing.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
        try:
            assert versions.read("in") == sound
        except DataError:
            pass


@pytest.mark.parametrize(
    "change",
    [
        {"counts": {"test": {"shards": 1}}},
        {"counts": {"test": {}}},
        {"purifier": {}},
        {"purifier": {"method": 5}},
        {"purifier": {"method": "zip", "settings": [1]}},
    ],
)
def test_a_header_that_lacks_what_is_shown_is_damaged(versions: Versions, pur: StoragePath, change: dict[str, object]):
    listed = rows(Store(pur))
    head = header(listed)
    versions.publish(head, listed)
    file = pur / "versions" / "d" / f"{head.version}.json"
    put_json(file, {**json.loads(file.read_bytes()), **change})
    with pytest.raises(DataError, match="damaged version"):
        versions.read(f"d@{head.version}")
    with pytest.raises(DataError, match="damaged version"):
        versions.versions("d")


@pytest.mark.parametrize("field", ["purifier", "counts", "version", "dataset", "quarantined"])
def test_a_header_that_is_not_what_its_id_says_is_never_read(versions: Versions, pur: StoragePath, field: str):
    """Whatever decides the id or is counted from the list is held against them, by every way to a version."""
    listed = rows(Store(pur))
    head = header(listed)
    versions.publish(head, listed)
    versions.tags.move("d", "latest", head.version, started_ns=1)
    path = pur / "versions" / "d" / f"{head.version}.json"
    value = head.model_dump(mode="json")
    value[field] = {
        "purifier": {**IDENTITY, "seed": 12},
        "counts": {"test": {"shards": 2, "samples": 3}},
        "version": value["version"][::-1],
        "dataset": "e",
        "quarantined": 1,
    }[field]
    put_json(path, value)
    for reference in ("d", "d@latest", f"d@{head.version}"):
        with pytest.raises(DataError, match="damaged version"):
            versions.read(reference)
    assert versions.latest("d") is None
    faults = verify(Store(pur), repair=True).faults
    assert any("damaged version" in fault.reason and "(removed)" in fault.reason for fault in faults)
    assert versions.ids("d") == []


def test_a_header_in_anothers_place_is_not_read(versions: Versions, pur: StoragePath):
    listed = rows(Store(pur))
    for head, list_ in ((header(listed), listed), (header(listed[:1]), listed[:1])):
        versions.publish(head, list_)
    one, two = (pur / "versions" / "d" / f"{header(list_).version}.json" for list_ in (listed, listed[:1]))
    put_json(one, header(listed[:1]).model_dump(mode="json"))
    with pytest.raises(DataError, match=f"is that of d@{two.name.removesuffix('.json')}"):
        versions.read(f"d@{header(listed).version}")
    with pytest.raises(DataError, match="is that of"):
        versions.versions("d")
    assert versions.read(f"d@{header(listed[:1]).version}").rows == tuple(listed[:1])


def test_a_tag_that_is_set_while_an_older_run_waits_for_it_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its start is younger than the moment at which the older run came, and yet no start in the future."""
    versions, came = Store(tmp_path / "pur").versions, time.time_ns()
    versions.tags.move("d", "x", "aaaa", started_ns=1)
    update = storage.update

    def wait_for(target: StoragePath, decide: Callable[[bytes | None], bytes | None]) -> None:
        time.sleep(0.01)
        monkeypatch.undo()
        versions.tags.move("d", "x", "byhand", started_ns=None)
        update(target, decide)

    monkeypatch.setattr(storage, "update", wait_for)
    assert not versions.tags.move("d", "x", "older", started_ns=came - 10**9)
    assert versions.tags.read("d", "x") == "byhand"


def test_a_tag_that_looks_like_an_id_hides_no_version(versions: Versions, pur: StoragePath):
    """None is made; of one that an older release made, the version of that id comes first, also for a repair."""
    listed = rows(Store(pur))
    sound, other = header(listed), header(listed[:1])
    for head, list_ in ((sound, listed), (other, listed[:1])):
        versions.publish(head, list_)
    with pytest.raises(UsageError, match="looks like one"):
        versions.tags.move("d", sound.version, other.version, started_ns=1)
    tag = pur / "tags" / "d" / sound.version
    put_bytes(tag, f"{other.version}\n1\n".encode())
    assert versions.read(f"d@{sound.version}").rows == tuple(listed)
    verify(Store(pur), repair=True)
    assert sorted(versions.ids("d")) == sorted([sound.version, other.version])
