"""``gc`` removes what nothing needs, in an order that a kill cannot break, and never what a running purify uses."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.making import files_below, sample, write_shard, write_source, zipbatch
from zipbatch import atomic
from zipbatch.errors import DataError, UsageError
from zipbatch.stages.purify.publish import publish_version
from zipbatch.storage import StoragePath
from zipbatch.store import (
    GcPolicy,
    ShardAnswers,
    Store,
    TaskRecord,
    VersionRow,
    Versions,
    collect,
    find_garbage,
    task_key,
    verify,
)
from zipbatch.store import removals as removals_module
from zipbatch.store.answers import answers_name
from zipbatch.store.gc import age_s
from zipbatch.store.objects import Objects
from zipbatch.store.records import QUARANTINE
from zipbatch.store.removals import IN_FORCE_S, Removals, claims
from zipbatch.store.tagging import delete_tag, point_tag
from zipbatch.store.tags import Tags
from zipbatch.store.tasks import Tasks

IDENTITY = {"method": "blur", "settings": {"transforms": ["blur:2"]}}
ALL = GcPolicy(untagged_older_than_s=0.0)
DAY_NS = 86_400 * 10**9


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removals_module, "_POLL_S", 0.01)
    monkeypatch.setattr(os, "fsync", lambda _fd: None)  # hundreds of stores are made here, and no power is lost


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """On a disk, where files can be made to look old."""
    store = Store(tmp_path / "pur")
    store.prepare()
    return store


def age(store: Store, days: float = 30) -> None:
    """Make every file of the store so old."""
    then = time.time() - days * 86_400
    for file in store.root.rglob("*"):
        if file.is_file():
            os.utime(file, (then, then))


def purified(store: Store, number: int, identity: dict[str, Any] = IDENTITY) -> VersionRow:
    """One shard as a worker purifies it: found by its key, else made."""
    key, split = task_key(f"{number:064x}", identity), "test"
    record = store.tasks.read(key)
    if record is None:
        with store.objects.new() as writer:
            writer.write(sample(f"k{number}", 1, seed=number))
            info = writer.finish()
            store.objects.publish(writer, info)
        record = TaskRecord(
            input_sha256=f"{number:064x}",
            output_sha256=info.sha256,
            samples_in=1,
            samples_out=1,
            seconds=0.1,
            device="cpu",
            worker={},
            versions={},
        )
        store.tasks.put(key, record)
    return VersionRow(split, f"test-{number:06d}.tar", record.output_sha256, record.input_sha256, record.samples_out)


def run(store: Store, numbers: range, *, tag: str | None = None, dataset: str = "d") -> str:
    """What a purify does to the store, from the first shard to the tags; the version's id."""
    started_ns = time.time_ns()
    rows = [purified(store, number) for number in numbers]
    return publish_version(store, dataset, IDENTITY, rows=rows, tag=tag, parent=None, started_ns=started_ns).version


def counts(store: Store) -> tuple[int, int, int]:
    """Objects, task records and versions that are there."""
    checked = verify(store)
    return checked.objects, checked.tasks, checked.versions


def test_what_a_version_needs_stays_however_old(store: Store):
    run(store, range(3), tag="nightly")
    age(store)
    before = files_below(store.root)
    garbage = find_garbage(store, ALL)
    assert (garbage.versions, garbage.tasks, garbage.objects, garbage.bytes) == ((), {}, (), 0)
    assert (garbage.kept_versions, garbage.kept_objects) == (1, 3)
    assert collect(store, garbage).objects == 0
    assert files_below(store.root) == before


