"""``run: train victim`` and ``run: train prior`` in a pipeline."""

from __future__ import annotations

from typing import Any

from zipbatch.checkpoints import open_prior, open_victim
from zipbatch.cluster import pick_device
from zipbatch.datasets import open_dataset
from zipbatch.stages.adapter import (
    Input,
    Instance,
    Report,
    StageType,
    Workspace,
    optional,
    place_of,
    reference_of,
    remove_folder,
    text_of,
)
from zipbatch.stages.purified import with_purified
from zipbatch.stages.train.inputs import opened_source
from zipbatch.stages.train.prior import train_prior
from zipbatch.stages.train.request import PriorSettings, VictimSettings
from zipbatch.stages.train.run import is_trained, training_fingerprint
from zipbatch.stages.train.victim import train_victim


def _train_victim(instance: Instance, workspace: Workspace, report: Report) -> None:
    settings: VictimSettings = instance.settings
    dataset = open_dataset([str(place_of(instance.one("data"), workspace))])
    if instance.inputs["purified"]:
        version = workspace.store.versions.read("@".join(reference_of(instance.one("purified"), workspace)))
        dataset = with_purified(dataset, version, workspace.store, split="train")
    start = instance.inputs["start"]
    train_victim(
        dataset,
        instance.path(workspace),
        settings.config(),
        device=pick_device(workspace.workers.device),
        resized=settings,
        start=open_victim(place_of(start[0], workspace)) if start else None,
        on_progress=lambda p: report(p.shown(instance.label)),
    )


def _train_prior(instance: Instance, workspace: Workspace, report: Report) -> None:
    settings: PriorSettings = instance.settings
    train_prior(
        opened_source(text_of(instance.one("source")), settings),
        instance.path(workspace),
        settings.config(),
        device=pick_device(workspace.workers.device),
        on_progress=lambda p: report(p.shown(instance.label)),
    )


def _fingerprint(settings: VictimSettings | PriorSettings) -> dict[str, Any]:
    return {**training_fingerprint(settings.config()), **settings.resized}


TRAIN_VICTIM = StageType(
    settings=VictimSettings,
    inputs={
        "data": Input(kinds=("poison",)),
        "purified": Input(kinds=("purify",), path=False, needed=optional),
        "start": Input(kinds=("train victim", "import victim"), needed=optional, later=True),
    },
    run=_train_victim,
    is_done=lambda instance, workspace: is_trained(instance.path(workspace), open_victim),
    fingerprint=_fingerprint,
    discard=remove_folder,
    seed=("set", "seed"),
)

TRAIN_PRIOR = StageType(
    settings=PriorSettings,
    inputs={"source": Input()},
    run=_train_prior,
    is_done=lambda instance, workspace: is_trained(instance.path(workspace), open_prior),
    fingerprint=_fingerprint,
    discard=remove_folder,
    seed=("set", "seed"),
)
