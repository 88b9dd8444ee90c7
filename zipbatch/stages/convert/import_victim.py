"""``zipbatch import victim``: a checkpoint that others wrote becomes a victim folder of this project."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from zipbatch import __version__, atomic, storage
from zipbatch.checkpoints.backdoorbench import DEFENSE_RESULT, RESULT
from zipbatch.checkpoints.onnx import OnnxClassifier
from zipbatch.checkpoints.onnx_model import OnnxModel, whole_model
from zipbatch.checkpoints.state_dict import load_foreign
from zipbatch.checkpoints.victim import CONFIG, VictimSpec, open_victim, save_victim
from zipbatch.errors import DataError, UsageError
from zipbatch.kinds import ONNX as ONNX_KIND
from zipbatch.kinds import head_of, kind_of
from zipbatch.spelling import setting
from zipbatch.stages.convert.foreign_victim import Channels, Foreign, checkpoint_victim, onnx_victim
from zipbatch.stages.convert.request import ImportVictimRequest, ImportVictimSettings
from zipbatch.stages.train.run import finished_manifest, prepare_out
from zipbatch.victims import NORMALISATIONS, Classifier, Normalisation, build_victim, checked_scores


@dataclass(frozen=True, kw_only=True)
class ImportedVictim:
    """The folder that is there now. ``assumed``: what neither the file nor the user said, and what was taken for it."""

    path: Path
    spec: VictimSpec
    format: str
    assumed: dict[str, Any]
    reused: bool


def import_victim(request: ImportVictimRequest) -> ImportedVictim:
    """Read a foreign checkpoint, ask it about two images, and write it as a victim folder.

    Raises:
        UsageError: a file that is refused or does not fit, something that must be named, or ``out`` holds another
            victim.
    """
    _normalisation(request)  # says what is wrong, before anything is read
    file = checkpoint_file(request.file)
    if not file.is_file():
        raise UsageError(f"{file}: no such file")
    if _is_onnx(file):
        model = whole_model(file)
        return _imported(request, file, hashlib.sha256(model.content).hexdigest(), model)
    with storage.held_to(file, None) as sha256:
        return _imported(request, file, sha256, None)


def _imported(request: ImportVictimRequest, file: Path, sha256: str, model: OnnxModel | None) -> ImportedVictim:
    identity = atomic.sha256_json({"imported": sha256, "as": asked_of(request)})
    if (done := finished_manifest(request.out, CONFIG, identity, opened=open_victim)) is not None:
        spec = VictimSpec.model_validate_json((request.out / CONFIG).read_bytes())
        origin = done["imported_from"]
        return ImportedVictim(
            path=request.out, spec=spec, format=origin["format"], assumed=origin["assumed"], reused=True
        )
    foreign = checkpoint_victim(file, request.arch) if model is None else onnx_victim(file, model)
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
    return ImportedVictim(path=request.out, spec=spec, format=foreign.format, assumed=assumed, reused=False)


def checkpoint_file(path: Path) -> Path:
    """The file that a user means: of a folder, the record that BackdoorBench left there."""
    if not path.is_dir():
        return path
    return path / DEFENSE_RESULT if (path / DEFENSE_RESULT).is_file() else path / RESULT


def checkpoint_files(file: Path) -> list[Path]:
    """The file itself, and those beside an ONNX model that hold its weights.

    Raises:
        UsageError: an ONNX model that cannot be read, or names weights that are none.
    """
    if not file.is_file() or not _is_onnx(file):
        return [file]
    return [file, *(file.with_name(name) for name in whole_model(file).beside)]


def _is_onnx(file: Path) -> bool:
    kind = kind_of(head_of(file))
    checkpoint = kind is not None and kind.name in {"safetensors", "zip", "pickle"}
    return kind == ONNX_KIND or (file.suffix == ".onnx" and not checkpoint)


def asked_of(request: ImportVictimSettings) -> dict[str, Any]:
    """What is asked for, as it decides the victim beside the file.

    Raises:
        UsageError: settings that are none.
    """
    named = _normalisation(request)
    return {
        "arch": request.arch,
        "num_classes": request.num_classes,
        "image_size": request.image_size,
        "mean": None if named is None else named.mean,
        "std": None if named is None else named.std,
        "channels": _channels(request),
    }


def _channels(request: ImportVictimSettings) -> Channels | None:
    return None if request.channel_order is None else "BGR" if request.channel_order == "bgr" else "RGB"


def _normalisation(request: ImportVictimSettings) -> Normalisation | None:
    """What is subtracted from pixels, and divided by, where the user says it.

    Raises:
        UsageError: one of the two alone that is no name, or neither a name nor three numbers.
    """
    mean, std = request.mean, request.std
    if mean is None:
        return None
    if std is None and mean not in NORMALISATIONS:
        raise UsageError(f"{setting('mean', mean)} needs ‹std›; only a NAME ({', '.join(NORMALISATIONS)}) says both")
    means = NORMALISATIONS[mean].mean if mean in NORMALISATIONS else _three(mean, "‹mean›")
    text = mean if std is None else std
    stds = NORMALISATIONS[text].std if text in NORMALISATIONS else _three(text, "‹std›")
    if min(stds) <= 0:
        raise UsageError(f"{setting('std', text)}: must be above 0")
    return Normalisation(means, stds)


def _three(text: str, flag: str) -> tuple[float, float, float]:
    try:
        red, green, blue = (float(part) for part in text.replace(",", " ").split())
    except ValueError:
        red = green = blue = math.nan
    if not all(map(math.isfinite, (red, green, blue))):
        known = ", ".join(NORMALISATIONS)
        raise UsageError(f"{flag} {text}: is neither three numbers (0.5,0.5,0.5) nor a name ({known})")
    return red, green, blue


def _spec(foreign: Foreign, request: ImportVictimRequest, file: Path) -> tuple[VictimSpec, dict[str, Any]]:
    """The victim's config, and what of it was only assumed. What the file says and the user denies is an error."""
    for flag, said, asked in (
        ("‹num_classes›", foreign.num_classes, request.num_classes),
        ("‹image_size›", foreign.image_size, request.image_size),
    ):
        if said is not None and asked is not None and said != asked:
            hint = "; a head that is wider than the data is kept as it is" if flag == "‹num_classes›" else ""
            raise UsageError(f"{file}: {flag} {asked}: the file says {said}; leave it out{hint}")
    known: dict[str, Any] = {
        "num_classes": request.num_classes or foreign.num_classes,
        "image_size": request.image_size or foreign.image_size,
        "normalisation": _normalisation(request) or foreign.normalisation,
        "channels": _channels(request) or foreign.channels,
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
    if foreign.behind and request.mean is None:
        assumed["in_front"] = "nothing, though it stood behind something in a Sequential"
    own = {"arch": foreign.arch, "classes": classes, "network_size": network_size}
    spec = VictimSpec.model_validate({**values, **normalisation, **own})
    return spec, {name: vars(value) if name == "normalisation" else value for name, value in assumed.items()}


_WANTED = {
    "num_classes": "how many classes it knows (‹num_classes N›)",
    "image_size": "the size of the images that it was trained on (‹image_size PX›: CIFAR 32, ZIP's Imagenette 256)",
    "normalisation": "how its pixels are normalised (‹mean› and ‹std›, or ‹mean› with a name such as imagenet)",
}


def _loaded(foreign: Foreign, spec: VictimSpec, file: Path) -> tuple[nn.Module | bytes, Classifier]:
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
