"""What an instance of a stage is known by: its settings that decide, and the content of what it reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zipbatch import storage
from zipbatch.checkpoints import (
    CALIBRATION,
    RESTORER,
    RESTORER_CHECKPOINT,
    RESTORER_SAMPLES,
    RESTORER_WEIGHTS,
    PriorFolder,
    open_prior,
    read_calibration,
    read_restorer,
)
from zipbatch.datasets.source import source_paths
from zipbatch.errors import UsageError
from zipbatch.pipeline.file_digests import Fingerprints
from zipbatch.pipeline.stage_types import STAGE_TYPES
from zipbatch.stages.adapter import Instance
from zipbatch.stages.convert.import_victim import checkpoint_files
from zipbatch.stages.purify.identity import learned

_LEARNED_FROM: Mapping[str, tuple[str, str, Callable[[PriorFolder], object]]] = {
    "repaint": ("calibration", CALIBRATION, read_calibration),
    "restore": ("restorer", RESTORER, read_restorer),
}
"""Method -> what it takes from a prior's folder: the name of the fact, the file, and who reads it."""
_BESIDE_A_PRIOR = frozenset({CALIBRATION, RESTORER, RESTORER_WEIGHTS, RESTORER_SAMPLES, RESTORER_CHECKPOINT})


def identity_of(
    kind: str,
    facts: Mapping[str, Any],
    inputs: Mapping[str, Sequence[Instance | str]],
    prints: Fingerprints,
    where: str,
) -> dict[str, Any]:
    """What decides the result of a stage: how it is run, its settings that do, what is in its inputs.

    Raises:
        UsageError: an input is not there, or lacks what the stage takes from it; begins with ``where``.
    """
    contents = {
        name: [_content(name, item, prints, where) for item in made]
        for name, made in inputs.items()
        if made or not STAGE_TYPES[kind].inputs[name].later
    }
    return {
        "run": kind,
        "facts": {**facts, **_learned(facts, inputs.get("prior", ()), prints, where)},
        "inputs": contents,
    }


def identity_now(instance: Instance, prints: Fingerprints) -> Mapping[str, Any]:
    """What the instance would be known by if it were planned now: its presets and inputs may have changed since.

    Raises:
        UsageError: they are not there, or invalid by now.
    """
    facts = STAGE_TYPES[instance.kind].decides(instance.settings)
    return identity_of(instance.kind, facts, instance.inputs, prints, instance.label)


def _learned(
    facts: Mapping[str, Any], priors: Sequence[Instance | str], prints: Fingerprints, where: str
) -> dict[str, Any]:
    """What a purifier takes from the folder of a prior at a path, its calibration or its restorer; held against
    weights, which are large, only where it is used.

    Raises:
        UsageError: the prior has none.
    """
    paths = [item for item in priors if isinstance(item, str)]
    facts_learned: dict[str, Any] = {}
    for method in learned(facts) if paths else ():
        name, file_name, read = _LEARNED_FROM[method]
        file = storage.storage_path(paths[0]) / file_name
        if not file.is_file():
            try:
                read(open_prior(storage.storage_path(paths[0])))  # says what to do
            except UsageError as error:
                raise UsageError(f"{where}: {error}") from error
        facts_learned[name] = prints.of(file, where)
    return facts_learned


def _content(name: str, item: Instance | str, prints: Fingerprints, where: str) -> object:
    """What an input is known by."""
    if isinstance(item, Instance):
        return item.id
    if name == "prior":  # what is learned from it is among the facts, where it matters
        return prints.of(storage.storage_path(item), where, without=_BESIDE_A_PRIOR)
    if name == "file":
        return [prints.of(file, where) for file in checkpoint_files(Path(item))]
    if name != "source":
        return prints.of(storage.storage_path(item), where)
    kind, paths = source_paths(item)
    return [kind, *([path.name, prints.of(path, where)] for path in paths)]
