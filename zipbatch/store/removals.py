"""Removing from a store beside runs that publish into it: each side says what it is about to do, then looks.

The danger: a run finds an old object and lists it in its version, while ``gc``, which knows no version that needs it,
removes it. Ages alone cannot tell: the object is old, and the run may be slow. So

- whoever removes first writes a *note* that names what will go, then reads all lists, tags and claims again and spares
  what they name, then removes, then ends the note;
- a run that publishes first writes a *claim* on its version, then reads all notes and waits while one that is in force
  names the version. Then it writes the version's list, reads the notes again and waits while one names its objects.
  Objects that any note names must be there in the end, or it ends without a version. Only then come the header, which
  makes the version exist, and the tags, and the claim is taken back.

Both write before they read, and disks and object stores alike show a finished write to every later reader. So whatever
the order, one of the two sees the other: no version that lacks an object is ever published, and no tag ever points to
a version that was removed. Neither renames, locks nor heartbeats are needed, and a run costs nothing but a look at
a folder that is nearly always empty.

Time enters in one place. A note is in force for ``IN_FORCE_S``; whoever wrote it removes nothing after two thirds of
that, so that a killed gc holds up nobody for longer, as long as clocks agree to within minutes. A claim that a killed
run left is void after a day. Notes stay for a while after they ended: a run that planned before must still see what
went.
"""

from __future__ import annotations

import gzip
import json
import logging
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from zipbatch.errors import DataError
from zipbatch.store.contents import StoreContents
from zipbatch.store.files import StoredFile
from zipbatch.store.lists import unpacked

log = logging.getLogger(__name__)

NOTES = "removals"
CLAIMS = "claims"
IN_FORCE_S = 900.0
CLAIM_S = 86_400.0
MAX_NOTE_BYTES = 256 * 1024**2
"""Of a note as it unpacks: some millions of objects."""
_POLL_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Note:
    """What somebody removes, or has removed: ``versions`` as ``dataset@version``, ``objects`` by digest.

    In force until ``until_s`` (seconds since 1970), or until it is ended; then ``until_s`` is 0.
    """

    name: str
    until_s: float
    versions: frozenset[str]
    objects: frozenset[str]

    @property
    def in_force(self) -> bool:
        """Whether something that it names may still be removed."""
        return time.time() < self.until_s


class Removals:
    """The notes of a store."""

    def __init__(self, store: StoreContents) -> None:
        self._store = store

    @contextmanager
    def noted(self, *, versions: Iterable[str] = (), objects: Iterable[str] = ()) -> Iterator[Callable[[], None]]:
        """Within the block, what is named may be removed, after another look at what needs it.

        After an exception the note stays in force until its time is up: a request that was given up may still arrive.

        Yields:
            To be called before each removal; raises ``DataError`` when the note's time is up.
        """
        now = time.time()
        name = f"{NOTES}/{int(now)}-{secrets.token_hex(4)}.json.gz"
        named = {"versions": sorted(versions), "objects": sorted(objects)}
        self._write(name, {"until_s": now + IN_FORCE_S, **named})
        stop_s = now + IN_FORCE_S * 2 / 3

        def check_time() -> None:
            if time.time() > stop_s:
                raise DataError(name, "removing took too long, the rest was left; run the same command again")

        yield check_time
        self._write(name, {"until_s": 0, **named})

    def note(self, objects: Iterable[str]) -> None:
        """Note that these objects are missing, however that came: plans then look for them and trust no list."""
        if named := sorted(objects):
            name = f"{NOTES}/{int(time.time())}-{secrets.token_hex(4)}.json.gz"
            self._write(name, {"until_s": 0, "versions": [], "objects": named})

    def _write(self, name: str, value: dict[str, object]) -> None:
        self._store.write_file(name, gzip.compress(json.dumps(value).encode(), 1, mtime=0))

    def notes(self) -> list[Note]:
        """All notes that are kept.

        Raises:
            DataError: one is damaged.
        """
        return [note for file in self._store.list_files(NOTES) if (note := self._read(file.name)) is not None]

    def _read(self, name: str) -> Note | None:
        try:
            if (data := self._store.read_file(name, limit=MAX_NOTE_BYTES)) is None:
                return None
            value = json.loads(unpacked(data, limit=MAX_NOTE_BYTES))
            named = {field: frozenset(map(str, value[field])) for field in ("versions", "objects")}
            return Note(name=name, until_s=float(value["until_s"]), **named)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise DataError(name, "damaged note; remove it when neither gc nor a purify runs") from error

    def named(self) -> set[str]:
        """Every object that a note names: not to be trusted to be there."""
        return {name for note in self.notes() for name in note.objects}

    def await_end(self, version: str, objects: Collection[str]) -> None:
        """Wait until no note in force names ``version`` (``dataset@version``) or one of ``objects``.

        What begins later sees what the caller has written before: its claim, its list. Nobody is waited for longer than
        any note is in force, wherever the clock stood that wrote it.
        """
        waited, wanted, given_up = False, None, time.monotonic() + IN_FORCE_S
        while there := [note for note in self.notes() if note.in_force and time.monotonic() < given_up]:
            wanted = set(objects) if wanted is None else wanted
            ours = [note for note in there if version in note.versions or note.objects & wanted]
            if not ours:
                break
            if not waited:
                left_s = min(IN_FORCE_S, max(note.until_s for note in ours) - time.time())
                log.warning("%s: 'store gc' is removing what it needs; waiting, %.0f s at most", version, left_s)
            waited = True
            time.sleep(_POLL_S)

    def forget(self, *, older_than_ns: int, needed: Callable[[frozenset[str]], bool]) -> None:
        """Drop ended notes from before ``older_than_ns``, except those of objects that are ``needed``."""
        for file in list(self._store.list_files(NOTES)):
            if file.mtime_ns < older_than_ns:
                note = self._read(file.name)
                if note is not None and not note.in_force and not needed(note.objects):
                    self._store.remove_file(file.name)


def lost_objects(store: StoreContents, outputs: Collection[str], *, since_ns: int | None = None) -> set[str]:
    """Those of the objects that versions list which are not there; with ``since_ns``, as ``Objects.lost``.

    On a disk each is looked for. Where a look is a request and there are many, only those are that a note names: lists
    are trusted, and what ``zipbatch store verify --repair`` misses it notes.
    """
    doubted = Removals(store).named().intersection(outputs)
    return store.objects.lost(outputs, since_ns=since_ns) | {
        sha256 for sha256 in doubted if not store.objects.has(sha256)
    }


@contextmanager
def claimed(store: StoreContents, dataset: str, version: str) -> Iterator[None]:
    """Within the block nobody begins to remove the version, whether it exists already or not."""
    name = f"{CLAIMS}/{dataset}@{version}@{secrets.token_hex(4)}"
    store.write_file(name, b"")
    try:
        yield
    finally:
        store.remove_file(name)


def claims(store: StoreContents) -> set[str]:
    """The versions (``dataset@version``) that runs are publishing now."""
    names = [file.name for file in store.list_files(CLAIMS) if not _is_void(file)]
    return {name.removeprefix(f"{CLAIMS}/").rpartition("@")[0] for name in names}


def sweep_claims(store: StoreContents) -> None:
    """Remove the claims that killed runs left."""
    for file in list(store.list_files(CLAIMS)):
        if _is_void(file):
            store.remove_file(file.name)


def _is_void(claim: StoredFile) -> bool:
    return time.time() - claim.mtime_ns / 1e9 >= CLAIM_S
