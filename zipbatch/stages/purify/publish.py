"""Publish a whole version and move its tags: the last step of every run that makes one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

from zipbatch import __version__
from zipbatch.errors import DataError, NotTaggedError
from zipbatch.stages.purify.trial import TRIAL
from zipbatch.store import LostObjectsError, Origin, Store, VersionHeader, VersionRow, Versions
from zipbatch.store.rows import count_rows
from zipbatch.store.tags import LATEST
from zipbatch.store.versions import version_id

T = TypeVar("T")
log = logging.getLogger(__name__)
ATTEMPTS = 3
"""How often a run begins again because a gc removed objects that it was about to name."""
_NO_LINE = frozenset({LATEST, TRIAL})
"""Tags that keep ``latest`` to no purifier."""


def despite_gc(make: Callable[[], T]) -> T:
    """What ``make`` makes, begun again where a gc removed an object before anything could name it.

    Raises:
        LostObjectsError: it did so ``ATTEMPTS`` times.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return make()
        except LostObjectsError as error:
            log.warning("%s; making it again", error)
    return make()


@dataclass(frozen=True, kw_only=True)
class Published:
    """A version: its id, whether it is ``new``, the ``tags`` that point to it now, and the size of each split.

    ``latest_left`` says why ``latest`` was left where it is, and what to do; None where it was to be moved.
    ``tags_left`` are tags that were to be moved and could not be, with the version that each of them points to.
    """

    dataset: str
    version: str
    new: bool
    tags: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    latest_left: str | None = None
    tags_left: dict[str, str | None] = field(default_factory=dict)

    @property
    def reference(self) -> str:
        """``dataset@tag`` by a tag that points to it, its own first, or ``dataset@version`` where none does."""
        return f"{self.dataset}@{(*self.tags, self.version)[0]}"


class Tagged(Protocol):
    """What a run published, as far as tags are concerned."""

    @property
    def version(self) -> str: ...
    @property
    def tags(self) -> tuple[str, ...]: ...
    @property
    def tags_left(self) -> Mapping[str, str | None]: ...


def check_tagged(published: Tagged, dataset: str, asked: str | None) -> None:
    """Raises ``NotTaggedError`` where a run could not move its tag: the one that was ``asked`` for, or any at all."""
    left = published.tags_left
    if not left or (published.tags and asked not in left):
        return
    stay = " and ".join(f"{dataset}@{tag} stays at {there}" for tag, there in left.items())
    tag = asked if asked in left else next(iter(left))
    raise NotTaggedError(
        f"{stay}: a run that started later (by the clock) moved it there. Version {published.version} is published"
        f"{'' if published.tags else ', but no tag keeps it from gc'}; 'zipbatch store tag "
        f"{dataset}@{published.version} {tag} --store …' points the tag at it"
    )


def publish_version(
    store: Store,
    dataset: str,
    identity: dict[str, Any],
    *,
    rows: Sequence[VersionRow],
    tag: str | None,
    parent: str | None,
    started_ns: int,
    origin: Origin | None = None,
    latest: bool | None = None,
    trial: dict[str, int] | None = None,
) -> Published:
    """Write the version of these rows, whose objects are in the store, and point ``tag`` and ``latest`` at it.

    Args:
        store: where.
        dataset: its name.
        identity: what made the pixels.
        rows: one for each shard, in the order of the input.
        tag: its own; None for none beside ``latest``.
        parent: id of the version that was the latest before.
        started_ns: when the run started; a tag that a later run has moved stays.
        origin: how many of the shards were made by this run, and where the others were found.
        latest: whether to move ``latest``; None unless that would take it away from another tag's line.
        trial: split -> all its shards, where the rows are of some of them alone.

    Raises:
        DataError: an object is not in the store (any more); nothing is published then.
    """
    versions = store.versions
    version, counts = version_id(dataset, identity, rows, trial=trial), count_rows(rows)
    header = VersionHeader(
        dataset=dataset,
        version=version,
        purifier=identity,
        prior_sha256=identity.get("prior_sha256"),
        seed=identity.get("seed"),
        counts=counts,
        quarantined=sum(row.quarantined for row in rows),
        parent=parent if parent != version else None,
        origin=origin,
        started=datetime.fromtimestamp(started_ns / 1e9, UTC).isoformat(timespec="seconds"),
        zipbatch=__version__,
        trial=trial,
    )
    with versions.claim(dataset, version):
        new = versions.publish(header, rows)
        tags, left = tags_to_move(versions, dataset, identity=identity, tag=tag, latest=latest)
        moved = tuple(name for name in tags if versions.tags.move(dataset, name, version, started_ns=started_ns))
    stay = _staying(versions, dataset, [name for name in tags if name not in moved])
    if left and not tag:
        left += f"; no tag keeps {version} from 'store gc': ‹tag NAME› would"
    return Published(
        dataset=dataset, version=version, new=new, tags=moved, counts=counts, latest_left=left, tags_left=stay
    )


def _staying(versions: Versions, dataset: str, names: Sequence[str]) -> dict[str, str | None]:
    """What tags point to that a later run has moved, which is said."""
    stay = {name: versions.tags.read(dataset, name) for name in names}
    for name, there in stay.items():
        log.warning("%s@%s stays at %s: a run that started later (by the clock) moved it there", dataset, name, there)
    return stay


def tags_to_move(
    versions: Versions, dataset: str, *, identity: Mapping[str, Any], tag: str | None, latest: bool | None
) -> tuple[tuple[str, ...], str | None]:
    """The tags that a run with this identity is to move, its own first; and why ``latest`` is not among them, if so."""
    own = () if tag is None else (tag,)
    if tag == LATEST:
        return own, None
    if latest is False:
        return own, f"{dataset}@{LATEST} is left where it is, as asked"
    names = () if latest else _line_of(versions, dataset, identity=identity, tag=tag)
    if names:
        return own, (
            f"{dataset}@{LATEST} stays with {', '.join(names)}, whose settings are others than this run's; "
            "‹latest=True› moves it"
        )
    return (*own, LATEST), None


def _line_of(versions: Versions, dataset: str, *, identity: Mapping[str, Any], tag: str | None) -> tuple[str, ...]:
    """The tags beside ``latest`` that name its version, where a run with this identity and tag is not of their line.

    A nightly's version has such a tag. A run moves ``latest`` on when it has that tag, or the same purifier.
    """
    try:
        there = versions.tags.read(dataset, LATEST)
        if there is None or versions.header(dataset, there).purifier == identity:
            return ()
        names = tuple(
            name for name, version in versions.tags.of(dataset).items() if version == there and name not in _NO_LINE
        )
    except (DataError, FileNotFoundError):  # damaged, or a tag to nowhere: there is no line to keep
        return ()
    return () if tag in names else names
