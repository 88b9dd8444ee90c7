"""``zipbatch audit``: is a victim backdoored, and by which images? Told from its answers alone, without labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from zipbatch.errors import UsageError, WorkFailed
from zipbatch.metrics import FALSE_ALARMS, Audit
from zipbatch.metrics import audit as judge
from zipbatch.metrics.strength import OUTLIER, SURE
from zipbatch.report.page.model import Gallery
from zipbatch.results import AuditVerdict, FormRow, ImageRow
from zipbatch.stages.audit.gallery import audit_gallery, form_titles
from zipbatch.stages.audit.job import AuditJob
from zipbatch.stages.audit.sense import Twice, asked_twice, check_sensible, check_steady
from zipbatch.stages.evaluate.answers import Answers, Asking, Report
from zipbatch.stages.evaluate.victims import class_name, classes_of
from zipbatch.store import Store


@dataclass(frozen=True, kw_only=True)
class AuditResult:
    """What was answered, what that says, what was answered when it was asked again, and pictures where they were asked
    for.
    """

    job: AuditJob
    answers: Answers
    audit: Audit
    twice: Twice
    gallery: Gallery | None = None

    def class_name(self, index: int) -> str:
        """What a report calls a class."""
        return class_name(index, classes_of(self.job.victim, self.job.dataset))

    @property
    def target(self) -> str | None:
        """The class that is accused."""
        return self._named(self.audit.judgement.suspect)

    @property
    def driven(self) -> str | None:
        """The class that stands out without being accused."""
        return self._named(self.audit.judgement.driven)

    def _named(self, index: int | None) -> str | None:
        return None if index is None else self.class_name(index)

    @property
    def suspects(self) -> int:
        """How many images are."""
        return int(self.audit.suspects.sum())


def audit(job: AuditJob, *, report: Report = lambda _progress: None, pictures: bool = False) -> AuditResult:
    """Purify the images, unless they are, ask the victim about all of them, and judge.

    Raises:
        UsageError: data that does not fit the victim or the prior, versions that are not of it, or workers elsewhere
            that would need a store.
        WorkFailed: images could not be purified or measured, or the victim's answers cannot be relied on.
    """
    if job.store is not None:
        return _judged(job, job.store, report, pictures=pictures)
    if job.workers.address is not None:
        raise UsageError("‹address› (or RAY_ADDRESS): workers elsewhere need a ‹store› that they can reach")
    with TemporaryDirectory(prefix="zipbatch-audit-") as folder:
        return _judged(job, Store(Path(folder) / "pur"), report, pictures=pictures)


def _judged(job: AuditJob, store: Store, report: Report, *, pictures: bool) -> AuditResult:
    asking = Asking(
        victim=job.victim,
        dataset=job.dataset,
        data_label=job.data_label,
        store=store,
        workers=job.workers,
        batch_size=job.batch_size,
        keep=job.store is not None,
    ).checked(job.purified)
    if job.purified:
        answers = asking.answers_on(job.purified, report)
    else:
        answers = asking.answers([spec for _, spec in job.purifiers], job.forms, report)
    twice = _relied_on(job, asking, answers)
    found = judge(
        *(answers.forms[0], answers.forms[1:]), classes=answers.classes, share=job.share, shares=answers.shares[0]
    )
    gallery = None
    if pictures and answers.plan is not None:
        gallery = audit_gallery(answers.plan, answers, found, form_titles(job.forms, answers))
    return AuditResult(job=job, answers=answers, audit=found, twice=twice, gallery=gallery)


def _relied_on(job: AuditJob, asking: Asking, answers: Answers) -> Twice:
    """What the victim answers the second time; what it has answered is kept only if it can be relied on."""
    kept = asking.kept()
    twice = asked_twice(answers, kept)
    try:
        check_sensible(job.victim.label, answers, partial(class_name, classes=classes_of(job.victim, job.dataset)))
        check_steady(job.victim.label, twice)
    except WorkFailed:
        if kept is not None and answers.plan is not None:
            for task, digest in zip(answers.plan.tasks, answers.digests, strict=True):
                kept.forget(task, digest)
        raise
    return twice


def audit_report(result: AuditResult) -> AuditVerdict:
    """The verdict, with what it goes by."""
    found, job, (before, *after) = result.audit, result.job, result.answers.forms
    images = len(before)
    return AuditVerdict(
        victim=job.victim.label,
        data=job.data_label,
        forms=[
            FormRow(form=name, flip_rate=float((form != before).mean()) if images else None)
            for name, form in zip(job.forms, after, strict=True)
        ],
        images=images,
        quarantined=result.answers.quarantined,
        verdict=found.finding,
        target=result.target,
        target_index=found.judgement.suspect,
        suspects=result.suspects,
        triggered=round(found.judgement.triggered, 1),
        deviations=round(found.judgement.sigmas, 2),
        deviations_needed=OUTLIER,
        false_alarms=FALSE_ALARMS,
        least_found=found.least if result.target is None and result.driven is None else None,
        share=job.share,
        flip_rate=found.flip_rate if images else None,
        driven=result.driven,
        sureness=None if found.judgement.sureness is None else round(found.judgement.sureness, 3),
        sureness_needed=SURE,
        answers=result.answers.forms.size,
        reused=result.answers.reused,
        asked_twice=result.twice.asked,
        changed=result.twice.share,
    )


def image_rows(result: AuditResult) -> Iterator[ImageRow]:
    """Each image, in the order of the data: what the victim answered, and how much it looks triggered."""
    found, (before, *_, after) = result.audit, result.answers.forms
    places = ((shard, key) for shard, keys in result.answers.shards for key in keys)
    for number, (shard, key) in enumerate(places):
        yield ImageRow(
            key=key,
            shard=shard,
            score=round(float(found.scores[number]), 4),
            before=result.class_name(int(before[number])),
            after=result.class_name(int(after[number])),
            moved=int(found.moved[number]),
            suspect=bool(found.suspects[number]),
        )
