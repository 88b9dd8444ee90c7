"""A network's weights in a diffusers folder: one file, a variant such as fp16, or several files and their index."""

from __future__ import annotations

import re
from collections.abc import Collection

from zipbatch import storage
from zipbatch.checkpoints.tensors import check_kind, read_json
from zipbatch.errors import UsageError
from zipbatch.kinds import a_few
from zipbatch.storage import StoragePath

WEIGHT_NAMES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
_WEIGHTS = re.compile(r"diffusion_pytorch_model(\.[A-Za-z0-9_]+)?\.(safetensors|bin)(\.index(\.[A-Za-z0-9_]+)?\.json)?")
"""As diffusers names them: a variant such as fp16, the format, and an index where they are in several files."""
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}\.(?:safetensors|bin)")
MAX_PARTS = 1000


def weights_in(unet: StoragePath) -> tuple[StoragePath, tuple[StoragePath, ...]]:
    """The file of weights in a network's folder, or an index and the files that it lists.

    Raises:
        UsageError: none, several variants, an index whose files are not all there, or a file of another kind.
    """
    usual = next((name for name in WEIGHT_NAMES if (unet / name).is_file()), None)
    try:
        name = usual or pick_weights(storage.names_in(unet))
    except ValueError as error:
        raise UsageError(f"{unet}: {error}") from error
    if name is None:
        raise UsageError(f"{unet}: no weights ({' or '.join(WEIGHT_NAMES)}, a variant or an index of them)")
    weights = unet / name
    parts = _parts_of(weights)
    for file in parts or (weights,):
        check_kind(file)
    return weights, parts


def pick_weights(names: Collection[str]) -> str | None:
    """The file of weights, or the index of several, among the names in a network's folder; None where there is none.

    Plain ones before variants such as fp16, safetensors before pickles, one file before several.

    Raises:
        ValueError: several variants are there and nothing else.
    """
    ranked: dict[tuple[bool, bool, bool], list[str]] = {}
    for name in sorted(names):
        if found := _WEIGHTS.fullmatch(name):
            variant, form, index, index_variant = found.groups()
            ranked.setdefault((bool(variant or index_variant), form == "bin", bool(index)), []).append(name)
    best = ranked[min(ranked)] if ranked else []
    if len(best) > 1:
        raise ValueError(f"holds several variants of the weights ({', '.join(best)}); move all but one away")
    return best[0] if best else None


def parts_named(index: StoragePath) -> tuple[str, ...]:
    """Names of the files that an index of weights lists, sorted; empty for what is no index.

    Raises:
        UsageError: not such an index, or a name that is a path.
    """
    if index.suffix != ".json":
        return ()
    listed = read_json(index).get("weight_map")
    names = set(map(str, listed.values())) if isinstance(listed, dict) else set()
    if not names or len(names) > MAX_PARTS or not all(map(_PART.fullmatch, names)):
        raise UsageError(
            f"{index}: weight_map must name the file beside it that each tensor is in, {MAX_PARTS} at most"
        )
    return tuple(sorted(names))


def _parts_of(weights: StoragePath) -> tuple[StoragePath, ...]:
    names = parts_named(weights)
    if missing := [name for name in names if not (weights.parent / name).is_file()]:
        raise UsageError(f"{weights}: lists files that are missing beside it: {a_few(missing)}; download them too")
    return tuple(weights.parent / name for name in names)
