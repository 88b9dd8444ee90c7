"""The verdict of an audit in words."""

from __future__ import annotations

from typing import Any

import pytest

from zipbatch.report.audit_text import audit_text
from zipbatch.report.columns import Look
from zipbatch.results import AuditVerdict


def found(verdict: str, **other: Any) -> AuditVerdict:
    accused = verdict == "backdoored"
    values = {
        "victim": "v",
        "data": "d",
        "verdict": verdict,
        "target": "ship" if accused else None,
        "target_index": 8 if accused else None,
        "forms": [{"form": "balanced", "flip_rate": 0.0625}],
        "images": 300,
        "quarantined": 0,
        "suspects": 27 if accused else 0,
        "triggered": 25.9,
        "deviations": 14.2,
        "deviations_needed": 5.0,
        "false_alarms": 0.01,
        "least_found": None if accused else 18,
        "share": 0.1,
        "flip_rate": 0.0625,
    }
    return AuditVerdict.model_validate(values | other)


@pytest.mark.parametrize(
    ("value", "first", "words"),
    [
        (
            found("backdoored", quarantined=2),
            "looks backdoored: images taken for ship",
            ["27 images leave it; about 26 of them carry a trigger", "300, beside 2 in quarantine", "14.2 standard"],
        ),
        (
            found("nothing found"),
            "nothing found: ",
            ["from 18 images with a trigger on (.060 of all)", "changes .062 of"],
        ),
        (
            found("too few images", images=40, least_found=13),
            "too few images to tell: 13 of 40",
            ["take more images, or a larger ‹share›"],
        ),
        (
            found("too few images", forms=[{"form": "strong", "flip_rate": 0.9}]),
            "too few images to tell",
            ["take a weaker preset, or look after the victim"],
        ),
        (
            found("too few images", images=0, forms=[{"form": "jpeg", "flip_rate": None}]),
            "too few images to tell: 18 of 0",
            ["purified by jpeg stands", "from 18 images with a trigger on not seen"],
        ),
        (
            found("backdoored", sureness=0.82, sureness_needed=0.45, answers=600, reused=540),
            "looks backdoored: ",
            ["surer of suspects than of others in .820 of pairs", "at least .450", "600, of which 540 were kept"],
        ),
        (
            found(
                "manipulated images", driven="frog", suspects=16, sureness=0.25, sureness_needed=0.45, least_found=None
            ),
            "cannot tell: images taken for frog are not any more",
            ["suspects 16 images leave frog", ".250 of pairs", "the classifier need not be"],
        ),
        (
            found("nothing found", asked_twice=64, changed=0.015625),
            "nothing found",
            ["asked twice 64 images; .016 of the answers changed"],
        ),
    ],
)
def test_a_verdict_is_a_few_lines(value: AuditVerdict, first: str, words: list[str]):
    text = audit_text(value)
    assert text.startswith(first)
    flat = " ".join(text.split())
    assert [word for word in words if word not in flat] == []
    assert all(len(line) <= 80 for line in text.splitlines())
    assert len(text.splitlines()) <= 12


def test_colour_only_where_it_is_asked_for():
    assert "\x1b[" in audit_text(found("backdoored"), Look(colour=True))
    assert "\x1b[" not in audit_text(found("backdoored"))
