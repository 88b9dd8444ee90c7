"""Answers that a store keeps: sealed, looked up by digests, and swept when no version needs them."""

from __future__ import annotations

import gzip
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.making import sample
from zipbatch.storage import StoragePath, read_bytes
from zipbatch.store import GcPolicy, ShardAnswers, Store, collect, find_garbage, verify
from zipbatch.store.answers import answers_name, victim_name

VICTIM, SHARD = "a" * 64, "b" * 64
OF = {"victim": VICTIM, "shard": SHARD, "classes": 3}


def kept(shard: str = SHARD, **other: object) -> ShardAnswers:
    return ShardAnswers.model_validate(
        {**OF, "shard": shard, "keys": ["x", "ä"], "answers": [2, 0], "shares": [0.75, 1.0], **other}
    )


@pytest.fixture
def store(pur: StoragePath) -> Store:
    """With an object in it: on an object store, there is none without."""
    store = Store(pur)
    store.prepare()
    with store.objects.new() as writer:
        writer.write(sample("k", 1, seed=0))
        store.objects.publish(writer, writer.finish())
    return store


def test_what_was_kept_is_there(store: Store):
    assert store.answers.read(VICTIM, SHARD) is None
    store.answers.put(kept(again={"x": 1}))
    found = store.answers.read(VICTIM, SHARD)
    assert found == kept(again={"x": 1})
    assert found is not None
    assert found.by_key == {"x": (2, 0.75), "ä": (0, 1.0)}
    assert store.answers.read("c" * 64, SHARD) is None
    store.answers.remove(VICTIM, SHARD)
    store.answers.remove(VICTIM, SHARD)
    assert store.answers.read(VICTIM, SHARD) is None


def test_what_is_known_of_a_victim(store: Store):
    assert store.answers.classes(VICTIM) is None
    store.answers.note_victim(VICTIM, {"endpoint": "http://x/", "version": "1"}, classes=10)
    assert store.answers.classes(VICTIM) == 10


@pytest.mark.parametrize(
    "wrong",
    [
        {"answers": [2]},
        {"answers": [2, 3]},
        {"answers": [2, -1]},
        {"shares": [0.1]},
        {"shares": [0, 2]},
        {"again": {"x": 3}},
    ],
)
def test_answers_that_cannot_be(wrong: dict[str, object]):
    with pytest.raises(ValueError):
        kept(**wrong)


def rewritten(change: Callable[[dict[str, object]], object]) -> Callable[[bytes], bytes]:
    """A file of answers with other fields under the seal that it had."""

    def rewrite(data: bytes) -> bytes:
        value = json.loads(gzip.decompress(data))
        change(value)
        return gzip.compress(json.dumps(value).encode())

    return rewrite


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "another answer": rewritten(lambda value: value.update(answers=[1, 0])),
    "another share": rewritten(lambda value: value.update(shares=[0.25, 1.0])),
    "of another shard": rewritten(lambda value: value.update(shard="d" * 64)),
    "no seal": rewritten(lambda value: value.pop("seal")),
    "cut short": lambda data: data[:-9],
    "a bit turned": lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:],
    "no gzip": lambda _: b"{}",
    "empty": lambda _: b"",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_and_repaired(store: Store, damage: str):
    store.answers.put(kept())
    store.answers.note_victim(VICTIM, {}, classes=3)
    name = answers_name(VICTIM, SHARD)
    assert verify(store).faults == ()
    store.write_file(name, DAMAGE[damage](read_bytes(store.root / name, limit=10**6)))
    assert store.answers.read(VICTIM, SHARD) is None
    (fault,) = verify(store, repair=True).faults
    assert (fault.where, "the next audit asks again" in fault.reason) == (name, True)
    assert verify(store).faults == ()
    assert store.answers.classes(VICTIM) == 3


def test_answers_under_another_name_are_none(store: Store):
    """A file that was copied to where the answers of another victim would be."""
    store.answers.put(kept())
    data = read_bytes(store.root / answers_name(VICTIM, SHARD), limit=10**6)
    store.write_file(answers_name("c" * 64, SHARD), data)
    assert store.answers.read("c" * 64, SHARD) is None
    assert [fault.where for fault in verify(store).faults] == [answers_name("c" * 64, SHARD)]


def test_a_damaged_note_is_none(store: Store):
    store.answers.note_victim(VICTIM, {}, classes=3)
    store.write_file(victim_name(VICTIM), read_bytes(store.root / victim_name(VICTIM), limit=10**6).replace(b"3", b"4"))
    assert store.answers.classes(VICTIM) is None
    assert [fault.where for fault in verify(store).faults] == [victim_name(VICTIM)]


def test_gc_sweeps_answers_that_no_version_needs(tmp_path: Path):
    """Young ones stay, whoever needs them; a victim's note goes with the last of its answers."""
    store = Store(tmp_path / "pur")
    store.prepare()
    store.answers.put(kept())
    store.answers.note_victim(VICTIM, {}, classes=3)
    assert find_garbage(store, GcPolicy()).answers == ()
    for file in (tmp_path / "pur" / "answers").rglob("*.json*"):
        os.utime(file, (time.time() - 30 * 86_400,) * 2)
    store.answers.put(kept("e" * 64))
    garbage = find_garbage(store, GcPolicy())
    assert garbage.answers == (answers_name(VICTIM, SHARD),)
    assert collect(store, garbage).answers == 1
    assert store.answers.read(VICTIM, "e" * 64) is not None
    os.utime(tmp_path / "pur" / answers_name(VICTIM, "e" * 64), (time.time() - 30 * 86_400,) * 2)
    assert find_garbage(store, GcPolicy()).answers == (answers_name(VICTIM, "e" * 64), victim_name(VICTIM))
