"""Stages of a pipeline, resolved: what is to be made, from what, and where it lies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zipbatch.cluster import Workers
from zipbatch.config import Settings
from zipbatch.store import Store


@dataclass(frozen=True)
class Workspace:
    """Where a pipeline keeps what it makes, and who works."""

    out: Path
    workers: Workers = Workers()

    @property
    def store(self) -> Store:
        """Purified shards of all stages."""
        return Store(self.out / "pur")


@dataclass(frozen=True)
class Instance:
    """One stage for one choice of the matrix axes that it depends on.

    Attributes:
        stage: its name in the pipeline.
        kind: its ``run``.
        axes: axis -> value.
        settings: resolved and validated.
        inputs: field -> instances that make it, or texts that the user gave.
        id: digest of settings and inputs: what it makes is named by it, so a change never meets old results.
    """

    stage: str
    kind: str
    axes: Mapping[str, str]
    settings: Settings
    inputs: Mapping[str, tuple[Instance | str, ...]]
    id: str
    identity: Mapping[str, Any] = field(repr=False)

    @property
    def label(self) -> str:
        """For people: ``purified[badnets, balanced]``."""
        return f"{self.stage}[{', '.join(self.axes.values())}]" if self.axes else self.stage

    @property
    def slug(self) -> str:
        """For files: ``badnets-balanced-1a2b3c4d``."""
        return "-".join([*(value.replace(":", "_").replace("+", "_") for value in self.axes.values()), self.id])

    @property
    def makers(self) -> list[Instance]:
        """The instances whose results it takes."""
        return [item for made in self.inputs.values() for item in made if isinstance(item, Instance)]

    def path(self, workspace: Workspace) -> Path:
        """The file or folder that it makes."""
        return workspace.out / self.stage / self.slug

    def one(self, name: str) -> Instance | str:
        """The input of that name, of which there is one."""
        (found,) = self.inputs[name]
        return found


def always(_settings: Settings) -> bool:
    """For inputs that every stage of a kind needs."""
    return True


@dataclass(frozen=True)
class Input:
    """An input field of a kind of stage.

    Attributes:
        kinds: the kinds of stages that may make it.
        path: whether it may be a path.
        many: whether it may be several.
        needed: whether a stage with these settings needs it; None where it may be left out, False where it makes no
            difference and is dropped.
        later: whether it came when stages without it had their names: left out of those where it is not given.
    """

    kinds: tuple[str, ...] = ()
    path: bool = True
    many: bool = False
    needed: Callable[[Any], bool | None] = always
    later: bool = False
