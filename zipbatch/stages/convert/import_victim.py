"""``zipbatch import victim``: a checkpoint that others wrote becomes a victim folder of this project."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import nn

from zipbatch import __version__, atomic, storage
from zipbatch.checkpoints.backdoorbench import (
    DEFENSE_RESULT,
    RESULT,
    is_attack_result,
    is_defense_result,
    parse_attack_result,
    parse_defense_result,
)
from zipbatch.checkpoints.onnx import OnnxClassifier
from zipbatch.checkpoints.onnx_model import OnnxModel, whole_model
from zipbatch.checkpoints.state_dict import State, built_for, find_state, head_classes, load_foreign, sniff
from zipbatch.checkpoints.tensors import read_checkpoint
from zipbatch.checkpoints.victim import CONFIG, ONNX, VictimSpec, open_victim, save_victim
from zipbatch.errors import DataError, UsageError
from zipbatch.kinds import ONNX as ONNX_KIND
from zipbatch.kinds import head_of, kind_of
from zipbatch.stages.train.run import finished_manifest, prepare_out
from zipbatch.victims import (
    CIFAR_ARCHITECTURES,
    NO_NORMALISATION,
    NORMALISATIONS,
    TORCHVISION_PREFIX,
    Classifier,
    Normalisation,
    build_victim,
    checked_scores,
)

Channels = Literal["RGB", "BGR"]
CLASSES = {
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
}
"""Names of the classes of data that a file names, in their order."""
TORCHVISION_SIZES = {"inception_v3": 299}


@dataclass(frozen=True)
class ImportVictimRequest:
    """What to import. None: as the file says, or as its kind implies; what is only implied is told."""

    file: Path
    out: Path
    arch: str | None = None
    num_classes: int | None = None
    image_size: int | None = None
    normalisation: Normalisation | None = None
    channels: Channels | None = None


@dataclass(frozen=True)
class ImportedVictim:
    """The folder that is there now. ``assumed``: what neither the file nor the user said, and what was taken for it."""

    path: Path
    spec: VictimSpec
    format: str
    assumed: dict[str, Any]
    reused: bool


@dataclass(frozen=True)
class _Foreign:
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


def import_victim(request: ImportVictimRequest) -> ImportedVictim:
    """Read a foreign checkpoint, ask it about two images, and write it as a victim folder.

    Raises:
        UsageError: a file that is refused or does not fit, something that must be named, or ``out`` holds another
            victim.
    """
    file = _file(request.file)
    if not file.is_file():
        raise UsageError(f"{file}: no such file")
    if _is_onnx(file):
        model = whole_model(file)
        return _imported(request, file, hashlib.sha256(model.content).hexdigest(), model)
    with storage.held_to(file, None) as sha256:
        return _imported(request, file, sha256, None)


def _imported(request: ImportVictimRequest, file: Path, sha256: str, model: OnnxModel | None) -> ImportedVictim:
    identity = atomic.sha256_json({"imported": sha256, "as": _asked(request)})
    if (done := finished_manifest(request.out, CONFIG, identity, opened=open_victim)) is not None:
        spec = VictimSpec.model_validate_json((request.out / CONFIG).read_bytes())
        origin = done["imported_from"]
        return ImportedVictim(request.out, spec, origin["format"], origin["assumed"], reused=True)
    foreign = _weights(file, request) if model is None else _onnx(file, model)
    spec, assumed = _spec(foreign, request, file)
    network, classifier = _loaded(foreign, spec, file)
    _try_out(classifier, spec, file)
    prepare_out(request.out)
    origin = {"file": file.name, "sha256": sha256, "format": foreign.format, "assumed": assumed, **foreign.notes}
    manifest = {
        "format_version": 1,
        "identity": identity,
        "imported_from": origin,
        "versions": {"zipbatch": __version__},
    }
    save_victim(request.out, spec, network, manifest)
    return ImportedVictim(request.out, spec, foreign.format, assumed, reused=False)


def _file(path: Path) -> Path:
    """The file that a user means: of a folder, the record that BackdoorBench left there."""
    if not path.is_dir():
        return path
    return path / DEFENSE_RESULT if (path / DEFENSE_RESULT).is_file() else path / RESULT


def _is_onnx(file: Path) -> bool:
    kind = kind_of(head_of(file))
    checkpoint = kind is not None and kind.name in {"safetensors", "zip", "pickle"}
    return kind == ONNX_KIND or (file.suffix == ".onnx" and not checkpoint)


def _asked(request: ImportVictimRequest) -> dict[str, Any]:
    named = request.normalisation
    return {
        "arch": request.arch,
        "num_classes": request.num_classes,
        "image_size": request.image_size,
        "mean": None if named is None else named.mean,
        "std": None if named is None else named.std,
        "channels": request.channels,
    }


def _onnx(file: Path, model: OnnxModel) -> _Foreign:
    known = OnnxClassifier(file, NO_NORMALISATION, content=model.content)
    notes = {"weights_from": model.beside} if model.beside else {}
    return _Foreign(
        format="ONNX model",
        arch=ONNX,
        state=None,
        num_classes=known.num_classes,
        notes=notes,
        usual={"channels": "RGB"},
        image_size=known.image_size,
        model=model.content,
    )


def _weights(file: Path, request: ImportVictimRequest) -> _Foreign:
    tree = read_checkpoint(file)
    if is_attack_result(tree):
        return _record(tree, request, file)
    if is_defense_result(tree):
        return _defended(tree, request, file)
    found = find_state(tree, where=file)
    arch = request.arch or sniff(found.state, where=file)
    notes = {"nested_under": found.nested, "prefixes_stripped": found.stripped}
    classes = head_classes(arch, found.state, where=file)
    usual = _usual(arch)
    if (side := built_for(arch, found.state)) is not None:
        usual["image_size"] = side
    behind = any(part[:-1].isdigit() and int(part[:-1]) for part in found.stripped)
    return _Foreign("state dict", arch, found.state, classes, notes, usual, built_for=side, behind=behind)


def _record(tree: object, request: ImportVictimRequest, file: Path) -> _Foreign:
    record = parse_attack_result(tree, where=file)
    arch = request.arch or record.arch
    return _Foreign(
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


def _defended(tree: object, request: ImportVictimRequest, file: Path) -> _Foreign:
    """A defence's record: BackdoorBench normalises as its data's name says, which only the classes tell."""
    record = parse_defense_result(tree, where=file)
    arch = request.arch or record.arch
    name, side = record.dataset or ("", 0)
    usual = {"normalisation": NORMALISATIONS[name], "image_size": side} if name else {}
    return _Foreign(
        format="BackdoorBench defence record",
        arch=arch,
        state=record.found.state,
        num_classes=head_classes(arch, record.found.state, where=file),
        notes={"model_name": record.model_name, "prefixes_stripped": record.found.stripped},
        usual=usual,
        channels="RGB",
        network_size=record.network_size,
    )


def _spec(foreign: _Foreign, request: ImportVictimRequest, file: Path) -> tuple[VictimSpec, dict[str, Any]]:
    """The victim's config, and what of it was only assumed. What the file says and the user denies is an error."""
    for flag, said, asked in (
        ("--num-classes", foreign.num_classes, request.num_classes),
        ("--image-size", foreign.image_size, request.image_size),
    ):
        if said is not None and asked is not None and said != asked:
            hint = "; a head that is wider than the data is kept as it is" if flag == "--num-classes" else ""
            raise UsageError(f"{file}: {flag} {asked}: the file says {said}; leave the flag out{hint}")
    known: dict[str, Any] = {
        "num_classes": request.num_classes or foreign.num_classes,
        "image_size": request.image_size or foreign.image_size,
        "normalisation": request.normalisation or foreign.normalisation,
        "channels": request.channels or foreign.channels,
    }
    values: dict[str, Any] = {
        name: foreign.usual.get(name) if value is None else value for name, value in known.items()
    }
    if missing := [_WANTED[name] for name, value in values.items() if value is None]:
        raise UsageError(f"{file}: does not say " + " nor ".join(missing))
    if values["num_classes"] < 2:
        raise UsageError(f"{file}: gives {values['num_classes']} score an image; a classifier has 2 classes or more")
    normalisation = vars(values.pop("normalisation"))
    classes = foreign.classes if len(foreign.classes) == values["num_classes"] else ()
    network_size = foreign.network_size
    assumed = {name: foreign.usual[name] for name, value in known.items() if value is None}
    if foreign.built_for not in {None, values["image_size"]}:
        network_size = assumed["network_size"] = foreign.built_for
    if foreign.behind and request.normalisation is None:
        assumed["in_front"] = "nothing, though it stood behind something in a Sequential"
    own = {"arch": foreign.arch, "classes": classes, "network_size": network_size}
    spec = VictimSpec.model_validate({**values, **normalisation, **own})
    return spec, {name: vars(value) if name == "normalisation" else value for name, value in assumed.items()}


