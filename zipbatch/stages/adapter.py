"""How a job is a stage of a pipeline: its settings, its inputs, what it leaves behind, and how it is run.

Each job has its own in ``stages/<job>/adapter.py``.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zipbatch import storage
from zipbatch.cluster import Workers
from zipbatch.config import Request
from zipbatch.report.progress import Progress
from zipbatch.store import Store

Report = Callable[[Progress], None]
"""Called with what is being done and how far it is."""


@dataclass(frozen=True)
class Workspace:
    """Where a pipeline keeps what it makes, and who works."""

    out: Path
    workers: Workers = Workers()

    @property
    def store(self) -> Store:
        """Purified shards of all stages."""
        return Store(self.out / "pur")


@dataclass(frozen=True, kw_only=True)
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
    settings: Any
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


def always(_settings: object) -> bool:
    """For inputs that every stage of a kind needs."""
    return True


def optional(_settings: object) -> None:
    """For inputs that may be left out."""


@dataclass(frozen=True, kw_only=True)
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


@dataclass(frozen=True, kw_only=True)
class StageType:
    """What a stage of a pipeline can be.

    Attributes:
        settings: its settings.
        inputs: its input fields.
        run: makes what the instance stands for.
        fingerprint: what decides the result beside the inputs, asked of those who say it of the result itself (the
            staged options, a purifier's identity, that of a training run). Settings marked as deciding the ``result``
            are added to it. Raises ``UsageError`` when the settings cannot be.
        is_done: whether all that it makes is there.
        discard: takes back what it has made, so that nothing takes it for done.
        seed: where among its fields its seed is said; nowhere where it takes none.
    """

    settings: type[Request]
    inputs: Mapping[str, Input]
    run: Callable[[Instance, Workspace, Report], None]
    is_done: Callable[[Instance, Workspace], bool]
    fingerprint: Callable[[Any], dict[str, Any]]
    discard: Callable[[Instance, Workspace], None]
    seed: tuple[str, ...] = ()

    def decides(self, settings: Any) -> dict[str, Any]:
        """What a stage with these settings is known by: those that decide as they stand, and its fingerprint."""
        return {**settings.decisive("result", "selection"), **self.fingerprint(settings)}


def text_of(item: Instance | str) -> str:
    """An input that no stage makes."""
    assert isinstance(item, str)  # its input rule takes no stage
    return item


def place_of(item: Instance | str, workspace: Workspace) -> storage.StoragePath:
    """Where an input lies."""
    return item.path(workspace) if isinstance(item, Instance) else storage.storage_path(item)


def reference_of(item: Instance | str, workspace: Workspace) -> tuple[str, str]:
    """Dataset and tag of what a purify stage makes; the dataset is named after its folder."""
    assert isinstance(item, Instance)  # its input rule takes no path
    return place_of(item.one("data"), workspace).resolve().name, f"{item.stage}-{item.slug}"


def remove_folder(instance: Instance, workspace: Workspace) -> None:
    """Take back what a stage has made, where that is a folder."""
    shutil.rmtree(instance.path(workspace), ignore_errors=True)
