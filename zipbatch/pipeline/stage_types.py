"""What a stage of a pipeline can be: its settings, its inputs, what it leaves behind, and how it is run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import field_validator

from zipbatch import atomic, storage
from zipbatch.checkpoints import open_prior, open_victim
from zipbatch.cluster import pick_device
from zipbatch.config import Option, Request
from zipbatch.datasets import open_dataset
from zipbatch.datasets.source import open_source
from zipbatch.errors import DataError, UsageError
from zipbatch.images import is_png
from zipbatch.pipeline.instance import Input, Instance, Workspace
from zipbatch.report.progress import Part, Progress
from zipbatch.stages.evaluate.run import MEASURES_VERSION, EvaluateRequest, evaluate, plan_evaluate, with_purified
from zipbatch.stages.evaluate.sheet import write_sheet
from zipbatch.stages.output_folder import whole_dataset
from zipbatch.stages.poison.request import PoisonRequest, PoisonSettings
from zipbatch.stages.poison.staging import poison, requested_attack, requested_material, requested_options
from zipbatch.stages.poison.trigger import PYTHON
from zipbatch.stages.purify.identity import learned
from zipbatch.stages.purify.job import PurifyJob
from zipbatch.stages.purify.plan import plan_purify
from zipbatch.stages.purify.publish import check_tagged
from zipbatch.stages.purify.request import PurifySettings
from zipbatch.stages.purify.resolve import asked_purifier, with_prior
from zipbatch.stages.purify.run import purify
from zipbatch.stages.train.prior import train_prior
from zipbatch.stages.train.request import PriorSettings, VictimSettings
from zipbatch.stages.train.run import is_trained, training_fingerprint
from zipbatch.stages.train.victim import train_victim
from zipbatch.store import VersionHeader, Versions, lost_objects

Report = Callable[[Progress], None]
"""Called with what is being done and how far it is."""


@dataclass(frozen=True)
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


class PipelinePoison(PoisonSettings):
    """As the options of ``zipbatch poison``, without functions: a pipeline is data, and may be another's."""

    @field_validator("attack")
    @classmethod
    def _runs_no_code(cls, name: str) -> str:
        if name.startswith(PYTHON):
            raise ValueError("functions of yours are run by 'zipbatch poison --attack python:…' alone")
        return name


def _poison(instance: Instance, workspace: Workspace, report: Report) -> None:
    where = {"source": _text(instance.one("source")), "out": instance.path(workspace)}
    request = PoisonRequest.model_validate({**instance.settings.model_dump(), **where})

    def show(done: int, total: int) -> None:
        report(Progress(instance.label, (Part("images", done, total),)))

    poison(request, on_progress=show)


def _train_victim(instance: Instance, workspace: Workspace, report: Report) -> None:
    assert isinstance(instance.settings, VictimSettings)
    dataset = open_dataset([str(_at(instance.one("data"), workspace))])
    if instance.inputs["purified"]:
        version = Versions(workspace.store).read("@".join(_reference(instance.one("purified"), workspace)))
        dataset = with_purified(dataset, version, workspace.store, split="train")
    start = instance.inputs["start"]
    train_victim(
        dataset,
        instance.path(workspace),
        instance.settings.config(),
        device=pick_device(workspace.workers.device),
        start=open_victim(_at(start[0], workspace)) if start else None,
        on_progress=lambda p: report(p.shown(instance.label)),
    )


def _train_prior(instance: Instance, workspace: Workspace, report: Report) -> None:
    assert isinstance(instance.settings, PriorSettings)
    train_prior(
        open_source(_text(instance.one("source")), (), labelled=False),
        instance.path(workspace),
        instance.settings.config(),
        device=pick_device(workspace.workers.device),
        on_progress=lambda p: report(p.shown(instance.label)),
    )


