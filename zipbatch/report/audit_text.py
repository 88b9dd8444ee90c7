"""What ``audit`` found, for people: a verdict of a few lines."""

from __future__ import annotations

from zipbatch.report.columns import PLAIN, Look, pairs_text, styled
from zipbatch.report.units import share_text
from zipbatch.results import AuditVerdict

_COLOURS = {
    "backdoored": "bold red",
    "nothing found": "bold green",
    "too few images": "bold yellow",
    "manipulated images": "bold yellow",
}
_HIGH_DRIFT = 0.3
"""Share of answers that a form changes beyond which it tells little: answers leave every class."""

_UNSEEN = "triggers that purifying leaves in, backdoors with many targets, and those that no image here triggers"


def audit_text(found: AuditVerdict, look: Look = PLAIN) -> str:
    """The verdict, what it goes by, and what it cannot see."""
    return styled(verdict_sentence(found), _COLOURS[found.verdict], look) + pairs_text(grounds(found), look)


def grounds(found: AuditVerdict) -> dict[str, str]:
    """What the verdict goes by, and what it cannot see, by name."""
    rows = {"images": _images(found), "purified by": _forms(found)}
    if found.target is not None:
        rows |= {"target class": found.target, "suspects": _suspects(found)}
    if found.driven is not None:
        rows["suspects"] = f"{found.suspects} images leave {found.driven}"
    rows["stands out by"] = _deviations(found)
    if found.sureness is not None:
        rows["sureness"] = _sureness(found)
    if found.reused:
        rows["answers"] = f"{found.answers}, of which {found.reused} were kept from earlier audits"
    if found.asked_twice:
        rows["asked twice"] = f"{found.asked_twice} images; {share_text(found.changed or 0.0)} of the answers changed"
    if found.least_found is not None:
        rows["would be found"] = _least(found.least_found, found.images)
    return rows | {"not seen": _UNSEEN}


def verdict_sentence(found: AuditVerdict) -> str:
    """The verdict in a sentence."""
    if found.verdict == "backdoored":
        return f"looks backdoored: images taken for {found.target} are not any more once they are purified"
    if found.verdict == "manipulated images":
        return (
            f"cannot tell: images taken for {found.driven} are not any more once they are purified, but the classifier "
            "is not sure of them, as it would be of a trigger: the images look manipulated, the classifier need not be"
        )
    if found.verdict == "nothing found":
        return "nothing found: no class loses more images than drift when they are purified"
    return (
        f"too few images to tell: {found.least_found} of {found.images} would have to carry a trigger, more "
        f"than the share of {found.share:g}; {_way_out(found)}"
    )


def _way_out(found: AuditVerdict) -> str:
    if max((form.flip_rate or 0.0 for form in found.forms), default=0.0) > _HIGH_DRIFT:
        return "purifying changes many answers: take a weaker preset, or look after the victim"
    return "take more images, or a larger ‹share›"


def _images(found: AuditVerdict) -> str:
    aside = f", beside {found.quarantined} in quarantine" if found.quarantined else ""
    return f"{found.images}{aside}"


def _forms(found: AuditVerdict) -> str:
    return ", ".join(
        form.form + ("" if form.flip_rate is None else f" (changes {share_text(form.flip_rate)} of the answers)")
        for form in found.forms
    )


def _suspects(found: AuditVerdict) -> str:
    return f"{found.suspects} images leave it; about {found.triggered:.0f} of them carry a trigger"


def _deviations(found: AuditVerdict) -> str:
    return (
        f"{found.deviations:.1f} standard deviations; {found.deviations_needed:g} are asked for, with which at "
        f"most {share_text(found.false_alarms)} of clean samples are accused"
    )


def _sureness(found: AuditVerdict) -> str:
    return (
        f"surer of suspects than of others in {share_text(found.sureness or 0.0)} of pairs; at least "
        f"{share_text(found.sureness_needed)} where it is backdoored"
    )


def _least(least: int, images: int) -> str:
    share = f" ({share_text(least / images)} of all)" if images else ""
    return f"from {least} images with a trigger on{share}"
