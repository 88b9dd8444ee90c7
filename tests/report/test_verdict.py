"""What is left of an attack, in words."""

from __future__ import annotations

from typing import Any

import pytest

from tests.results.making import evaluation_row
from zipbatch.metrics import Share
from zipbatch.report.verdict import MARGIN, verdict
from zipbatch.results import EvaluationRow


def row(asr: Share, fpr: Share) -> EvaluationRow:
    found: dict[str, Any] = {}
    for name, share in (("asr", asr), ("fpr", fpr)):
        found |= {name: share.value, f"n_{name}": share.n, f"{name}_ci95": share.interval()}
    return evaluation_row(**found)


def finding(asr: Share, fpr: Share) -> str:
    found = verdict(row(asr, fpr))
    assert found is not None
    return found.finding


def test_what_equals_the_plain_errors_is_said_so():
    found = verdict(row(Share(63, 9000), Share(72, 9000)))
    assert found is not None
    assert found.text == "what is left of the attack (ASR .007) equals the plain errors (FPR .008)"


@pytest.mark.parametrize("n", [1, 5, 20, 47, 100])
@pytest.mark.parametrize("hits", [0, 1])
def test_a_few_images_never_show_that_two_shares_are_equal(n: int, hits: int):
    found = verdict(row(Share(hits, n), Share(hits, n)))
    assert found is not None
    assert found.finding == "too few"
    assert "too few images to tell" in found.text
    assert "equals" not in found.text


@pytest.mark.parametrize("n", range(10, 5000, 490))
@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5, 1.0])
def test_equal_leaves_no_room_for_an_attack_and_overlap_decides(n: int, share: float):
    fpr = Share(n // 100, n)
    asr = Share(round(share * n), n)
    (asr_low, asr_high), (fpr_low, fpr_high) = asr.interval(), fpr.interval()
    overlap = asr_low <= fpr_high and fpr_low <= asr_high
    if finding(asr, fpr) == "nothing left":
        assert asr_high - fpr_low <= MARGIN or asr_high < fpr_low
    assert (finding(asr, fpr) == "something left") == (asr_low > fpr_high)
    assert overlap or finding(asr, fpr) != "too few"


def test_without_both_measures_there_is_no_verdict():
    assert verdict(row(Share(), Share(1, 900))) is None
    assert verdict(row(Share(1, 900), Share())) is None
