"""What an export of shards leaves beside them, and whether a folder has all of an export already."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from zipbatch import atomic
from zipbatch.datasets import ShardDataset, ShardRef, StagedManifest, write_manifest
from zipbatch.datasets.base import CLASSES
from zipbatch.datasets.companions import EDITED, is_companion, write_companions
from zipbatch.datasets.facts import Facts, ShardFacts
from zipbatch.datasets.staged import MANIFEST, SplitCounts
from zipbatch.store import Store, Version, VersionRow
from zipbatch.store.signatures import signed_files


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What to export where to.

    Attributes:
        store: where the version is.
        version: which.
        out: the folder to make.
        dataset: the data that the version was made from: its class names, and its manifest if it is staged.
        splits: only these, empty for all.
        copy: copy shards even where a hard link would do.
        true_labels: sort images by what they show, not by the label that a poisoned shard gives them.
    """

    store: Store
    version: Version
    out: Path
    dataset: ShardDataset | None = None
    splits: tuple[str, ...] = ()
    copy: bool = False
    true_labels: bool = False


def made_of(out: Path, content: Callable[[], Iterator[tuple[Path, str]]]) -> bool:
    """Whether ``out`` holds files with these digests, by their paths in it, and nothing else.

    So a run that was killed right before it could say that it was done is done when it is run again. Companions may be
    missing, as in folders of older releases, and what people add to may be other.
    """
    if not out.is_dir():
        return False
    there = {path.relative_to(out) for path in out.rglob("*") if not path.is_dir()}
    if not there:
        return False
    for path, sha256 in content():
        if path not in there and is_companion(str(path)):
            continue
        if path not in there or not (out / path).is_file():
            return False
        if str(path) not in EDITED and atomic.sha256_file(out / path) != sha256:
            return False
        there.remove(path)
    return not there


def shard_files(request: ExportRequest, rows: tuple[VersionRow, ...]) -> Iterator[tuple[Path, str]]:
    """Path and digest of what an export of shards writes, the small files from a trial."""
    try:
        sizes = [(request.out / row.shard).stat().st_size for row in rows]
    except OSError:
        yield Path(MANIFEST), ""  # a shard is missing: it cannot be this
        return
    with TemporaryDirectory() as trial:
        write_listing(request, Path(trial), rows, sizes)
        for file in sorted(Path(trial).iterdir()):
            yield Path(file.name), atomic.sha256_file(file)
    for row in rows:
        yield Path(row.shard), row.output


def write_listing(request: ExportRequest, folder: Path, rows: tuple[VersionRow, ...], sizes: list[int]) -> None:
    """Write what lies beside exported shards, the manifest last; of a signed version, what its signatures are of, too.

    Args:
        request: what is exported.
        folder: where the shards are.
        rows: the shards.
        sizes: their bytes.
    """
    header, dataset = request.version.header, request.dataset
    for name, data in signed_files(request.store, header.dataset, header.version).items():
        atomic.write_bytes(folder / name, data)
    if dataset is not None and dataset.classes is not None:
        atomic.write_bytes(folder / CLASSES, listed_classes(dataset.classes))
    if dataset is not None and dataset.manifest is not None:
        shards = [
            ShardRef(split=row.split, name=row.shard, path=folder / row.shard, sha256=row.output, samples=row.samples)
            for row in rows
        ]
        write_manifest(folder, _staged(dataset.manifest, request.version, rows), shards, sizes)
        return
    listed = [_listed(row, size) for row, size in zip(rows, sizes, strict=True)]
    value: dict[str, Any] = {**header.model_dump(mode="json"), "shards": listed}
    listing = (atomic.readable_json(value) + "\n").encode()
    write_companions(folder, _facts(request, rows, sizes, listing))
    atomic.write_bytes(folder / MANIFEST, listing)


def _facts(request: ExportRequest, rows: tuple[VersionRow, ...], sizes: list[int], listing: bytes) -> Facts:
    """Of bare shards."""
    version, dataset = request.version, request.dataset
    return Facts(
        kind=version.header.dataset,
        shards=[
            ShardFacts(split=row.split, name=row.shard, samples=row.samples, sha256=row.output, size=size)
            for row, size in zip(rows, sizes, strict=True)
        ],
        listing=(MANIFEST, listing),
        classes=None if dataset is None else dataset.classes,
        purified={"version": version.reference, "purifier": version.header.purifier},
        zipbatch=version.header.zipbatch,
    )


def listed_classes(classes: list[str]) -> bytes:
    """``classes.txt``: a name a line."""
    return ("\n".join(classes) + "\n").encode()


def _listed(row: VersionRow, size: int) -> dict[str, Any]:
    """A shard as the manifest lists it."""
    listed = {"split": row.split, "shard": row.shard, "samples": row.samples, "sha256": row.output, "bytes": size}
    return listed | ({"quarantined": row.quarantined} if row.quarantined else {})


def _staged(manifest: StagedManifest, version: Version, rows: tuple[VersionRow, ...]) -> StagedManifest:
    """The manifest of the data, for its purified form."""
    splits: dict[str, SplitCounts] = {}
    for row in rows:
        old = splits.get(row.split, SplitCounts(shards=0, samples=0))
        splits[row.split] = SplitCounts(shards=old.shards + 1, samples=old.samples + row.samples)
    purified: dict[str, Any] = {"version": version.reference, "purifier": version.header.purifier}
    if aside := {row.shard: row.quarantined for row in rows if row.quarantined}:
        purified["quarantined"] = aside
    if version.header.trial is not None:
        purified["trial"] = version.header.trial
    options = {**manifest.options, "purified": purified}
    return manifest.model_copy(update={"splits": splits, "options": options, "zipbatch": version.header.zipbatch})
