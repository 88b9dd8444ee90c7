"""Tables for papers and pages."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from tests.report.test_page import HOSTILE, purified, read, row
from zipbatch.report.page.evaluation import chart
from zipbatch.report.page.model import Cell, Chart, Column, Table
from zipbatch.report.page.table_files import latex, markdown
from zipbatch.report.tradeoff import tradeoff_figure

TABLE = Table(
    title="Measures",
    columns=[Column("defence"), Column("CA", numeric=True)],
    rows=[
        [Cell(text="a|b_c > 50 % & $x$"), Cell(text=".871", value=0.871, more="±.021")],
        [Cell(text=HOSTILE + "\n# title"), Cell(text="–")],
    ],
    notes=["± is half the interval.\nOf 9 images."],
)


def test_markdown_keeps_a_row_on_a_line_and_names_as_text():
    head, rule, first, second, _, note = markdown(TABLE).splitlines()
    assert (head, rule) == ("| defence | CA |", "| --- | ---: |")
    assert first == r"| a\|b\_c \> 50 % & $x$ | .871 ±.021 |"
    assert "<script>" not in second and r"\<script\>" in second and "\x1b" not in second
    assert note == "± is half the interval. Of 9 images."


def test_latex_escapes_what_it_would_read():
    text = latex(TABLE)
    assert r"a$|$b\_c $>$ 50 \% \& \$x\$ & .871 $\pm$.021 \\" in text
    assert r"\begin{tabular}{lr}" in text and text.count(r"\\" + "\n") == 3
    assert r"\{\{ 7*7 \}\}" in text
    assert text.splitlines()[-1] == "% ± is half the interval. Of 9 images."


@pytest.mark.parametrize(("suffix", "begin"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")])
def test_a_figure_is_what_its_suffix_says_and_the_same_again(suffix: str, begin: bytes):
    (drawn,) = chart(read(row(), purified("_hidden $x k=1"), purified("jpeg quality=60", asr=0.4)))
    data = tradeoff_figure(drawn, suffix=suffix)
    assert data.startswith(begin) and data == tradeoff_figure(drawn, suffix=suffix)
    if suffix == ".png":
        assert Image.open(io.BytesIO(data)).size[0] > 500


def test_a_figure_needs_points():
    with pytest.raises(ValueError, match="points"):
        tradeoff_figure(Chart(title="title", x_title="x", y_title="y", points=[]))
