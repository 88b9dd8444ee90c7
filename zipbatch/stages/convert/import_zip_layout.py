"""The folders that the published ZIP code leaves (sycny/ZIP 3778253): which of its pictures is which sample.

Below ``pur/Mode<m>/<dataset>/<attack>/<deg>/<scale>/<threshold>`` it writes the purified images of a split to
``train``, ``val`` (clean test images) and ``val_pois`` (stamped ones), and to ``<split>_orig`` the image that each was
made of. It shuffles, and names both ``…_<number>.png`` by their place in the batches: the number pairs them, and the
pixels of the original say which sample it is.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict, deque
from collections.abc import Mapping
from pathlib import Path

from zipbatch import images
from zipbatch.datasets import ShardDataset
from zipbatch.datasets.folders import children, files_below
from zipbatch.errors import DataError, UsageError
from zipbatch.shards.digest import read_listed

ORIGINALS = "_orig"
_SPLITS = {"train": "train", "val": "test", "val_pois": "test_poisoned"}
_NUMBER = re.compile(r".*_(\d+)", re.DOTALL)


def looks_like_zip(folder: Path) -> bool:
    """Whether a folder holds originals beside purified images, as the published code leaves them."""
    return any((folder / f"{name}{ORIGINALS}").is_dir() for name in _SPLITS)


def match_zip_layout(
    folder: Path, dataset: ShardDataset, *, splits: tuple[str, ...] = ()
) -> dict[str, dict[str, Path]]:
    """Split -> key -> purified file, exactly one for each sample.

    Args:
        folder: it holds ``val`` and ``val_orig``, or the like.
        dataset: the samples; the splits that ``folder`` has originals and purified images of are matched.
        splits: only these; empty for all.

    Raises:
        UsageError: no split of the data is there, or originals are canvases of several images.
        DataError: a picture without a number or with another's, originals that are no sample, samples without one.
    """
    found: dict[str, dict[str, Path]] = {}
    for name, split in _SPLITS.items():
        if split not in dataset.splits or (splits and split not in splits):
            continue
        purified, originals = (_by_number(folder / part, folder) for part in (name, f"{name}{ORIGINALS}"))
        if purified and originals:
            found[split] = _paired(folder / name, dataset, split, purified, originals)
    if missing := [split for split in splits if split not in found] or ([] if found else ["any split"]):
        there = ", ".join(sorted(item.name for item in children(folder))) if folder.is_dir() else "nothing"
        raise UsageError(
            f"{folder}: has no purified images with their originals of {missing[0]} of {dataset.name}; ‹layout='zip'› "
            f"takes the folder that holds {', '.join(f'{name} and {name}{ORIGINALS}' for name in _SPLITS)}; it holds "
            f"{there}"
        )
    return found


def _by_number(folder: Path, root: Path) -> dict[int, Path]:
    numbered: dict[int, Path] = {}
    for file in files_below(folder, root) if folder.is_dir() else ():
        match = _NUMBER.fullmatch(file.stem)
        if match is None:
            raise DataError(file, "has no number at the end of its name, as the ZIP code gives each")
        if (other := numbered.setdefault(int(match[1]), file)) != file:
            raise DataError(file, f"has the number of {other}")
    return numbered


def _paired(
    folder: Path, dataset: ShardDataset, split: str, purified: Mapping[int, Path], originals: Mapping[int, Path]
) -> dict[str, Path]:
    """The purified file of each sample of a split. Samples with the same pixels share theirs in order of number."""
    waiting: defaultdict[str, deque[Path]] = defaultdict(deque)
    shapes: set[tuple[int, ...]] = set()
    for number, file in sorted(originals.items()):
        if number not in purified:
            raise DataError(file, f"has no purified image of its number in {folder}")
        pixels = _pixels(file)
        shapes.add(pixels.shape)
        waiting[_digest(pixels)].append(purified[number])
    matched: dict[str, Path] = {}
    missing: list[str] = []
    for shard in dataset.split(split):
        for sample in read_listed(shard.path, shard.sha256):
            pixels = sample.image()
            if pixels.shape not in shapes:
                _refuse_size(folder, shapes, pixels)
            queue = waiting.get(_digest(pixels))
            if queue:
                matched[sample.key] = queue.popleft()
            else:
                missing.append(sample.key)
    strangers = sum(map(len, waiting.values()))
    if missing or strangers:
        raise DataError(
            f"{folder}{ORIGINALS}",
            f"{len(missing)} samples of split {split} have no image with their pixels there"
            f"{f', the first is {missing[0]!r}' if missing else ''}, and {strangers} of {len(originals)} images are no "
            "sample: stage the very data that the code purified (same attack, seed and size), or pair them by ‹map›",
        )
    return matched


def _refuse_size(folder: Path, shapes: set[tuple[int, ...]], pixels: images.U8) -> None:
    height, width = next(iter(shapes))[:2]
    raise UsageError(
        f"{folder}{ORIGINALS}: images are {width}x{height}, the samples {pixels.shape[1]}x{pixels.shape[0]}. Where the "
        "code tiles small images on canvases, their cut-outs carry no number: pair them by ‹map FILE.csv› with path,key"
    )


def _pixels(file: Path) -> images.U8:
    try:
        return images.decode(file.read_bytes(), file.suffix[1:].lower())
    except ValueError as error:
        raise DataError(file, str(error)) from error


def _digest(pixels: images.U8) -> str:
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