def test_an_untagged_version_goes_with_what_it_alone_needs(store: Store):
    first, second = run(store, range(3)), run(store, range(2, 6))
    age(store)
    alone = store.objects.path(purified(store, 0).output)
    shared = store.objects.path(purified(store, 2).output)
    garbage = find_garbage(store, ALL)
    assert (garbage.versions, len(garbage.objects), garbage.kept_objects) == ((f"d@{first}",), 2, 4)
    assert garbage.bytes == sum(store.root.joinpath(file.name).stat().st_size for file in garbage.objects) > 0
    seen: list[tuple[int, int]] = []
    gone = collect(store, garbage, on_progress=lambda done, total: seen.append((done, total)))
    assert (gone.versions, gone.tasks, gone.objects, gone.bytes) == ((f"d@{first}",), 2, 2, garbage.bytes)
    assert seen == [(2, 2)]
    assert (alone.exists(), shared.exists(), store.versions.ids("d")) == (False, True, [second])
    assert counts(store) == (4, 4, 1)
    assert verify(store).faults == ()


def test_tagged_versions_stay_and_age_is_that_of_the_run(store: Store):
    run(store, range(1), tag="keep")
    run(store, range(2))
    run(store, range(3))
    assert find_garbage(store, GcPolicy()).versions == ()
    assert find_garbage(store, GcPolicy(untagged_older_than_s=3600)).versions == ()
    assert len(find_garbage(store, ALL).versions) == 1


def test_what_a_gc_without_grace_takes_from_a_run_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An object that nothing names yet, between its publication and its record's, in a purify and an import."""
    source, store = write_source(tmp_path / "in", counts={"test": 4}), tmp_path / "pur"
    put, took = Tasks.put, []

    def put_after_gc(self: Tasks, key: str, record: TaskRecord) -> None:
        if len(took) < 2:
            opened = Store(self._files.root)
            took.append(collect(opened, find_garbage(opened, GcPolicy(grace_s=0))).objects)
        put(self, key, record)

    monkeypatch.setattr(Tasks, "put", put_after_gc)
    ran = zipbatch("purify", source, "--purifier", "blur", "--store", store)
    assert (ran.code, sum(took) >= 2) == (0, True), ran.err  # two shards are in hand at once
    assert zipbatch("store", "export", "in", tmp_path / "out", "--as", "images", "--store", store).code == 0
    took.clear()
    ran = zipbatch("store", "import", tmp_path / "out", "--data", source, "--name", "theirs", "--store", tmp_path / "b")
    assert (ran.code, took) == (0, [2, 2]), ran.err
    assert not verify(Store(store)).faults and not verify(Store(tmp_path / "b")).faults


def test_young_leftovers_stay_old_ones_go(store: Store):
    run(store, range(2))
    orphans = [purified(store, number) for number in (7, 8)]
    assert find_garbage(store, GcPolicy()).objects == ()
    age(store)
    os.utime(store.objects.path(orphans[0].output))
    garbage = find_garbage(store, GcPolicy())
    assert [file.name for file in garbage.objects] == [f"objects/{orphans[1].output[:2]}/{orphans[1].output}.tar"]
    assert collect(store, garbage).tasks == 1
    assert store.objects.has(orphans[0].output)
    assert verify(store).faults == ()


def test_a_young_record_keeps_its_old_object(store: Store):
    orphan = purified(store, 7)
    age(store)
    key = task_key(orphan.input, IDENTITY)
    os.utime(store.root / "tasks" / key[:2] / f"{key}.json")
    assert find_garbage(store, GcPolicy()).objects == ()


def test_an_object_published_again_meanwhile_stays(store: Store):
    orphan = purified(store, 7)
    age(store)
    garbage = find_garbage(store, GcPolicy())
    os.utime(store.objects.path(orphan.output))
    assert collect(store, garbage).objects == 0
    assert store.objects.has(orphan.output)


def test_records_without_an_object_go(store: Store):
    orphan = purified(store, 7)
    store.objects.path(orphan.output).unlink()
    assert verify(store).faults != ()
    age(store)
    assert collect(store, find_garbage(store, GcPolicy())).tasks == 1
    assert verify(store).faults == ()


