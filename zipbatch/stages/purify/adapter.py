"""``run: purify`` in a pipeline."""

from __future__ import annotations

from typing import Any

from zipbatch import atomic
from zipbatch.datasets import open_dataset
from zipbatch.errors import DataError, UsageError
from zipbatch.stages.adapter import Input, Instance, Report, StageType, Workspace, place_of, reference_of
from zipbatch.stages.purify.identity import learned
from zipbatch.stages.purify.job import PurifyJob
from zipbatch.stages.purify.plan import plan_purify
from zipbatch.stages.purify.publish import check_tagged
from zipbatch.stages.purify.request import PurifySettings
from zipbatch.stages.purify.resolve import asked_purifier, with_prior
from zipbatch.stages.purify.run import purify
from zipbatch.store import VersionHeader, lost_objects

_UNUSED: dict[str, Any] = {"libraries": {}, "seed": None, "precision": None, "tiling": None}
"""What an identity leaves out where it does not matter, so that stages keep the names that they have always had."""


def _purify(instance: Instance, workspace: Workspace, report: Report) -> None:
    settings: PurifySettings = instance.settings
    dataset, tag = reference_of(instance, workspace)
    prior = place_of(instance.one("prior"), workspace) if instance.inputs["prior"] else None
    job = PurifyJob(
        dataset=open_dataset([str(place_of(instance.one("data"), workspace))], name=dataset),
        spec=with_prior(asked_purifier(settings), prior),
        store=workspace.store,
        workers=workspace.workers,
        settings=settings,
        tag=tag,
    )
    summary = purify(plan_purify(job), on_progress=lambda p: report(p.shown(instance.label)))
    check_tagged(summary, dataset, tag)


def _is_purified(instance: Instance, workspace: Workspace) -> bool:
    """Its version reads, and all its objects are there: what 'zipbatch store verify --repair' removed is made anew."""
    dataset, tag = reference_of(instance, workspace)
    try:
        if workspace.store.versions.tags.read(dataset, tag) is None:
            return False
        version = workspace.store.versions.read(f"{dataset}@{tag}")
        if not _is_of_its_prior(instance, workspace, version.header):
            return False
    except (UsageError, DataError):
        return False
    return not lost_objects(workspace.store, [name for row in version.rows for name in row.objects])


def _is_of_its_prior(instance: Instance, workspace: Workspace, header: VersionHeader) -> bool:
    """Whether a version has the settings that come with its prior by now, where another stage made that."""
    settings: PurifySettings = instance.settings
    asked, made = asked_purifier(settings), instance.inputs["prior"]
    if not made or isinstance(made[0], str) or not learned(asked.identity):
        return True
    identity = with_prior(asked, place_of(made[0], workspace)).identity
    return atomic.canonical_json(identity) == atomic.canonical_json(header.purifier)


def _remove_tag(instance: Instance, workspace: Workspace) -> None:
    """The version stays: it says itself what it was made from."""
    workspace.store.versions.tags.remove(*reference_of(instance, workspace))


def _needs_prior(settings: PurifySettings) -> bool:
    return asked_purifier(settings).needs_prior


def _purify_fingerprint(settings: PurifySettings) -> dict[str, Any]:
    """The purifier's identity, but for its prior, which is an input."""
    return {**_UNUSED, **asked_purifier(settings).identity, "splits": list(settings.splits)}


PURIFY = StageType(
    settings=PurifySettings,
    inputs={"data": Input(kinds=("poison",)), "prior": Input(kinds=("train prior",), needed=_needs_prior)},
    run=_purify,
    is_done=_is_purified,
    fingerprint=_purify_fingerprint,
    discard=_remove_tag,
    seed=("seed",),
)