def _purify(instance: Instance, workspace: Workspace, report: Report) -> None:
    settings = instance.settings
    assert isinstance(settings, PurifySettings)
    dataset, tag = _reference(instance, workspace)
    prior = _at(instance.one("prior"), workspace) if instance.inputs["prior"] else None
    job = PurifyJob(
        open_dataset([str(_at(instance.one("data"), workspace))], name=dataset),
        with_prior(asked_purifier(settings), prior),
        workspace.store,
        workspace.workers,
        settings,
        tag=tag,
    )
    summary = purify(plan_purify(job), on_progress=lambda p: report(p.shown(instance.label)))
    check_tagged(summary, dataset, tag)


class EvaluateSettings(Request):
    """What an evaluation leaves behind beside its rows."""

    sheet: Annotated[bool, Option("Also a contact sheet.", decides="nothing")] = False


def _evaluate(instance: Instance, workspace: Workspace, report: Report) -> None:
    assert isinstance(instance.settings, EvaluateSettings)
    data = str(_at(instance.one("data"), workspace))
    plan = plan_evaluate(
        EvaluateRequest(
            victims=tuple(open_victim(_at(item, workspace)) for item in instance.inputs["victim"]),
            dataset=open_dataset([data]),
            data_label=data,
            purified=tuple("@".join(_reference(item, workspace)) for item in instance.inputs["purified"]),
            store=workspace.store,
            workers=workspace.workers,
        )
    )
    rows = evaluate(plan, on_progress=lambda p: report(p.shown(instance.label)))
    if instance.settings.sheet:
        write_sheet(plan, sheet_file(instance, workspace))
    atomic.write_json(rows_file(instance, workspace), {"rows": rows})


def _is_staged(instance: Instance, workspace: Workspace) -> bool:
    return whole_dataset(instance.path(workspace)) is not None


def _is_purified(instance: Instance, workspace: Workspace) -> bool:
    """Its version reads, and every object of it is there: what 'store verify --repair' removed is made anew."""
    dataset, tag = _reference(instance, workspace)
    try:
        if Versions(workspace.store).tag(dataset, tag) is None:
            return False
        version = Versions(workspace.store).read(f"{dataset}@{tag}")
        if not _is_of_its_prior(instance, workspace, version.header):
            return False
    except (UsageError, DataError):
        return False
    return not lost_objects(workspace.store, [name for row in version.rows for name in row.objects])


def _is_of_its_prior(instance: Instance, workspace: Workspace, header: VersionHeader) -> bool:
    """Whether a version has the settings that come with its prior by now, where another stage made that."""
    assert isinstance(instance.settings, PurifySettings)
    asked, made = asked_purifier(instance.settings), instance.inputs["prior"]
    if not made or isinstance(made[0], str) or not learned(asked.identity):
        return True
    identity = with_prior(asked, _at(made[0], workspace)).identity
    return atomic.canonical_json(identity) == atomic.canonical_json(header.purifier)


def _is_evaluated(instance: Instance, workspace: Workspace) -> bool:
    """A row for each victim in each form is there, and the sheet where one was asked for."""
    assert isinstance(instance.settings, EvaluateSettings)
    try:
        rows = read_rows(instance, workspace)
    except (OSError, ValueError, LookupError, TypeError):
        return False
    wanted = len(instance.inputs["victim"]) * (1 + len(instance.inputs["purified"]))
    return len(rows) == wanted and (is_png(sheet_file(instance, workspace)) or not instance.settings.sheet)


def _remove_folder(instance: Instance, workspace: Workspace) -> None:
    shutil.rmtree(instance.path(workspace), ignore_errors=True)


def _remove_tag(instance: Instance, workspace: Workspace) -> None:
    """The version stays: it says itself what it was made from."""
    Versions(workspace.store).remove_tag(*_reference(instance, workspace))


def _remove_rows(instance: Instance, workspace: Workspace) -> None:
    rows_file(instance, workspace).unlink(missing_ok=True)


def _needs_prior(settings: PurifySettings) -> bool:
    return asked_purifier(settings).needs_prior


def _maybe(_settings: object) -> None:
    return None