_WANTED = {
    "num_classes": "how many classes it knows (--num-classes N)",
    "image_size": "the size of the images that it was trained on (--image-size PX: CIFAR 32, ZIP's Imagenette 256)",
    "normalisation": "how its pixels are normalised (--mean and --std, or --mean with a name such as imagenet)",
}


def _usual(arch: str) -> dict[str, Any]:
    """What is usual for a state dict: ZIP's and BackdoorBox's victims are not normalised, torchvision's are."""
    if arch.startswith(TORCHVISION_PREFIX):
        size = TORCHVISION_SIZES.get(arch.removeprefix(TORCHVISION_PREFIX), 224)
        return {"channels": "RGB", "image_size": size, "normalisation": NORMALISATIONS["imagenet"]}
    if arch in CIFAR_ARCHITECTURES:
        return {"channels": "RGB", "normalisation": NO_NORMALISATION}
    return {"channels": "RGB"}


def _loaded(foreign: _Foreign, spec: VictimSpec, file: Path) -> tuple[nn.Module | bytes, Classifier]:
    """The network as it is to be stored, and as it can be asked."""
    bgr = spec.channels == "BGR"
    if foreign.state is None:
        normalisation = Normalisation(spec.mean, spec.std)
        return foreign.model, OnnxClassifier(file, normalisation, bgr=bgr, content=foreign.model)
    victim = build_victim(
        spec.arch,
        num_classes=spec.num_classes,
        mean=spec.mean,
        std=spec.std,
        bgr=bgr,
        network_size=spec.network_size,
        image_size=spec.image_size,
    )
    load_foreign(victim, foreign.state, arch=spec.arch, where=file)
    return victim.network, victim


def _try_out(classifier: Classifier, spec: VictimSpec, file: Path) -> None:
    """Ask about a black and a white image: whatever does not work is told now rather than in an evaluation."""
    size = spec.image_size
    images = np.repeat(np.array([0, 255], np.uint8), size * size * 3).reshape(2, size, size, 3)
    try:
        checked_scores(classifier.classify(images), images=2, classes=spec.num_classes)
    except (DataError, ValueError, RuntimeError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise UsageError(f"{file}: cannot classify an image of {size} px: {first_line}") from error
