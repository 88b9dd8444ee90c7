"""Read the forms of one shard side by side: as it came, purified, and clean; a piece at a time, digests checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zipbatch.datasets.labels import Label, Labelling, Unlabelled
from zipbatch.errors import DataError
from zipbatch.images import U8
from zipbatch.shards import Sample, read_shard
from zipbatch.shards.digest import STAGED, STORED, read_listed
from zipbatch.storage import StoragePath

PIECE_BYTES = 64 * 1024**2
"""Of decoded images, in all forms, that are measured at once."""
PIECE_IMAGES = 1024


@dataclass(frozen=True, kw_only=True)
class EvaluateTask:
    """One shard: suspect images, their clean twins where there are any, and their purified forms (None: missing).

    ``sha256`` and ``clean_sha256`` are the digests that a manifest lists, ``made_from`` that which the data must have
    for its purified forms to be of it. ``quarantine`` are the quarantine shards of the purified forms: a sample in any
    of them is measured on none, so that forms compare. ``twin_has_more``: the clean twin has samples in between that
    this shard lacks, of classes that the attack is not after.
    """

    name: str
    split: str
    data: StoragePath
    clean: StoragePath | None
    purified: tuple[StoragePath | None, ...]
    made_from: tuple[str | None, ...]
    quarantine: tuple[StoragePath, ...] = ()
    sha256: str | None = None
    clean_sha256: str | None = None
    twin_has_more: bool = False

    @property
    def twin(self) -> StoragePath | None:
        """The clean shard, where that is another one."""
        return None if self.clean == self.data else self.clean


@dataclass(frozen=True, kw_only=True)
class FormImages:
    """Images [H, W, 3] of one form, which may differ in size; labels int64 [N] are ``UNLABELLED`` where unknown."""

    path: StoragePath
    keys: list[str]
    pixels: list[U8]
    labels: npt.NDArray[np.int64]
    originals: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Piece:
    """Consecutive samples of a shard in every form, the first of which is as they came, and their clean images."""

    forms: list[FormImages | None]
    clean: list[U8] | None
    unlabelled: Unlabelled

    @property
    def suspect(self) -> FormImages:
        """As they came."""
        assert self.forms[0] is not None
        return self.forms[0]


def read_pieces(task: EvaluateTask, digest: str, aside: AbstractSet[str], labelling: Labelling) -> Iterator[Piece]:
    """The samples of a shard in all their forms, but for those that are set aside, which are not even decoded; as many
    at once as memory is to hold.
    """
    rows: list[tuple[str, Label, list[U8 | None]]] = []
    held, labelled, bare = 0, False, None
    for forms in _aligned(task, digest, aside):
        suspect = forms[0]
        assert suspect is not None  # the one that the others are aligned with
        label, pixels = labelling.of(suspect), [None if form is None else form.image() for form in forms]
        labelled, bare = labelled or label.given >= 0, bare or (suspect.key if label.given < 0 else None)
        if labelling.promised and labelled and bare is not None:
            raise DataError(task.data, "has no label, others in its shard have", key=bare)
        rows.append((suspect.key, label, pixels))
        held += sum(image.nbytes for image in pixels if image is not None)
        if held >= PIECE_BYTES or len(rows) == PIECE_IMAGES:
            yield _piece(task, rows, labelling)
            rows, held = [], 0
    if rows:
        yield _piece(task, rows, labelling)


def _piece(task: EvaluateTask, rows: Sequence[tuple[str, Label, list[U8 | None]]], labelling: Labelling) -> Piece:
    keys, labels = [key for key, _, _ in rows], [label for _, label, _ in rows]
    given, originals = (np.array([label[i] for label in labels], np.int64) for i in range(2))
    columns = [
        None if column[0] is None else [image for image in column if image is not None]
        for column in zip(*(pixels for _, _, pixels in rows), strict=True)
    ]
    clean = columns.pop() if task.twin is not None else columns[0] if task.clean is not None else None
    forms = [
        None
        if path is None or pixels is None
        else FormImages(path=path, keys=keys, pixels=pixels, labels=given, originals=originals)
        for path, pixels in zip((task.data, *task.purified), columns, strict=True)
    ]
    return Piece(forms, clean, labelling.unlabelled(labels))


def _aligned(task: EvaluateTask, digest: str, aside: AbstractSet[str]) -> Iterator[list[Sample | None]]:
    """Each sample as it came, as it was purified (None: missing), and last its clean twin, where that is another."""
    others: list[Iterator[Sample] | None] = [
        None if path is None else _samples(path, path.stem, aside, otherwise=STORED) for path in task.purified
    ]
    apart = [DataError(path, f"does not hold the samples of {task.data.name} in their order") for path in task.purified]
    if task.twin is not None:
        twins = _samples(task.twin, task.clean_sha256, aside)
        others.append(_of_keys(twins, task, digest) if task.twin_has_more else twins)
        reason = f"does not hold the samples of its clean twin {task.twin.name} in their order"
        apart.append(DataError(task.data, reason))
    suspects = read_shard(task.data, sha256=digest, imageless=bool(aside))  # its digest has just been taken
    for sample in (sample for sample in suspects if sample.key not in aside):
        forms: list[Sample | None] = [sample]
        for stream, error in zip(others, apart, strict=True):
            forms.append(None if stream is None else next(stream, None))
            if stream is not None and (forms[-1] is None or forms[-1].key != sample.key):
                raise error
        yield forms
    for stream, error in zip(others, apart, strict=True):
        if stream is not None and next(stream, None) is not None:
            raise error


def _of_keys(samples: Iterator[Sample], task: EvaluateTask, digest: str) -> Iterator[Sample]:
    """Those whose keys the task's own shard has."""
    keys = {sample.key for sample in read_shard(task.data, sha256=digest, imageless=True)}
    return (sample for sample in samples if sample.key in keys)


def _samples(
    path: StoragePath, sha256: str | None, aside: AbstractSet[str], *, otherwise: str = STAGED
) -> Iterator[Sample]:
    every = read_listed(path, sha256, imageless=bool(aside), otherwise=otherwise)
    return (sample for sample in every if sample.key not in aside)
