"""``run: poison`` in a pipeline."""

from __future__ import annotations

from typing import Any

from pydantic import field_validator

from zipbatch.report.progress import Part, Progress
from zipbatch.stages.adapter import Input, Instance, Report, StageType, Workspace, remove_folder, text_of
from zipbatch.stages.output_folder import whole_dataset
from zipbatch.stages.poison.plan import requested_attack, requested_material, requested_options
from zipbatch.stages.poison.request import PoisonRequest, PoisonSettings
from zipbatch.stages.poison.run import poison
from zipbatch.stages.poison.trigger import PYTHON

_MATERIAL = ("trigger_image", "trigger_array", "cover_rate")
"""Settings of which the staged options tell, where they matter."""


class PipelinePoison(PoisonSettings):
    """As the options of ``zipbatch poison``, without functions: a pipeline is data, and may be another's."""

    @field_validator("attack")
    @classmethod
    def _runs_no_code(cls, name: str) -> str:
        if name.startswith(PYTHON):
            raise ValueError("functions of yours are run by 'zipbatch poison --attack python:…' alone")
        return name


def _poison(instance: Instance, workspace: Workspace, report: Report) -> None:
    where = {"source": text_of(instance.one("source")), "out": instance.path(workspace)}
    request = PoisonRequest.model_validate({**instance.settings.model_dump(), **where})

    def show(done: int, total: int) -> None:
        report(Progress(what=instance.label, parts=(Part("images", done, total),)))

    poison(request, on_progress=show)


def _is_staged(instance: Instance, workspace: Workspace) -> bool:
    return whole_dataset(instance.path(workspace)) is not None


def _poison_fingerprint(settings: PoisonSettings) -> dict[str, Any]:
    """The attack as it will be, wherever its parameters come from."""
    attack = requested_attack(settings)
    return {
        **settings.model_dump(mode="json", include=settings.told() - {"profile", "skip_unreadable", *_MATERIAL}),
        "train_transform": attack.train_transform,
        **requested_options(settings, attack, requested_material(settings)),
        **({"skip_unreadable": True} if settings.skip_unreadable else {}),
    }


POISON = StageType(
    settings=PipelinePoison,
    inputs={"source": Input()},
    run=_poison,
    is_done=_is_staged,
    fingerprint=_poison_fingerprint,
    discard=remove_folder,
    seed=("seed",),
)
