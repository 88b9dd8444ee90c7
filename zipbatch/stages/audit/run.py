"""``zipbatch audit``: is a victim backdoored, and by which images? Told from its answers alone, without labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from zipbatch.cluster import Workers
from zipbatch.datasets import ShardDataset
from zipbatch.errors import UsageError
from zipbatch.metrics import FALSE_ALARMS, Audit
from zipbatch.metrics import audit as judge
from zipbatch.metrics.strength import OUTLIER
from zipbatch.report.page.model import Gallery
from zipbatch.stages.audit.gallery import audit_gallery, form_titles
from zipbatch.stages.evaluate.answers import Answers, Asking, Report
from zipbatch.stages.evaluate.victims import class_name, classes_of
from zipbatch.stages.purify.spec import PurifierSpec
from zipbatch.store import Store
from zipbatch.victims import VictimSource

IMAGE_COLUMNS = ("key", "shard", "score", "before", "after", "moved", "suspect")


@dataclass(frozen=True)
class AuditRequest:
    """Whom to audit on which images, all of ``dataset``.

    Attributes:
        purified: versions that exist in the store, ``NAME[@TAG]``, weakest first; else there are ``purifiers``.
        purifiers: with which to purify the images, by name, weakest first.
        share: of images with the trigger which must not be missed for nothing to be found, 0 to 1.
        store: of the versions, or where purified images are kept; None for as long as the audit takes.
    """

    victim: VictimSource
    dataset: ShardDataset
    data_label: str
    purified: tuple[str, ...] = ()
    purifiers: tuple[tuple[str, PurifierSpec], ...] = ()
    share: float = 0.1
    store: Store | None = None
    workers: Workers = Workers()
    batch_size: int = 32

    @property
    def forms(self) -> tuple[str, ...]:
        """What the user calls the ways in which images are purified."""
        return self.purified or tuple(name for name, _ in self.purifiers)


@dataclass(frozen=True)
class AuditResult:
    """What was answered, what that says, and pictures of it where they were asked for."""

    request: AuditRequest
    answers: Answers
    audit: Audit
    gallery: Gallery | None = None

    def class_name(self, index: int) -> str:
        """What a report calls a class."""
        return class_name(index, classes_of(self.request.victim, self.request.dataset))

    @property
    def target(self) -> str | None:
        """The class that is accused."""
        suspect = self.audit.judgement.suspect
        return None if suspect is None else self.class_name(suspect)

    @property
    def suspects(self) -> int:
        """How many images are."""
        return int(self.audit.suspects.sum())


def audit(request: AuditRequest, *, report: Report = lambda _progress: None, pictures: bool = False) -> AuditResult:
    """Purify the images, unless they are, ask the victim about all of them, and judge.

    Raises:
        UsageError: data that does not fit the victim or the prior, versions that are not of it, or workers elsewhere
            that would need a store.
        WorkFailed: images could not be purified or measured.
    """
    if request.store is not None:
        return _judged(request, request.store, report, pictures=pictures)
    if request.workers.address is not None:
        raise UsageError("--address (or RAY_ADDRESS): workers elsewhere need a --store that they can reach")
    with TemporaryDirectory(prefix="zipbatch-audit-") as folder:
        return _judged(request, Store(Path(folder) / "pur"), report, pictures=pictures)


def _judged(request: AuditRequest, store: Store, report: Report, *, pictures: bool) -> AuditResult:
    asking = Asking(
        request.victim, request.dataset, request.data_label, store, request.workers, request.batch_size
    ).pinned()
    asking.check(request.purified)
    if request.purified:
        answers = asking.answers_on(request.purified, report)
    else:
        answers = asking.answers([spec for _, spec in request.purifiers], request.forms, report)
    found = judge(answers.forms[0], answers.forms[1:], classes=answers.classes, share=request.share)
    gallery = (
        audit_gallery(answers.plan, answers, found, form_titles(request.forms, answers))
        if pictures and answers.plan
        else None
    )
    return AuditResult(request, answers, found, gallery)


def audit_report(result: AuditResult) -> dict[str, Any]:
    """The verdict as plain data, with what it goes by."""
    found, request, (before, *after) = result.audit, result.request, result.answers.forms
    images = len(before)
    return {
        "victim": request.victim.label,
        "data": request.data_label,
        "forms": [
            {"form": name, "flip_rate": float((form != before).mean()) if images else None}
            for name, form in zip(request.forms, after, strict=True)
        ],
        "images": images,
        "quarantined": result.answers.quarantined,
        "verdict": found.finding,
        "target": result.target,
        "target_index": found.judgement.suspect,
        "suspects": result.suspects,
        "triggered": round(found.judgement.triggered, 1),
        "deviations": round(found.judgement.sigmas, 2),
        "deviations_needed": OUTLIER,
        "false_alarms": FALSE_ALARMS,
        "least_found": found.least if result.target is None else None,
        "share": request.share,
        "flip_rate": found.flip_rate if images else None,
    }


def image_rows(result: AuditResult) -> Iterator[dict[str, Any]]:
    """Each image, in the order of the data: what the victim answered, and how much it looks triggered."""
    found, (before, *_, after) = result.audit, result.answers.forms
    places = ((shard, key) for shard, keys in result.answers.shards for key in keys)
    for number, (shard, key) in enumerate(places):
        yield {
            "key": key,
            "shard": shard,
            "score": round(float(found.scores[number]), 4),
            "before": result.class_name(int(before[number])),
            "after": result.class_name(int(after[number])),
            "moved": int(found.moved[number]),
            "suspect": bool(found.suspects[number]),
        }
