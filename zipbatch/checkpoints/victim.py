"""Victim folders: ``config.json``, ``model.safetensors``, ``manifest.json``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import save
from torch import nn

from zipbatch import atomic
from zipbatch.checkpoints.tensors import load_strictly, read_json, read_tensors
from zipbatch.config import problems
from zipbatch.errors import UsageError
from zipbatch.victims import Victim, build_victim

CONFIG = "config.json"
WEIGHTS = "model.safetensors"


class VictimSpec(BaseModel):
    """``config.json`` of a victim: what goes in and what comes out."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    format_version: Literal[1] = 1
    arch: str
    num_classes: int = Field(ge=2)
    image_size: int = Field(ge=1)
    channels: Literal["RGB", "BGR"] = "RGB"
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class VictimFolder:
    """A victim on disk, its config read and its weights not yet."""

    path: Path
    spec: VictimSpec

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name


def open_victim(path: Path) -> VictimFolder:
    """Read a victim's config.

    Raises:
        UsageError: not a victim folder, or an unfit config.
    """
    if not path.is_dir():
        raise UsageError(f"{path}: no such folder; a victim is a folder with {CONFIG} and {WEIGHTS}")
    try:
        spec = VictimSpec.model_validate(read_json(path / CONFIG))
    except ValidationError as error:
        raise UsageError(f"{path / CONFIG}: not a victim's config\n{problems(error)}") from error
    if not (path / WEIGHTS).is_file():
        raise UsageError(f"{path / WEIGHTS}: missing")
    return VictimFolder(path.absolute(), spec)


def load_victim(folder: VictimFolder) -> Victim:
    """Build the victim and load its weights, in evaluation mode on the CPU.

    Raises:
        UsageError: unknown architecture, or weights that do not fit it.
    """
    spec = folder.spec
    try:
        victim = build_victim(
            spec.arch, num_classes=spec.num_classes, mean=spec.mean, std=spec.std, bgr=spec.channels == "BGR"
        )
    except ValueError as error:
        raise UsageError(f"{folder.path / CONFIG}: {error}") from error
    load_strictly(victim.network, read_tensors(folder.path / WEIGHTS), where=folder.path / WEIGHTS)
    return victim.eval()


def save_victim(path: Path, spec: VictimSpec, network: nn.Module, manifest: dict[str, Any]) -> None:
    """Write a victim folder's three files, each atomically, the config last: a folder with a config is whole."""
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    atomic.write_bytes(path / WEIGHTS, save(state))
    atomic.write_json(path / "manifest.json", manifest)
    atomic.write_json(path / CONFIG, spec.model_dump(mode="json"))
