"""``run: evaluate`` in a pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from zipbatch import atomic
from zipbatch.checkpoints import open_victim
from zipbatch.config import Option, Request
from zipbatch.datasets import open_dataset
from zipbatch.images import is_png
from zipbatch.results import Evaluation, EvaluationRow, dump
from zipbatch.stages.adapter import Input, Instance, Report, StageType, Workspace, optional, place_of, reference_of
from zipbatch.stages.evaluate.job import EvaluateJob
from zipbatch.stages.evaluate.plan import EvaluatePlan, plan_evaluate
from zipbatch.stages.evaluate.run import MEASURES_VERSION, evaluate
from zipbatch.stages.evaluate.sheet import write_sheet


class EvaluateSettings(Request):
    """What an evaluation leaves behind beside its rows."""

    sheet: Annotated[bool, Option("Also a contact sheet.", decides="nothing")] = False


def plan_of(instance: Instance, workspace: Workspace) -> EvaluatePlan:
    """What an evaluation of a pipeline measures.

    Raises:
        UsageError: as ``plan_evaluate``.
    """
    data = str(place_of(instance.one("data"), workspace))
    return plan_evaluate(
        EvaluateJob(
            victims=tuple(open_victim(place_of(item, workspace)) for item in instance.inputs["victim"]),
            dataset=open_dataset([data]),
            data_label=data,
            purified=tuple("@".join(reference_of(item, workspace)) for item in instance.inputs["purified"]),
            store=workspace.store,
            workers=workspace.workers,
        )
    )


def _evaluate(instance: Instance, workspace: Workspace, report: Report) -> None:
    settings: EvaluateSettings = instance.settings
    plan = plan_of(instance, workspace)
    rows = evaluate(plan, on_progress=lambda p: report(p.shown(instance.label)))
    if settings.sheet:
        write_sheet(plan, sheet_file(instance, workspace))
    atomic.write_json(rows_file(instance, workspace), dump(Evaluation(rows=rows)))


def _is_evaluated(instance: Instance, workspace: Workspace) -> bool:
    """A row for each victim in each form is there, and the sheet where one was asked for."""
    settings: EvaluateSettings = instance.settings
    try:
        rows = read_rows(instance, workspace)
    except (OSError, ValueError):
        return False
    wanted = len(instance.inputs["victim"]) * (1 + len(instance.inputs["purified"]))
    return len(rows) == wanted and (is_png(sheet_file(instance, workspace)) or not settings.sheet)


def _remove_rows(instance: Instance, workspace: Workspace) -> None:
    rows_file(instance, workspace).unlink(missing_ok=True)


def rows_file(instance: Instance, workspace: Workspace) -> Path:
    """Where an evaluation keeps its rows."""
    return instance.path(workspace).with_name(f"{instance.slug}.json")


def sheet_file(instance: Instance, workspace: Workspace) -> Path:
    """Where an evaluation's contact sheet lies."""
    return instance.path(workspace).with_name(f"{instance.slug}.png")


def read_rows(instance: Instance, workspace: Workspace) -> list[EvaluationRow]:
    """The rows of a finished evaluation: for each victim without a defence, then with each purified version.

    Raises:
        OSError: they are not there.
        ValueError: the file holds something else.
    """
    return Evaluation.model_validate(json.loads(rows_file(instance, workspace).read_bytes())).rows


EVALUATE = StageType(
    settings=EvaluateSettings,
    inputs={
        "victim": Input(kinds=("train victim", "import victim"), many=True),
        "data": Input(kinds=("poison",)),
        "purified": Input(kinds=("purify",), path=False, many=True, needed=optional),
    },
    run=_evaluate,
    is_done=_is_evaluated,
    fingerprint=lambda _settings: {"measures": MEASURES_VERSION},
    discard=_remove_rows,
)
