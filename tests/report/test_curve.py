"""The picture of CA and ASR against strength."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from zipbatch.report.curve import StrengthLine, strength_curve


def line(name: str, ca: list[float], asr: list[float], exponents: list[float]) -> StrengthLine:
    around = [(value - 0.01, value + 0.01) for value in ca]
    return StrengthLine(
        name=name,
        exponents=exponents,
        ca=ca,
        ca_ci95=around,
        asr=asr,
        asr_ci95=[(max(0, a - 0.01), a + 0.01) for a in asr],
        undefended_ca=0.9,
    )


def picture(lines: list[StrengthLine]) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(strength_curve("curve", lines))).convert("RGB"))


def test_a_curve_shows_its_lines_whatever_order_their_points_have():
    first = line("badnets", [0.7, 0.8, 0.85], [0.0, 0.01, 0.3], [3, 10, 30])
    shuffled = line("badnets", [0.85, 0.7, 0.8], [0.3, 0.0, 0.01], [30, 3, 10])
    assert np.array_equal(picture([first]), picture([shuffled]))
    other = line("blended", [0.6, 0.7, 0.8], [0.0, 0.0, 0.1], [3, 10, 30])
    colours = {tuple(c) for c in picture([first, other]).reshape(-1, 3)}
    assert {(31, 119, 180), (255, 127, 14)} <= colours, "matplotlib's first two colours"


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="lines with points"):
        strength_curve("curve", [])
    with pytest.raises(ValueError, match="lines with points"):
        strength_curve("curve", [line("badnets", [], [], [])])
