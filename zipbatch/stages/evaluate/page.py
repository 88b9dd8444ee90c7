"""The page of an evaluation: its rows, and what only the run that made them knows."""

from __future__ import annotations

from collections.abc import Sequence

from zipbatch.checkpoints import VictimFolder
from zipbatch.report.page.evaluation import at_a_glance, chart, findings, short, table
from zipbatch.report.page.model import Confusion, Fact, Facts, Page, Provenance
from zipbatch.report.page.results import shown_rows
from zipbatch.report.units import plain_text
from zipbatch.results import EvaluationRow
from zipbatch.stages.evaluate.confusions import confusions
from zipbatch.stages.evaluate.gallery import form_names, gallery
from zipbatch.stages.evaluate.plan import EvaluatePlan
from zipbatch.stages.evaluate.tally import Tally
from zipbatch.stages.purify.identity import describe
from zipbatch.store import VersionHeader

_LISTED = 64
"""Shards whose digests are told."""
Tallies = Sequence[Sequence[Tally]]


def evaluation_page(
    plan: EvaluatePlan, rows: Sequence[EvaluationRow], tallies: Tallies, provenance: Provenance
) -> Page:
    """What ``evaluate`` found, with pictures.

    Args:
        plan: what was measured.
        rows: what ``evaluate`` returned.
        tallies: what they are made of, ``[v][f]``.
        provenance: the command, and what there is to say of the run.

    Raises:
        DataError: an image cannot be read, or the victim does not answer.
    """
    shown, dataset = shown_rows(rows), plan.job.dataset
    attack = dataset.manifest.attack.name if dataset.manifest else None
    victims = ", ".join(short(victim.source.label) for victim in plan.victims)
    return Page(
        title=f"{victims} on {dataset.name}",
        about=_about(attack, plan),
        findings=findings(shown),
        figures=at_a_glance(shown),
        tables=[table(shown)],
        charts=chart(shown),
        galleries=[gallery(plan)],
        confusions=_confusions(plan, tallies),
        provenance=Provenance(provenance.command, [*provenance.groups, *origin(plan, rows)]),
    )


def _about(attack: str | None, plan: EvaluatePlan) -> str:
    versions, shards = len(plan.versions), len(plan.tasks)
    purified = f" and in {versions} purified version{'s' if versions > 1 else ''}" if versions else ""
    what = f"Clean images and ones with the trigger of {attack}, out" if attack else "Suspect images, out"
    count = f"{shards} shard{'s' if shards > 1 else ''}"
    return f"{what} of {plan.job.data_label}, {count}, as they came{purified}."


def _confusions(plan: EvaluatePlan, tallies: Tallies) -> list[Confusion]:
    short = form_names(plan)
    titles = ["no defence", *(short[describe(version.header.purifier)] for version in plan.versions)]
    several = len(plan.victims) > 1
    return [
        confusion
        for victim, forms in zip(plan.victims, tallies, strict=True)
        for confusion in confusions(
            victim.source.name if several else "",
            list(zip(titles, forms, strict=True)),
            classes=victim.num_classes,
            names=plan.job.dataset.classes,
        )
    ]


def origin(plan: EvaluatePlan, rows: Sequence[EvaluationRow]) -> list[Facts]:
    """Where the data, the victims and the purified versions come from: names, digests, seeds."""
    return [
        _data(plan),
        Facts("Victims", [fact for victim in plan.victims for fact in victim_facts(victim.source)]),
        *(
            _version(name, version.header, next((row for row in rows if row.purified == name), None))
            for name, version in zip(plan.job.purified, plan.versions, strict=True)
        ),
    ]


def _data(plan: EvaluatePlan) -> Facts:
    dataset = plan.job.dataset
    facts = [
        Fact(name="data", text=plan.job.data_label, code=True),
        Fact(name="shards", text=f"{len(plan.tasks)}: {', '.join(dict.fromkeys(task.split for task in plan.tasks))}"),
    ]
    if dataset.manifest is not None:
        attack = dataset.manifest.attack
        facts.append(Fact(name="attack", text=f"{attack.name} {plain_text(attack.params)}"))
        facts.append(Fact(name="seed", text="none" if dataset.manifest.seed is None else str(dataset.manifest.seed)))
        if attack.target is not None:
            facts.append(Fact(name="target class", text=dataset.manifest.classes[attack.target]))
    digests = [f"{task.name} {task.sha256}" for task in plan.tasks[:_LISTED] if task.sha256]
    if digests:
        more = len(plan.tasks) - len(digests)
        facts.append(
            Fact(name="sha256", text="\n".join([*digests, *([f"and {more} more shards"] if more else [])]), code=True)
        )
    return Facts("Data", facts)


def victim_facts(source: object) -> list[Fact]:
    """What a victim is known by."""
    facts = [Fact(name="victim", text=str(getattr(source, "label", source)), code=True)]
    if isinstance(source, VictimFolder):
        facts.append(Fact(name="architecture", text=source.spec.arch))
        if source.sha256:
            facts.append(Fact(name="sha256 of weights", text=source.sha256, code=True))
    return facts


def _version(name: str, header: VersionHeader, row: EvaluationRow | None) -> Facts:
    facts = [
        Fact(name="version", text=f"{header.dataset}@{header.version}", code=True),
        Fact(name="purifier", text=describe(header.purifier)),
        *([] if header.trial is None else [Fact(name="trial", text=f"{header.trial_text}")]),
        Fact(name="seed", text="none" if header.seed is None else str(header.seed)),
        Fact(name="made", text=f"{header.started}, by zipbatch {header.zipbatch}"),
    ]
    if header.prior_sha256:
        facts.append(Fact(name="sha256 of the prior", text=header.prior_sha256, code=True))
    if row is not None and row.calls_most is not None:
        facts.append(Fact(name="network calls", text=f"{_from_to(row.calls_least, row.calls_most)} an image"))
    if row is not None and row.seconds_per_image is not None:
        facts.append(Fact(name="seconds", text=f"{row.seconds_per_image:.3g} an image on {row.seconds_on}"))
    return Facts(f"Purified version {name}", facts)


def _from_to(least: int | None, most: int) -> str:
    return str(most) if least == most else f"{least} to {most}"
