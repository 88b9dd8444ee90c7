"""Victim folders: ``config.json``, the weights (``model.safetensors``, or ``model.onnx``), ``manifest.json``."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import save
from torch import nn

from zipbatch import atomic
from zipbatch.checkpoints.onnx import OnnxClassifier, runtime_version
from zipbatch.checkpoints.onnx_model import read_model
from zipbatch.checkpoints.tensors import check_fit, check_kind, filled, layout_of, read_json, read_tensors
from zipbatch.config import problems
from zipbatch.errors import DataError, UsageError
from zipbatch.kinds import folder_kind
from zipbatch.storage import REPLACED, StoragePath, held_to, sha256
from zipbatch.victims import Classifier, Normalisation, Victim, build_network

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
ONNX = "onnx"
ONNX_MODEL = "model.onnx"
MAX_CLASSES = 1_000_000
MAX_SIDE = 65_536


class VictimSpec(BaseModel):
    """``config.json`` of a victim: what goes in and what comes out.

    ``arch`` is a name that ``build_victim`` knows, or ``onnx`` for a network that comes with its weights in
    ``model.onnx``. ``network_size`` is the side to which images are resized inside, None where they are not.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    format_version: Literal[1] = 1
    arch: str
    num_classes: int = Field(ge=2, le=MAX_CLASSES)
    image_size: int = Field(ge=1, le=MAX_SIDE)
    channels: Literal["RGB", "BGR"] = "RGB"
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    classes: tuple[str, ...] = ()
    network_size: int | None = Field(default=None, ge=1, le=MAX_SIDE)

    @property
    def weights(self) -> str:
        """Name of the file with the weights."""
        return ONNX_MODEL if self.arch == ONNX else WEIGHTS


@dataclass(frozen=True, kw_only=True)
class VictimFolder:
    """A victim on a disk or in an object store, its config read and its weights not yet: a ``VictimSource``.

    ``label`` is its place as given, ``sha256`` what its weights must have when they are loaded.
    """

    path: StoragePath
    spec: VictimSpec
    label: str
    sha256: str | None = None

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    @property
    def num_classes(self) -> int:
        """Width of its head."""
        return self.spec.num_classes

    @property
    def image_size(self) -> int:
        """Side of the images it takes, pixels."""
        return self.spec.image_size

    def pinned(self) -> VictimFolder:
        """The same victim with the weights that lie there now, and with no others."""
        return replace(self, sha256=self.sha256 or sha256(self.path / self.spec.weights))

    def knowing(self, *, classes: int) -> VictimFolder:  # noqa: ARG002 - its config says it
        """Itself."""
        return self

    def decided_by(self, device: torch.device) -> dict[str, Any] | None:
        """Its weights, what goes into them, and what computes: near ties fall otherwise elsewhere. Names of classes
        decide nothing.
        """
        if self.sha256 is None:
            return None
        config = self.spec.model_dump(mode="json", exclude={"format_version", "classes"})
        library = {"onnxruntime": runtime_version()} if self.spec.arch == ONNX else {"torch": torch.__version__}
        return {"weights": self.sha256, "config": config, "device": device.type, "library": library}

    def load(self, device: torch.device) -> Classifier:
        """Build it on ``device``.

        Raises:
            UsageError: as ``load_victim``, or an ONNX model that onnxruntime cannot run.
            DataError: as ``load_victim``.
        """
        if self.spec.arch != ONNX:
            return load_victim(self).to(device)
        normalisation = Normalisation(self.spec.mean, self.spec.std)
        model = self.path / ONNX_MODEL
        content = read_model(model)
        if self.sha256 not in {None, hashlib.sha256(content).hexdigest()}:
            raise DataError(model, REPLACED)
        return OnnxClassifier(model, normalisation, bgr=self.spec.channels == "BGR", content=content)


def open_victim(path: StoragePath) -> VictimFolder:
    """Read a victim's config.

    Raises:
        UsageError: not a victim folder, or an unfit config.
    """
    if path.is_file():
        raise UsageError(
            f"{path}: is a file; 'zipbatch import victim {path} --out DIR' makes a victim's folder of a checkpoint"
        )
    if not path.is_dir():
        raise UsageError(f"{path}: no such folder; a victim is a folder with {CONFIG} and {WEIGHTS}")
    if not (path / CONFIG).is_file() and (kind := folder_kind(path)) != "a victim":
        raise UsageError(
            f"{path / CONFIG}: missing; {path} is {kind}, a victim is a folder with {CONFIG} and {WEIGHTS}"
        )
    try:
        spec = VictimSpec.model_validate(read_json(path / CONFIG))
    except ValidationError as error:
        other = "" if (kind := folder_kind(path)) == "a victim" else f": {path} is {kind}"
        raise UsageError(f"{path / CONFIG}: not a victim's config{other}\n{problems(error)}") from error
    if not (path / spec.weights).is_file():
        raise UsageError(f"{path / spec.weights}: missing")
    check_kind(path / spec.weights)
    return VictimFolder(path=path.absolute(), spec=spec, label=str(path))


def load_victim(folder: VictimFolder) -> Victim:
    """Build the victim and load its weights, in evaluation mode on the CPU.

    Raises:
        UsageError: unknown architecture, or weights that do not fit it.
        DataError: weights of other bytes than it was ``pinned`` to, or that were changed while they were read.
    """
    spec, weights = folder.spec, folder.path / WEIGHTS
    build = partial(build_network, spec.arch, num_classes=spec.num_classes, side=spec.network_size or spec.image_size)
    try:
        layout = layout_of(build)
        with held_to(weights, folder.sha256):
            state = read_tensors(weights)
            check_fit(state, layout, where=weights)
            network = filled(build, state)
        victim = Victim(
            network, mean=spec.mean, std=spec.std, bgr=spec.channels == "BGR", network_size=spec.network_size
        )
    except FileNotFoundError:
        raise UsageError(f"{weights}: missing") from None
    except ValueError as error:
        raise UsageError(f"{folder.path / CONFIG}: {error}") from error
    return victim.eval()


def save_victim(path: Path, spec: VictimSpec, network: nn.Module | bytes, manifest: dict[str, Any]) -> None:
    """Write a victim folder's three files, each atomically, the config last: a folder with a config is whole.

    ``network`` is a module, or the bytes of an ONNX model where ``spec.arch`` says so.
    """
    assert isinstance(network, bytes) == (spec.arch == ONNX)
    atomic.write_bytes(path / spec.weights, network if isinstance(network, bytes) else _weights(network))
    atomic.write_json(path / "manifest.json", manifest)
    atomic.write_json(path / CONFIG, spec.model_dump(mode="json"))


def _weights(network: nn.Module) -> bytes:
    return save({key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()})