def test_a_list_that_no_run_finished_keeps_its_objects_until_it_is_old(store: Store):
    version = run(store, range(2))
    store.versions.tags.remove("d", "latest")
    store.remove_file(f"versions/d/{version}.json")
    for number in range(2):
        os.utime(store.objects.path(purified(store, number).output), (1, 1))
    assert find_garbage(store, ALL).objects == ()
    age(store)
    garbage = find_garbage(store, GcPolicy())
    assert (garbage.versions, len(garbage.objects)) == ((f"d@{version}",), 2)
    collect(store, garbage)
    assert not any(name.startswith(("objects/", "tasks/", "versions/")) for name in files_below(store.root))


@pytest.mark.parametrize("damage", ["header", "list", "no list", "tag"])
def test_nothing_goes_while_it_is_not_known_what_is_needed(store: Store, damage: str):
    version = run(store, range(2))
    file = store.root / "versions" / "d" / f"{version}.json"
    if damage == "header":
        file.write_text("{")
    elif damage == "no list":
        file.with_suffix(".jsonl.gz").unlink()
    else:
        (store.root / "tags/d/latest" if damage == "tag" else file.with_suffix(".jsonl.gz")).write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"damaged|missing"):
        find_garbage(store, ALL)


def test_quarantine_shards_stay_and_go_with_their_rows(store: Store):
    """Beside the object, ``<digest>.quarantine.tar``."""
    rows = []
    for number in (1, 2):
        row = purified(store, number)
        quarantine = f"{number}" * 64
        write_shard(store.objects.path(f"{quarantine}{QUARANTINE}"), [sample("bad", None, seed=number)])
        rows.append(row._replace(quarantined=1, quarantine=quarantine))
    publish_version(store, "d", IDENTITY, rows=rows[:1], tag=None, parent=None, started_ns=1)
    publish_version(store, "d", IDENTITY, rows=rows[1:], tag=None, parent=None, started_ns=2)
    age(store)
    assert find_garbage(store, GcPolicy()).objects == ()
    garbage = find_garbage(store, ALL)
    assert {Path(file.name).name for file in garbage.objects} == {
        f"{rows[0].output}.tar",
        f"{rows[0].quarantine}.quarantine.tar",
    }
    gone = collect(store, garbage)
    assert (gone.objects, gone.tasks, garbage.records) == (2, 1, 1)
    assert all(map(store.objects.has, rows[1].objects))
    store.objects.path(rows[1].objects[1]).unlink()
    with pytest.raises(DataError, match="or its quarantine"):
        publish_version(store, "d", IDENTITY, rows=rows[1:], tag=None, parent=None, started_ns=3)


def test_strangers_are_left_alone(store: Store):
    (store.root / "objects" / "zz").mkdir()
    for name in ("objects/zz/x.tar", "objects/note.txt"):
        (store.root / name).write_bytes(b"x")
    age(store)
    assert collect(store, find_garbage(store, ALL)).objects == 0
    assert len(files_below(store.root)) == 2


def test_what_killed_runs_left_half_written_goes_wherever_it_is(store: Store):
    run(store, range(2), tag="nightly")
    whole = files_below(store.root)
    folders = ["", "inputs", *{name.rpartition("/")[0] for name in whole}]
    assert {folder.partition("/")[0] for folder in folders} >= {"objects", "tasks", "versions", "tags"}
    for folder in folders:
        (store.root / folder).mkdir(exist_ok=True)
        (store.root / folder / f"{atomic.TEMP_PREFIX}1-old").write_bytes(b"x")
    age(store, days=2)
    held = (store.root / "objects" / f"{atomic.TEMP_PREFIX}2-held").open("xb")
    atomic.hold(held)
    (store.root / "tags" / f"{atomic.TEMP_PREFIX}3-young").write_bytes(b"x")
    os.utime(held.fileno(), (0, 0))
    garbage = find_garbage(store, GcPolicy())
    assert len(files_below(store.root)) == len(whole) + len(folders) + 2, "a look changes nothing"
    collect(store, garbage)
    assert files_below(store.root).keys() - whole.keys() == {"objects/.tmp-2-held", "tags/.tmp-3-young"}
    held.close()


