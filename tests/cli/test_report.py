"""``--report`` on the embedded sample, and ``zipbatch report`` on what commands wrote."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
from pathlib import Path

import click
import pytest

from tests.making import Ran, stage_sample, zipbatch
from tests.report.test_page import Tree, cells
from zipbatch.cli.main import cli
from zipbatch.cli.page_option import this_run
from zipbatch.cli.run_context import RunContext

LIMIT = 48
SUFFIXES = (".html", ".csv", ".md", ".tex", ".png", ".pdf", ".svg")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a few images of the shipped sample, staged with BadNets and purified twice."""
    root = tmp_path_factory.mktemp("sample")
    stage_sample(root / "shards", limit=LIMIT)
    for preset in ("blur", "balanced"):
        given = (
            ("--prior", "embedded", "--preset", preset, "--keep-masks")
            if preset == "balanced"
            else ("--preset", preset)
        )
        ran = zipbatch("purify", root / "shards", *given, "--store", root / "pur", "--tag", preset, "--device", "cpu")
        assert ran.code == 0, ran.err
    return root


@pytest.fixture(scope="module")
def evaluated(sample: Path) -> Ran:
    """``evaluate --report --json`` of both versions; the report is ``sample / "report.html"``."""
    versions = [word for tag in ("blur", "balanced") for word in ("--purified", f"shards@{tag}")]
    asked = ("evaluate", "embedded:badnets", "--data", sample / "shards", "--store", sample / "pur", *versions)
    ran = zipbatch(*asked, "--report", sample / "report.html", "--json", "--device", "cpu")
    assert ran.code == 0, ran.err
    (sample / "rows.json").write_text(ran.out)
    return ran


def test_evaluate_leaves_a_report_that_says_what_the_json_says(sample: Path, evaluated: Ran):
    html = (sample / "report.html").read_text("utf-8")
    assert f"report: {sample / 'report.html'}" in evaluated.err
    rows = evaluated.json["rows"]
    values = [[cell.get("data-value") for cell in row] for row in cells(html)]
    assert [float(row[1] or "nan") for row in values] == [row["ca"] for row in rows]
    assert [float(row[2] or "nan") for row in values] == [row["asr"] for row in rows]
    tree = Tree(html)
    text = [part.strip() for part in tree.text]
    assert {"Triggered and fixed", "Triggered and left", "Clean and broken", "Random"} <= set(text)
    assert {"clean", "poisoned", "repainted", "blur", "difference ×4", "Confusion, clean images"} <= set(text)
    assert len(html.encode()) < 2_000_000
    versions = {row["version"] for row in rows if row["version"]}
    assert all(version in html for version in versions)
    assert len(re.findall(r"\b[0-9a-f]{64}\b", html)) >= 3


def test_confusion_counts_every_image_as_ca_does(sample: Path, evaluated: Ran):
    html = (sample / "report.html").read_text("utf-8")
    tables = re.findall(r'<table class="confusion">.*?</table>', html, re.DOTALL)
    assert len(tables) == 6
    for table, row in zip(tables, evaluated.json["rows"], strict=False):
        counts = [int(count) for count in re.findall(r'data-value="(\d+)"', table)]
        right = [int(count) for count in re.findall(r'class="same" data-value="(\d+)"', table)]
        assert sum(counts) == row["n_ca"] == LIMIT
        assert sum(right) / sum(counts) == row["ca"]


def test_the_command_of_a_report_makes_it_again(sample: Path, evaluated: Ran):
    html = (sample / "report.html").read_text("utf-8")
    command = "".join(Tree(re.findall(r'<pre class="command".*?</pre>', html, re.DOTALL)[0]).text)
    words = shlex.split(command)
    assert words[:3] == ["zipbatch", "evaluate", "embedded:badnets"]
    again = zipbatch(*words[1:])
    assert (again.code, again.json) == (0, evaluated.json)


def test_a_report_tells_no_password(monkeypatch: pytest.MonkeyPatch):
    words = ["zipbatch", "evaluate", "v", "--store", "s3://me:secret@host/pur", "--data", "a b@c.tar"]
    monkeypatch.setattr("sys.argv", words)
    with click.Context(cli, obj=RunContext()).scope():
        assert this_run().command == "zipbatch evaluate v --store s3://host/pur --data 'a b@c.tar'"


@pytest.mark.parametrize(("name", "wrong"), [("r.htm", "is written as .html"), ("no/r.html", "folder is not there")])
def test_a_report_that_cannot_be_is_told_before_any_work(sample: Path, name: str, wrong: str):
    ran = zipbatch("evaluate", "embedded:badnets", "--data", sample / "shards", "--report", sample / name)
    assert ran.code == 2 and wrong in ran.err
    assert "evaluating" not in ran.err


