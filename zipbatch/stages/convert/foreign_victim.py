"""What files that others wrote hold of a victim: state dicts, BackdoorBench's records and defences, ONNX models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from zipbatch.checkpoints.backdoorbench import (
    is_attack_result,
    is_defense_result,
    parse_attack_result,
    parse_defense_result,
)
from zipbatch.checkpoints.onnx import OnnxClassifier
from zipbatch.checkpoints.onnx_model import OnnxModel
from zipbatch.checkpoints.state_dict import State, built_for, find_state, head_classes, sniff
from zipbatch.checkpoints.tensors import read_checkpoint
from zipbatch.checkpoints.victim import ONNX
from zipbatch.victims import CIFAR_ARCHITECTURES, NO_NORMALISATION, NORMALISATIONS, TORCHVISION_PREFIX, Normalisation

Channels = Literal["RGB", "BGR"]
CLASSES = {
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
}
"""Names of the classes of data that a file names, in their order."""
TORCHVISION_SIZES = {"inception_v3": 299}


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """What a file holds and says of itself; None where it is silent. ``state`` is None for an ONNX model, ``model``.

    ``usual`` is what is taken for some of it then, unless the user says otherwise. ``built_for`` is the side of the
    images that the network has weights for, where it can take no others. ``behind``: it stood behind something in a
    Sequential, such as a resize or a normalisation, that has no weights.
    """

    format: str
    arch: str
    state: State | None
    num_classes: int | None
    notes: dict[str, Any]
    usual: Mapping[str, Any]
    image_size: int | None = None
    normalisation: Normalisation | None = None
    channels: Channels | None = None
    network_size: int | None = None
    classes: tuple[str, ...] = ()
    built_for: int | None = None
    behind: bool = False
    model: bytes = b""


def onnx_victim(file: Path, model: OnnxModel) -> Foreign:
    known = OnnxClassifier(file, NO_NORMALISATION, content=model.content)
    notes = {"weights_from": model.beside} if model.beside else {}
    return Foreign(
        format="ONNX model",
        arch=ONNX,
        state=None,
        num_classes=known.num_classes,
        notes=notes,
        usual={"channels": "RGB"},
        image_size=known.image_size,
        model=model.content,
    )


def checkpoint_victim(file: Path, arch: str | None) -> Foreign:
    tree = read_checkpoint(file)
    if is_attack_result(tree):
        return _record(tree, file, arch)
    if is_defense_result(tree):
        return _defended(tree, file, arch)
    found = find_state(tree, where=file)
    arch = arch or sniff(found.state, where=file)
    notes = {"nested_under": found.nested, "prefixes_stripped": found.stripped}
    classes = head_classes(arch, found.state, where=file)
    usual = _usual(arch)
    if (side := built_for(arch, found.state)) is not None:
        usual["image_size"] = side
    behind = any(part[:-1].isdigit() and int(part[:-1]) for part in found.stripped)
    return Foreign(
        format="state dict",
        arch=arch,
        state=found.state,
        num_classes=classes,
        notes=notes,
        usual=usual,
        built_for=side,
        behind=behind,
    )


def _record(tree: object, file: Path, arch: str | None) -> Foreign:
    record = parse_attack_result(tree, where=file)
    arch = arch or record.arch
    return Foreign(
        format="BackdoorBench record",
        arch=arch,
        state=record.found.state,
        num_classes=head_classes(arch, record.found.state, where=file),
        notes={
            "model_name": record.model_name,
            "dataset": record.dataset,
            "prefixes_stripped": record.found.stripped,
        },
        usual={},
        image_size=record.image_size,
        normalisation=NORMALISATIONS.get(record.dataset),
        channels="RGB",
        network_size=record.network_size,
        classes=CLASSES.get(record.dataset, ()),
    )


def _defended(tree: object, file: Path, arch: str | None) -> Foreign:
    """A defence's record: BackdoorBench normalises as its data's name says, which only the classes tell."""
    record = parse_defense_result(tree, where=file)
    arch = arch or record.arch
    name, side = record.dataset or ("", 0)
    usual = {"normalisation": NORMALISATIONS[name], "image_size": side} if name else {}
    return Foreign(
        format="BackdoorBench defence record",
        arch=arch,
        state=record.found.state,
        num_classes=head_classes(arch, record.found.state, where=file),
        notes={"model_name": record.model_name, "prefixes_stripped": record.found.stripped},
        usual=usual,
        channels="RGB",
        network_size=record.network_size,
    )


def _usual(arch: str) -> dict[str, Any]:
    """What is usual for a state dict: ZIP's and BackdoorBox's victims are not normalised, torchvision's are."""
    if arch.startswith(TORCHVISION_PREFIX):
        size = TORCHVISION_SIZES.get(arch.removeprefix(TORCHVISION_PREFIX), 224)
        return {"channels": "RGB", "image_size": size, "normalisation": NORMALISATIONS["imagenet"]}
    if arch in CIFAR_ARCHITECTURES:
        return {"channels": "RGB", "normalisation": NO_NORMALISATION}
    return {"channels": "RGB"}