def test_no_store(tmp_path: Path):
    with pytest.raises(UsageError, match="no store there"):
        find_garbage(Store(tmp_path / "gone"), ALL)
    assert list(tmp_path.iterdir()) == []


def test_ages():
    assert [age_s(text) for text in ("90s", "45m", "12h", "30d", " 0d ")] == [90, 2700, 43200, 2592000, 0]
    for text in ("", "3", "d", "-1d", "1w", "1.5h", "9999999d"):
        with pytest.raises(ValueError, match="not a time"):
            age_s(text)


def operations(monkeypatch: pytest.MonkeyPatch, before: Callable[[], None]) -> None:
    """Call ``before`` before each step that others can see the effect of, or that looks at what others did."""

    def hook(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def step(*arguments: Any, **named: Any) -> Any:
            before()
            return real(*arguments, **named)

        monkeypatch.setattr(owner, name, step)

    for owner, names in (
        (Store, ("read_file", "write_file", "remove_file", "list_files")),
        (Objects, ("has", "lost", "remove", "publish")),
        (Tasks, ("record", "put", "remove")),
        (Versions, ("_is_sound", "ids", "remove")),
        (Tags, ("read", "move")),
    ):
        for name in names:
            hook(owner, name)
    hook(atomic, "publish")


class Stopped(BaseException):
    """As SIGKILL: nothing of ours catches it, and nothing is done after it."""


def test_a_kill_anywhere_leaves_a_store_that_is_whole(store: Store, monkeypatch: pytest.MonkeyPatch):
    """After every step of gc: what is left verifies, and the next gc finishes the work."""
    done, at = 0, 0
    while done <= at:
        at += 1
        with monkeypatch.context() as patch:
            root = store.root.parent / f"kill-{at}"
            killed = Store(root)
            killed.prepare()
            run(killed, range(3))
            run(killed, range(2, 4))
            purified(killed, 9)
            age(killed)
            garbage = find_garbage(killed, ALL)
            done = 0

            def step(limit: int = at) -> None:
                nonlocal done
                done += 1
                if done >= limit:
                    raise Stopped

            operations(patch, step)
            try:
                collect(killed, garbage)
                done = at + 1  # it came to its end
            except Stopped:
                done = at
        assert verify(killed).faults == (), at
        age(killed)
        collect(killed, find_garbage(killed, ALL))
        assert counts(killed) == (2, 2, 1)
    assert at > 15


class Gc(threading.Thread):
    """A gc that stands still before its ``stop``-th step until it is told to go on."""

    def __init__(self, store: Store, garbage: Any, stop: int) -> None:
        super().__init__(daemon=True)
        self._store, self._garbage, self._halt = store, garbage, stop
        self.steps, self.stands, self.go = 0, threading.Event(), threading.Event()

    def run(self) -> None:
        collect(self._store, self._garbage)
        self.stands.set()

    def step(self) -> None:
        """Called in this thread before each of its steps."""
        self.steps += 1
        if self.steps == self._halt:
            self.stands.set()
            assert self.go.wait(30)


@pytest.mark.parametrize("work", ["reuse of a forgotten version", "a new version of old objects", "a tag by hand"])
def test_a_run_between_any_two_steps_of_gc(store: Store, monkeypatch: pytest.MonkeyPatch, work: str):
    """The run is whole or says to run again; never is a version published that does not verify."""
    ended = []
    for stop in range(1, 200):
        racing = Store(store.root.parent / f"race-{stop}")
        racing.prepare()
        forgotten = run(racing, range(3))
        run(racing, range(3, 4), tag="keep")
        age(racing)
        gc = Gc(racing, find_garbage(racing, ALL), stop)
        with monkeypatch.context() as patch:

            def step(gc: Gc = gc) -> None:
                if threading.current_thread() is gc:
                    gc.step()

            def wait(_seconds: float, gc: Gc = gc) -> None:
                gc.go.set()
                gc.join(30)

            operations(patch, step)
            patch.setattr(removals_module.time, "sleep", wait)
            gc.start()
            assert gc.stands.wait(30)
            try:
                if work == "a tag by hand":
                    point_tag(racing, f"d@{forgotten}", "mine")
                else:
                    run(racing, range(3) if work.startswith("reuse") else range(2))
                ended.append("published")
            except (DataError, UsageError) as error:
                ended.append("refused")
                assert "run again" in str(error) or "not in" in str(error)
            gc.go.set()
            gc.join(30)
        assert not gc.is_alive()
        checked = verify(racing)
        assert checked.faults == (), (stop, checked.faults)
        assert claims(racing) == set()
        if gc.steps < stop:
            break
    assert len(ended) > 15
    assert ended[0] == "published", "gc had not begun"
    if work != "a tag by hand":
        assert ended[-1] == "published", "gc had ended"
        assert "refused" in ended, "the race was never met"


def test_a_gc_between_any_two_steps_of_a_run(store: Store, monkeypatch: pytest.MonkeyPatch):
    """The other way round: a whole gc wherever the run is."""
    total, at = 1, 0
    while at < total:
        at += 1
        racing = Store(store.root.parent / f"turn-{at}")
        racing.prepare()
        run(racing, range(3))
        run(racing, range(3, 4), tag="keep")
        age(racing)
        with monkeypatch.context() as patch:
            steps, inside = 0, False

            def step(racing: Store = racing, at: int = at) -> None:
                nonlocal steps, inside
                if not inside:
                    steps += 1
                    if steps == at:
                        inside = True
                        collect(racing, find_garbage(racing, ALL))
                        inside = False

            operations(patch, step)
            try:
                run(racing, range(3))
            except DataError as error:
                assert "run again" in str(error)
            total = max(total, steps)
        checked = verify(racing)
        assert checked.faults == (), (at, checked.faults)
    assert total > 25


def test_a_run_waits_for_a_gc_in_force_only(store: Store, monkeypatch: pytest.MonkeyPatch, caplog: Any):
    version = run(store, range(2))
    outputs = [purified(store, number).output for number in range(2)]
    removals, waits = Removals(store), []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            monkeypatch.setattr(removals_module.time, "time", lambda: real() + IN_FORCE_S + 1)

    real = time.time
    monkeypatch.setattr(removals_module.time, "sleep", wait)
    with removals.noted(objects=["0" * 64], versions=["d@other"]):
        removals.await_end(f"d@{version}", outputs)
        assert waits == []
    with removals.noted(objects=outputs[:1]) as check_time:
        check_time()
        removals.await_end(f"d@{version}", outputs)
        assert len(waits) == 3, "a gc that was killed holds up nobody for longer"
        assert "waiting" in caplog.text
        with pytest.raises(DataError, match="took too long"):
            check_time()
    assert [note.until_s for note in removals.notes()] == [0, 0]
    assert removals.named() == {"0" * 64, outputs[0]}


def test_notes_and_claims_are_swept_up(store: Store):
    version = run(store, range(1))
    removals = Removals(store)
    with removals.noted(objects=["0" * 64]):
        pass
    removals.note([purified(store, 0).output])
    with store.versions.claim("d", version):
        assert claims(store) == {f"d@{version}"}
        assert len(files_below(store.root / "claims")) == 1
        age(store, days=2)
        assert claims(store) == set()
        find_garbage(store, ALL)
        assert len(files_below(store.root / "claims")) == 1, "looking changes nothing"
        collect(store, find_garbage(store, GcPolicy()))
        assert files_below(store.root / "claims") == {}
    collect(store, find_garbage(store, GcPolicy()))
    assert len(removals.notes()) == 2
    age(store)
    collect(store, find_garbage(store, GcPolicy()))
    assert removals.named() == {purified(store, 0).output}, "what a version lists and lacks must not be forgotten"


@pytest.mark.parametrize("damage", [b"", b"x", b"\x1f\x8b"])
def test_a_damaged_note_is_named(store: Store, damage: bytes):
    store.write_file("removals/1-a.json.gz", damage)
    with pytest.raises(DataError, match=r"removals/1-a\.json\.gz: damaged note"):
        Removals(store).notes()


def test_gc_on_any_kind_of_store(pur: StoragePath, monkeypatch: pytest.MonkeyPatch):
    """On S3 nothing can be made to look old: there the grace period is over before it begins."""
    store = Store(pur)
    store.prepare()
    first, second = run(store, range(3)), run(store, range(2, 6))
    orphan = purified(store, 9)
    assert find_garbage(store, ALL).objects == ()
    garbage = find_garbage(store, GcPolicy(untagged_older_than_s=0.0, grace_s=-3600.0))
    assert (garbage.versions, len(garbage.objects), garbage.kept_objects) == ((f"d@{first}",), 3, 4)
    point_tag(store, f"d@{first}", "kept")
    gone = collect(store, garbage)
    assert (gone.versions, gone.objects, gone.tasks) == ((), 1, 1), "what has come into use since stays"
    assert not store.objects.has(orphan.output)
    assert counts(store) == (6, 6, 2)
    delete_tag(store, "d", "kept")
    gone = collect(store, find_garbage(store, GcPolicy(untagged_older_than_s=0.0, grace_s=-3600.0)))
    assert (gone.versions, gone.objects, gone.tasks) == ((f"d@{first}",), 2, 2)
    assert (counts(store), verify(store).faults, store.versions.ids("d")) == ((4, 4, 1), (), [second])
    assert run(store, range(2, 6)) == second


def test_a_note_in_force_is_met_on_any_kind_of_store(pur: StoragePath):
    store = Store(pur)
    store.prepare()
    version = run(store, range(1))
    with Removals(store).noted(versions=[f"d@{version}"], objects=["0" * 64]):
        (note,) = Removals(store).notes()
        assert (note.in_force, note.versions, note.objects) == (True, {f"d@{version}"}, {"0" * 64})
        with store.versions.claim("d", version):
            assert claims(store) == {f"d@{version}"}
    (note,) = Removals(store).notes()
    assert (note.in_force, claims(store)) == (False, set())


def test_a_removal_that_failed_stays_in_force(store: Store):
    with pytest.raises(KeyError), Removals(store).noted(objects=["0" * 64]):
        raise KeyError("unreachable")
    assert [note.in_force for note in Removals(store).notes()] == [True]


def test_answers_live_as_long_as_the_shards_that_they_are_on(store: Store):
    """Those on a version's inputs and on its objects; they go with it."""
    first = run(store, range(2), tag="t")
    rows = store.versions.read("d@t").rows
    on = [rows[0].input, rows[0].output, rows[1].input, "f" * 64]
    for shard in on:
        store.answers.put(
            ShardAnswers(victim="a" * 64, shard=shard, classes=2, keys=("k",), answers=(1,), shares=(0.5,))
        )
    age(store)
    garbage = find_garbage(store, ALL)
    assert garbage.answers == (answers_name("a" * 64, "f" * 64),)
    collect(store, garbage)
    assert [store.answers.read("a" * 64, shard) is not None for shard in on] == [True, True, True, False]
    delete_tag(store, "d", "t")
    run(store, range(2, 3))  # "latest" is another one now
    age(store)
    gone = collect(store, find_garbage(store, ALL))
    assert (gone.versions, gone.answers) == ((f"d@{first}",), 3)
