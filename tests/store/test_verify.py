"""``verify`` finds every kind of damage, and says where it is."""

from __future__ import annotations

import gzip
import json
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.making import files_below, sample, write_shard, write_source, zipbatch
from zipbatch.errors import UsageError
from zipbatch.storage import StoragePath
from zipbatch.store import Store, lost_objects, verify
from zipbatch.store.objects import Objects
from zipbatch.store.removals import Removals
from zipbatch.store.seal import SEAL

verify_module = sys.modules[verify.__module__]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one version of three shards."""
    folder = tmp_path_factory.mktemp("verify")
    source = write_source(folder / "in", counts={"test": 6}, shards=3)
    ran = zipbatch("purify", source, "--purifier", "blur", "--store", folder / "pur", "--tag", "nightly")
    assert ran.code == 0, ran.err
    return folder / "pur"


@pytest.fixture
def store(made: Path, pur: StoragePath) -> StoragePath:
    return Path(shutil.copytree(made, pur)) if isinstance(pur, Path) else pur.copy_from(made)


def an_object(store: StoragePath) -> StoragePath:
    return sorted((store / "objects").rglob("*.tar"))[1]


def a_task(store: StoragePath) -> StoragePath:
    return sorted((store / "tasks").rglob("*.json"))[1]


def a_header(store: StoragePath) -> StoragePath:
    (found,) = (store / "versions" / "in").glob("*.json")
    return found


def change(file: StoragePath, **fields: object) -> str:
    """Other values, in a file of an older release, which has no seal."""
    value = json.loads(file.read_text())
    del value[SEAL]
    file.write_text(json.dumps({**value, **fields}))
    return file.stem


def flip(store: StoragePath) -> str:
    file = an_object(store)
    data = bytearray(file.read_bytes())
    data[700] ^= 1
    file.write_bytes(data)
    return file.stem


def remove(store: StoragePath) -> str:
    file = an_object(store)
    file.unlink()
    return file.stem


def stranger(store: StoragePath) -> str:
    write_shard(store / "objects" / "zz" / "x.tar", [sample("a", 1, seed=1)])
    return "zz/x.tar"


def misplaced(store: StoragePath) -> str:
    file = an_object(store)
    target = store / "objects" / "00" / file.name
    target.parent.mkdir(exist_ok=True)
    file.rename(target)
    return file.stem


def damage_task(store: StoragePath) -> str:
    a_task(store).write_text("{")
    return a_task(store).stem


def relist(store: StoragePath, edit: Callable[[list[dict[str, object]]], object]) -> str:
    file = a_header(store).with_suffix(".jsonl.gz")
    rows = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    edit(rows)
    file.write_bytes(gzip.compress(b"".join(json.dumps(row).encode() + b"\n" for row in rows)))
    return a_header(store).stem


def cut_list(store: StoragePath) -> str:
    file = a_header(store).with_suffix(".jsonl.gz")
    file.write_bytes(file.read_bytes()[:-6])
    return a_header(store).stem


def damage_header(store: StoragePath) -> str:
    a_header(store).write_text("[]")
    return a_header(store).stem


def tag_to_nowhere(store: StoragePath) -> str:
    (store / "tags" / "in" / "nightly").write_text("0123456789abcdef0123\n")
    return "tags/in/nightly"


DAMAGE: dict[str, Callable[[StoragePath], str]] = {
    "flipped byte": flip,
    "removed object": remove,
    "strange object": stranger,
    "misplaced object": misplaced,
    "damaged task": damage_task,
    "task of another output": lambda s: change(a_task(s), output_sha256="0" * 64),
    "task of another count": lambda s: change(a_task(s), samples_in=9, samples_out=9),
    "task that lost a sample": lambda s: change(a_task(s), samples_in=3),
    "task with a quarantined key too many": lambda s: change(a_task(s), quarantined=["x"]),
    "list cut": cut_list,
    "list without a row": lambda s: relist(s, lambda rows: rows.pop()),
    "list in another order": lambda s: relist(s, lambda rows: rows.reverse()),
    "list of another count": lambda s: relist(s, lambda rows: rows[0].update(samples=5)),
    "header damaged": damage_header,
    "header of another purifier": lambda s: change(a_header(s), purifier={"method": "zip"}),
    "header of other counts": lambda s: change(a_header(s), counts={"test": {"shards": 3, "samples": 7}}),
    "tag to nowhere": tag_to_nowhere,
}


def test_a_good_store(store: StoragePath):
    checked = verify(Store(store))
    assert (checked.objects, checked.tasks, checked.versions, checked.tags, checked.faults) == (3, 3, 1, 2, ())


def test_temp_files_of_other_runs_are_no_fault(store: StoragePath):
    for folder in ("objects", "tasks/ab", "versions/in", "tags/in", f"objects/{an_object(store).stem[:2]}"):
        (store / folder).mkdir(exist_ok=True)
        (store / folder / ".tmp-1-abc").write_bytes(b"half")
    assert verify(Store(store)).faults == ()


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_found_and_named(store: StoragePath, case: str):
    named = DAMAGE[case](store)
    faults = verify(Store(store)).faults
    assert faults
    assert any(named in f"{fault.where} {fault.reason}" for fault in faults)
    ran = zipbatch("store", "verify", "--store", store)
    assert ran.code == 1
    assert ran.out.count("FAULT") == len(faults)
    assert "Traceback" not in ran.err
    as_json = zipbatch("store", "verify", "--store", store, "--json")
    assert (as_json.code, len(as_json.json["faults"])) == (1, len(faults))


def test_a_removed_object_is_computed_again(store: StoragePath, made: Path):
    source = made.parent / "in"
    before = an_object(store).read_bytes()
    name = an_object(store)
    name.unlink()
    ran = zipbatch("purify", source, "--purifier", "blur", "--store", store, "--json")
    assert (ran.code, ran.json["computed"], ran.json["reused"]) == (0, 1, 2)
    assert name.read_bytes() == before
    assert verify(Store(store)).faults == ()


def test_no_store(tmp_path: Path):
    with pytest.raises(UsageError, match="no store there"):
        verify(Store(tmp_path))


@pytest.mark.parametrize("case", DAMAGE)
def test_repair_and_a_rerun_make_all_good(store: Path, made: Path, case: str):
    before = files_below(store / "objects")
    version = (store / "tags" / "in" / "latest").read_text().split()[0]
    DAMAGE[case](store)
    assert zipbatch("store", "verify", "--store", store, "--repair").code == 1
    ran = zipbatch("purify", made.parent / "in", "--purifier", "blur", "--store", store, "--tag", "nightly", "--json")
    assert (ran.code, ran.json["version"]) == (0, version), ran.err
    verified = zipbatch("store", "verify", "--store", store)
    assert verified.code == 0, verified.out
    assert files_below(store / "objects") == before


def test_repair_keeps_what_a_run_is_publishing(store: Path):
    """A list that looks damaged may be half of what a run is writing."""
    cut_list(store)
    with Store(store).versions.claim("in", a_header(store).stem):
        faults = verify(Store(store), repair=True).faults
        assert [fault.reason.endswith("(removed)") for fault in faults] == [False]
    assert a_header(store).is_file()


def test_progress_is_told(store: Path):
    seen: list[tuple[int, int]] = []
    verify(Store(store), on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_an_object_that_a_gc_takes_meanwhile_is_no_fault(store: Path, monkeypatch: pytest.MonkeyPatch):
    """Listed, then gone before it is read; nothing refers to it."""
    named = store / "objects" / "ab" / ("ab" + "0" * 62 + ".tar")
    write_shard(named, [sample("a", 1, seed=1)])

    def take(done: int, _total: int) -> None:
        named.unlink(missing_ok=True)

    assert verify(Store(store), on_progress=take).faults == ()


def test_what_is_missing_is_noted_for_stores_that_are_not_looked_into(
    store: StoragePath, monkeypatch: pytest.MonkeyPatch
):
    lost = remove(store)
    verify(Store(store))
    assert Removals(Store(store)).named() == set()
    verify(Store(store), repair=True)
    assert Removals(Store(store)).named() == {lost}
    monkeypatch.setattr(Objects, "lost", lambda _self, _digests, **_: set())  # as for a million in an object store
    assert lost_objects(Store(store), [lost, an_object(store).stem]) == {lost}


def test_a_copy_in_another_place_harms_nobody(store: StoragePath):
    """It is removed; what lies where it belongs is sound, and so is all that refers to it."""
    file = an_object(store)
    for folder in ("00", "zz"):
        (store / "objects" / folder).mkdir(exist_ok=True)
        (store / "objects" / folder / file.name).write_bytes(file.read_bytes())
    before = files_below(store)
    faults = verify(Store(store), repair=True).faults
    assert [(fault.where.split("/")[-2], fault.reason) for fault in faults] == [
        ("00", "does not belong here (removed)"),
        ("zz", "does not belong here (removed)"),
    ]
    strays = {f"objects/{folder}/{file.name}" for folder in ("00", "zz")}
    assert files_below(store) == {name: data for name, data in before.items() if name not in strays}


def test_every_field_of_a_record_and_a_header_is_sealed(store: StoragePath):
    """A digit that turns over in a count, a time or a digest is damage; files of older releases, unsealed, are read."""
    for file, faults in ((a_task(store), "damaged record"), (a_header(store), "a field is not what was written")):
        whole = file.read_text()
        for name, value in json.loads(whole).items():
            other = {str: f"{value}x", int: 7, float: 7.5, list: ["x"], dict: {"x": 1}}.get(type(value), "x")
            file.write_text(json.dumps({**json.loads(whole), name: other}))
            assert any(faults in found.reason for found in verify(Store(store)).faults), name
        file.write_text(whole)
        change(file)
        assert verify(Store(store)).faults == ()


def test_two_repairs_at_once(store: StoragePath):
    """Whichever comes first, both end well, and what is sound stays."""
    if not isinstance(store, Path):
        pytest.skip("threads of one process share the server")
    damaged = flip(store)
    change(a_task(store), samples_out=7)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: verify(Store(store), repair=True), range(4)))
    assert any(each.faults for each in found)
    assert not Store(store).objects.has(damaged)
    assert len(list((store / "objects").rglob("*.tar"))) == 2


def test_a_repair_does_not_remove_what_was_made_anew_meanwhile(store: StoragePath, monkeypatch: pytest.MonkeyPatch):
    file = an_object(store)
    sound, read = file.read_bytes(), verify_module.sha256_file
    flip(store)
    mended = []

    def read_while_it_is_mended(path: Path) -> str:
        digest = read(path)
        if digest != file.stem and not mended and path.stat().st_size == len(sound):
            mended.append(path)
            file.unlink()
            file.write_bytes(sound)
        return digest

    monkeypatch.setattr(verify_module, "sha256_file", read_while_it_is_mended)
    assert verify(Store(store), repair=True).faults == () and mended
    assert file.read_bytes() == sound