_MATERIAL = ("trigger_image", "trigger_array", "cover_rate")
"""Settings of which the staged options tell, where they matter."""


def _poison_fingerprint(settings: PoisonSettings) -> dict[str, Any]:
    """The attack as it will be, wherever its parameters come from."""
    attack = requested_attack(settings)
    return {
        **settings.model_dump(mode="json", include=settings.told() - {"profile", "skip_unreadable", *_MATERIAL}),
        "train_transform": attack.train_transform,
        **requested_options(settings, attack, requested_material(settings)),
        **({"skip_unreadable": True} if settings.skip_unreadable else {}),
    }


_UNUSED: dict[str, Any] = {"libraries": {}, "seed": None, "precision": None, "tiling": None}
"""What an identity leaves out where it does not matter, so that stages keep the names that they have always had."""


def _purify_fingerprint(settings: PurifySettings) -> dict[str, Any]:
    """The purifier's identity, but for its prior, which is an input."""
    return {**_UNUSED, **asked_purifier(settings).identity, "splits": list(settings.splits)}


STAGE_TYPES: dict[str, StageType] = {
    "poison": StageType(
        PipelinePoison,
        {"source": Input()},
        _poison,
        _is_staged,
        _poison_fingerprint,
        _remove_folder,
        ("seed",),
    ),
    "train victim": StageType(
        VictimSettings,
        {
            "data": Input(("poison",)),
            "purified": Input(("purify",), path=False, needed=_maybe),
            "start": Input(("train victim",), needed=_maybe, later=True),
        },
        _train_victim,
        lambda instance, workspace: is_trained(instance.path(workspace), open_victim),
        lambda settings: training_fingerprint(settings.config()),
        _remove_folder,
        ("set", "seed"),
    ),
    "train prior": StageType(
        PriorSettings,
        {"source": Input()},
        _train_prior,
        lambda instance, workspace: is_trained(instance.path(workspace), open_prior),
        lambda settings: training_fingerprint(settings.config()),
        _remove_folder,
        ("set", "seed"),
    ),
    "purify": StageType(
        PurifySettings,
        {"data": Input(("poison",)), "prior": Input(("train prior",), needed=_needs_prior)},
        _purify,
        _is_purified,
        _purify_fingerprint,
        _remove_tag,
        ("seed",),
    ),
    "evaluate": StageType(
        EvaluateSettings,
        {
            "victim": Input(("train victim",), many=True),
            "data": Input(("poison",)),
            "purified": Input(("purify",), path=False, many=True, needed=_maybe),
        },
        _evaluate,
        _is_evaluated,
        lambda _: {"measures": MEASURES_VERSION},
        _remove_rows,
    ),
}


def rows_file(instance: Instance, workspace: Workspace) -> Path:
    """Where an evaluation keeps its rows."""
    return instance.path(workspace).with_name(f"{instance.slug}.json")


def sheet_file(instance: Instance, workspace: Workspace) -> Path:
    """Where an evaluation's contact sheet lies."""
    return instance.path(workspace).with_name(f"{instance.slug}.png")


def read_rows(instance: Instance, workspace: Workspace) -> list[dict[str, Any]]:
    """The rows of a finished evaluation: for each victim without a defence, then with each purified version."""
    rows: list[dict[str, Any]] = json.loads(rows_file(instance, workspace).read_bytes())["rows"]
    return rows


def _text(item: Instance | str) -> str:
    assert isinstance(item, str)  # its input rule takes no stage
    return item


def _at(item: Instance | str, workspace: Workspace) -> storage.StoragePath:
    return item.path(workspace) if isinstance(item, Instance) else storage.storage_path(item)


def _reference(item: Instance | str, workspace: Workspace) -> tuple[str, str]:
    """Dataset and tag of what a purify stage makes; the dataset is named after its folder."""
    assert isinstance(item, Instance)  # its input rule takes no path
    return _at(item.one("data"), workspace).resolve().name, f"{item.stage}-{item.slug}"