def test_results_become_what_the_suffix_says(sample: Path, evaluated: Ran, tmp_path: Path):
    outs = [tmp_path / f"out{suffix}" for suffix in SUFFIXES]
    ran = zipbatch("report", sample / "rows.json", *(word for out in outs for word in ("--out", out)))
    assert ran.code == 0, ran.err
    begins = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml", ".html": b"\n<!doctype html>", ".md": b"| defence"}
    for out in outs:
        data = out.read_bytes()
        assert data.lstrip().startswith(begins.get(out.suffix, data.lstrip()[:1]).lstrip()), out
    lines = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))
    rows = evaluated.json["rows"]
    assert [float(line["ca"]) for line in lines] == [row["ca"] for row in rows]
    assert [float(line["asr_ci95_high"]) for line in lines] == [row["asr_ci95"][1] for row in rows]
    html = (tmp_path / "out.html").read_text("utf-8")
    assert [float(cell[1]["data-value"] or "nan") for cell in cells(html)] == [row["ca"] for row in rows]
    assert (tmp_path / "out.tex").read_text().count(r"\\") == 1 + len(rows)


def test_two_files_make_one_table(sample: Path, evaluated: Ran, tmp_path: Path):
    other = json.loads((sample / "rows.json").read_text())
    for row in other["rows"]:
        row["data"] = "elsewhere/other"
    (tmp_path / "other.json").write_text(json.dumps(other))
    ran = zipbatch("report", sample / "rows.json", tmp_path / "other.json", "--out", tmp_path / "both.md")
    assert ran.code == 0, ran.err
    text = (tmp_path / "both.md").read_text()
    assert text.count("| other |") == 3 and text.startswith("| data | defence |")


@pytest.mark.parametrize(
    ("content", "out", "wrong"),
    [
        ('{"rows": []}', "r.html", "holds no row"),
        ("{", "r.html", "is no JSON"),
        ('{"verdict": 1}', "r.html", "holds no 'rows'"),
        ("[" * 100_000, "r.html", "is no JSON"),
        ('{"rows": []}', "r.jpg", "can be .html, .csv, .md, .tex, .png, .pdf, .svg"),
        ('{"rows": []}', "r", "can be .html"),
        ('{"rows": []}', "no/r.csv", "folder is not there"),
        (None, "r.csv", "no such file"),
    ],
)
def test_what_cannot_be_a_report_is_exit_2(tmp_path: Path, content: str | None, out: str, wrong: str):
    if content is not None:
        (tmp_path / "r.json").write_text(content)
    ran = zipbatch("report", tmp_path / "r.json", "--out", tmp_path / out)
    assert ran.code == 2 and wrong in ran.err, ran.err
    assert not (tmp_path / out).exists()


def test_audit_leaves_a_report_with_the_suspects(sample: Path, tmp_path: Path):
    versions = [word for tag in ("blur", "balanced") for word in ("--purified", f"shards@{tag}")]
    asked = ("audit", "embedded:badnets", "--data", sample / "shards", "--store", sample / "pur", *versions)
    rows_file = tmp_path / "rows.jsonl"
    ran = zipbatch(*asked, "--report", tmp_path / "audit.html", "--per-image", rows_file, "--json", "--device", "cpu")
    assert ran.code == 3, ran.err
    html = (tmp_path / "audit.html").read_text("utf-8")
    text = [part.strip() for part in Tree(html).text]
    assert f"looks backdoored: images taken for {ran.json['target']} are not any more once they are purified" in text
    assert {"Suspects", "Changed, no suspects", "Random", "as it came", "blur", "difference ×4"} <= set(text)
    rows = [json.loads(line) for line in rows_file.read_text().splitlines()]
    images = html.partition('<section id="table-2"')[2]
    shown = cells(images)
    assert len(shown) == len(rows) == 2 * LIMIT
    assert sorted(float(row[2]["data-value"] or "nan") for row in shown) == sorted(row["score"] for row in rows)
    best = max(rows, key=lambda row: row["score"])
    assert f"<code>{best['key']}</code>" in html


def test_an_audit_that_keeps_nothing_has_its_pictures_all_the_same(sample: Path, tmp_path: Path):
    asked = ("audit", "embedded:badnets", "--data", sample / "shards", "--preset", "blur", "--device", "cpu")
    ran = zipbatch(*asked, "--report", tmp_path / "audit.html")
    assert ran.code in {0, 3, 4}, ran.err
    assert len(Tree((tmp_path / "audit.html").read_text("utf-8")).of("img")) >= 3 * 16


def test_tune_leaves_a_report_of_what_it_tried(sample: Path, tmp_path: Path):
    asked = ("tune", "embedded:badnets", "--data", sample / "shards", "--prior", "embedded", "--store", sample / "pur")
    few = ("--guidance-exponent", 10, "--preset", "paper", "--split", "test", "--shards", 1)
    ran = zipbatch(*asked, *few, "--report", tmp_path / "tune.html", "--json", "--device", "cpu")
    assert ran.code == 0, ran.err
    html = (tmp_path / "tune.html").read_text("utf-8")
    rungs = ran.json["rungs"]
    values = [[cell.get("data-value") for cell in row] for row in cells(html)]
    assert [float(row[0] or "nan") for row in values] == [rung["guidance_exponent"] for rung in rungs]
    assert [None if row[2] is None else float(row[2]) for row in values] == [rung["residual"] for rung in rungs]
    assert "chosen" in html
