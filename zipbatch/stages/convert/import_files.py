"""Which file of a folder is the purified form of which sample: told from its path, or from a map."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath

from zipbatch.datasets.folders import children, files_below
from zipbatch.errors import DataError, UsageError
from zipbatch.images import SOURCE_EXTENSIONS
from zipbatch.stages.convert.import_zip_layout import looks_like_zip

Files = dict[str, dict[str, Path]]
"""split -> key -> file."""
_MAX_MAP_BYTES = 1024**3
_COLUMNS = (["path", "key"], ["path", "key", "split"])


def split_folders(folder: Path, known: Collection[str]) -> tuple[str, ...]:
    """The splits among ``known`` that ``folder`` has folders of.

    Raises:
        UsageError: none, or something else lies beside them.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder")
    if looks_like_zip(folder):
        raise UsageError(
            f"{folder}: holds originals beside purified images, as the ZIP code leaves them: ‹layout='zip'›"
        )
    there = [item.name for item in children(folder)]
    found = tuple(split for split in known if split in there and (folder / split).is_dir())
    if not found:
        raise UsageError(
            f"{folder}: has no folder of a split ({', '.join(known)}). Names in order of batches, as the ZIP code "
            "writes them below pur/Mode3, do not say which sample an image is: give ‹map FILE.csv› with path,key"
        )
    if odd := set(there) - set(found):
        raise UsageError(
            f"{folder / min(odd)}: is no split of the data ({', '.join(known)}); move it away or say ‹splits›"
        )
    return found


def match_by_key(folder: Path, keys: Mapping[str, Collection[str]]) -> Files:
    """Files ``<split>/<anything>/<key>.<extension>``, exactly one for each key.

    Raises:
        DataError: a file that is no sample or may be two, a sample twice, samples that are missing.
    """
    matched: Files = {}
    for split, wanted in keys.items():
        matched[split] = {}
        for file in files_below(folder / split, folder):
            _add(matched[split], _key_of(file, folder / split, wanted), file)
    _check_complete(folder, matched, keys)
    return matched


def _key_of(file: Path, root: Path, keys: Collection[str]) -> str:
    """The key among ``keys`` that the end of the file's path spells."""
    _check_kind(file)
    parts = file.relative_to(root).with_suffix("").parts
    tails = ("/".join(parts[start:]) for start in range(len(parts)))
    found = [tail for tail in tails if tail in keys]
    if not found:
        raise DataError(
            file, f"is no sample of split {root.name}: files are named <key>.<extension>, or ‹map› says which is which"
        )
    if len(found) > 1:
        raise DataError(file, f"may be {found[0]!r} or {found[1]!r}; say which with ‹map›")
    return found[0]


def match_by_map(
    folder: Path, table: Path, keys: Mapping[str, Collection[str]], *, required: Collection[str] = ()
) -> Files:
    """Files that a CSV of ``path,key`` or ``path,key,split`` names, exactly one for each key; no file twice.

    Paths are relative to ``folder``; files that the map does not name are left alone. Without a column ``split``,
    all keys are of the only split of ``keys``. A split that is neither required nor named is left out.

    Raises:
        UsageError: there is no such map, it is empty, or it has no column ``split`` and there are several.
        DataError: a row that does not fit, a sample or file twice, samples that are missing.
    """
    matched: Files = {split: {} for split in required}
    used: set[Path] = set()
    for line, path, key, given in _map_rows(table):
        where = f"{table}:{line}"
        if given is None and len(keys) > 1:
            raise UsageError(f"{table}: has no column split; say which one it is with ‹splits› ({', '.join(keys)})")
        split = next(iter(keys)) if given is None else given
        if split not in keys:
            raise DataError(where, f"split {split!r} is not one of {', '.join(keys)}")
        if key not in keys[split]:
            raise DataError(where, f"is no sample of split {split}", key=key[:200])
        file = _within(folder, path, where)
        if file in used:
            raise DataError(where, f"{path} occurs twice; each file is one sample")
        used.add(file)
        _add(matched.setdefault(split, {}), key, file)
    if not matched:
        raise UsageError(f"{table}: names no file")
    _check_complete(table, matched, keys)
    return {split: matched[split] for split in keys if split in matched}


def _map_rows(table: Path) -> Iterator[tuple[int, str, str, str | None]]:
    """(line, path, key, split or None) of each row."""
    if not table.is_file():
        raise UsageError(f"{table}: no such file; ‹map› takes a CSV of path,key or path,key,split")
    if table.stat().st_size > _MAX_MAP_BYTES:
        raise DataError(table, f"is over the limit of {_MAX_MAP_BYTES} bytes")
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.reader(stream)
            if (header := next(rows, [])) not in _COLUMNS:
                raise DataError(f"{table}:1", f"starts with {','.join(header)[:80]!r}, not path,key or path,key,split")
            for row in filter(None, rows):
                if len(row) != len(header):
                    raise DataError(f"{table}:{rows.line_num}", f"has {len(row)} fields, not {len(header)}")
                yield rows.line_num, row[0], row[1], row[2] if len(row) > 2 else None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(table, f"not a CSV in UTF-8 ({error})") from error


def _within(folder: Path, path: str, where: str) -> Path:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\0" in path:
        raise DataError(where, f"path {path[:200]!r} is not one below {folder}")
    file = folder.joinpath(*parts)
    _check_kind(file)
    return file


def _check_kind(file: Path) -> None:
    try:
        fits = file.suffix[1:].lower() in SOURCE_EXTENSIONS and file.is_file()
    except OSError:  # a name that is longer than the file system allows
        fits = False
    if not fits:
        raise DataError(str(file)[:500], f"is not an image file ({', '.join(SOURCE_EXTENSIONS)})")


def _add(files: dict[str, Path], key: str, file: Path) -> None:
    if key in files:
        raise DataError(file, f"is a second image of this sample, the first is {files[key]}", key=key)
    files[key] = file


def _check_complete(where: Path, matched: Files, keys: Mapping[str, Collection[str]]) -> None:
    for split, found in matched.items():
        if missing := [key for key in keys[split] if key not in found]:
            reason = f"{len(missing)} of {len(keys[split])} samples of split {split} are missing, the first is this"
            raise DataError(where, reason, key=missing[0])
