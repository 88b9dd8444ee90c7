"""Reports as one HTML file: what they say is what the rows say, whatever the rows hold."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zipbatch.errors import UsageError
from zipbatch.report.page.evaluation import at_a_glance, chart, findings, short_names, table
from zipbatch.report.page.from_results import ResultsFile, results_page
from zipbatch.report.page.html import check_page, page_html, write_page
from zipbatch.report.page.model import (
    Confusion,
    Fact,
    Facts,
    Finding,
    Gallery,
    Item,
    Matrix,
    Page,
    Picture,
    Provenance,
    Tab,
)
from zipbatch.report.page.pictures import BUDGET_BYTES, difference, inlined, share_of
from zipbatch.report.page.results import Shown, read_results, shown_rows
from zipbatch.results import EvaluationRow, PipelineRow, SeedRow

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7*7 }}\u202e\x1b[2J"
VOID = {"meta", "link", "img", "br", "hr", "input"}
MEASURES = ("ca", "asr", "fpr", "pa", "ra")


def row(**given: Any) -> dict[str, Any]:
    """A row of ``evaluate --json``."""
    shares = {"ca": 0.871234, "asr": 0.958, "fpr": 0.0153, "pa": 0.129, "ra": 0.0365}
    shares |= {"disrupted": 0.01, "collapsed": None}
    shares |= {name: given.pop(name) for name in list(given) if name in shares}
    told: dict[str, Any] = {"data": "shards/x", "victim": "victims/v", "attack": "badnets"}
    told |= dict.fromkeys(("purifier", "purified", "version", "settings"))
    told |= shares | {f"n_{name}": 900 for name in shares}
    told |= {f"{name}_ci95": None if v is None else [max(0, v - 0.02), min(1, v + 0.03)] for name, v in shares.items()}
    told |= dict.fromkeys(("psnr_clean_db", "ssim_clean", "psnr_poisoned_db", "ssim_poisoned", "flip_rate"))
    told |= {"n_flip": 0, "fled": {}, "der": None, "paired": None, "n_quarantined": 0, "n_unlabelled": 0}
    return told | {"unlabelled_reason": None} | given


def purified(settings: str = "zip k=1", **given: Any) -> dict[str, Any]:
    """A row of a purified form."""
    told: dict[str, Any] = {"purifier": settings.partition(" ")[0], "purified": "x@t", "version": "a" * 20}
    told |= {"settings": settings, "asr": 0.006, "fpr": 0.007, "pa": 0.86, "ra": 0.85, "collapsed": 0.031}
    told |= {"flip_rate": 0.49123, "der": 0.97, "psnr_poisoned_db": 30.81, "ssim_poisoned": 0.951}
    told |= {"seconds_per_image": 0.0381, "seconds_on": "cpu of a", "calls_least": 5, "calls_most": 7}
    return row(**{**told, **given})


def read(*rows: dict[str, Any]) -> list[Shown]:
    return shown_rows([(PipelineRow if "axes" in one else EvaluationRow).model_validate(one) for one in rows])


def page(**given: Any) -> Page:
    plain = Page(
        title="title",
        about="about",
        findings=[Finding(text="all is well", tone="good")],
        provenance=Provenance("zipbatch evaluate v", []),
    )
    return replace(plain, **given)


def gallery(count: int, *, size: int = 32, forms: int = 5, key: str = "key") -> Gallery:
    noise = np.random.default_rng(0)
    items = [
        Item(
            f"{key}{i}",
            [
                Picture(title=f"form {f}", pixels=noise.integers(0, 256, (size, size, 3)).astype(np.uint8))
                for f in range(forms)
            ],
        )
        for i in range(count)
    ]
    return Gallery("Pictures", [Tab("Fixed", items[::2]), Tab("Left", items[1::2]), Tab("Broken", [], "none")])


class Tree(HTMLParser):
    """Elements with their attributes, what text is in them, and whether every tag is closed."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), f"an attribute twice in {tag}"
        if tag not in VOID and not (self.get_starttag_text() or "").endswith("/>"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID and self.open and tag in self.open:
            assert self.open.pop() == tag
        elif tag not in {"path", "circle"}:
            raise AssertionError(f"</{tag}> closes nothing")

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.text.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def cells(html: str) -> list[list[dict[str, str | None]]]:
    """The attributes of the cells of each row of the first table."""
    body = re.findall(r"<tbody>.*?</tbody>", html, re.DOTALL)[0]
    rows = re.findall(r"<tr.*?</tr>", body, re.DOTALL)
    return [[a for t, a in Tree(f"<table>{one}</table>").elements if t in {"td", "th"}] for one in rows]


def test_every_number_of_the_table_is_the_rows_own():
    rows = [row(), purified("blur blur:2", ca=0.451, asr=0.0021), purified()]
    document = {"rows": rows}
    html = page_html(
        results_page([ResultsFile("r.json", "0" * 64, read_results(document, "r.json"))], page().provenance)
    )
    titles = [column.title for column in table(read(*rows)).columns]
    shown = cells(html)
    for name in (*MEASURES, "flips", "DER", "s/image", "PSNR dB", "SSIM", "calls"):
        field = {"flips": "flip_rate", "DER": "der", "s/image": "seconds_per_image", "PSNR dB": "psnr_poisoned_db"}
        field |= {"SSIM": "ssim_poisoned", "calls": "calls_most"}
        at = titles.index(name.upper() if name in MEASURES else name)
        for given, told in zip(shown, rows, strict=True):
            value = given[at].get("data-value")
            assert (None if value is None else float(value)) == told.get(field.get(name, name)), name
    text = "".join(Tree(html).text)
    assert ".871" in text and "±.025" in text
    points = [(p["data-x"], p["data-y"]) for p in Tree(html).of("path") if "data-x" in p]
    assert points[: len(rows)] == [(str(one["asr"]), str(one["ca"])) for one in rows]


def test_verdicts_are_those_of_the_table_on_stdout():
    told = findings(read(row(), purified(asr_ci95=[0.001, 0.02]), purified("blur blur:2", asr=0.9)))
    assert [(one.tone, one.who) for one in told] == [("good", "zip"), ("bad", "blur")]
    assert told[0].more == "CA .871 → .871, ASR .958 → .006"
    assert [(one.before, one.after) for one in at_a_glance(read(row(), purified()))][1] == (".958", ".006")


def test_without_labels_flips_are_told_and_nothing_is_drawn():
    bare = dict.fromkeys(MEASURES)
    nothing = {f"{name}_ci95": None for name in MEASURES} | {f"n_{name}": 0 for name in MEASURES}
    rows = read(row(**bare) | nothing, purified(**bare, fled={HOSTILE: 9}, collapsed=None) | nothing | {"der": None})
    assert chart(rows) == []
    assert "changes .491 of the answers; they leave" in findings(rows)[0].text
    assert "49" not in HOSTILE and "alert(1)" in page_html(page(findings=findings(rows), tables=[table(rows)]))


def test_names_in_data_are_text_and_nothing_else():
    rows = read(row(victim=HOSTILE, attack=HOSTILE), purified(HOSTILE, victim=HOSTILE, axes={HOSTILE: HOSTILE}))
    hostile = page(
        title=HOSTILE,
        about=HOSTILE,
        findings=[Finding(text=HOSTILE, tone="bad", who=HOSTILE, more=HOSTILE)],
        tables=[table(rows)],
        charts=chart(rows),
        galleries=[gallery(4, key=HOSTILE)],
        confusions=[Confusion(title=HOSTILE, classes=[HOSTILE, "b"], matrices=[Matrix(HOSTILE, [[1, 2], [3, 4]])])],
        provenance=Provenance(f"zipbatch {HOSTILE}", [Facts(HOSTILE, [Fact(name=HOSTILE, text=HOSTILE, code=True)])]),
    )
    html = page_html(hostile)
    tree = Tree(html)
    assert len(tree.of("script")) == 1
    assert all((source["src"] or "").startswith("data:image/") for source in tree.of("img"))
    assert not any(name.startswith("on") for _, attributes in tree.elements for name in attributes)
    assert "\x1b" not in html and "\u202e" not in html
    assert "{{ 7*7 }}" in "".join(tree.text)


def test_a_page_names_no_other_host_and_is_held_to_that():
    html = page_html(page(galleries=[gallery(4)], tables=[table(read(row(), purified()))], charts=chart(read(row()))))
    tree = Tree(html)
    for _, attributes in tree.elements:
        for name in ("src", "href", "action", "srcset", "poster", "data", "xlink:href"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#"))
    assert not re.search(r"https?:|@import|url\(", html)
    policy = next(m["content"] for m in tree.of("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert "default-src 'none'" in policy and "unsafe-inline'; script-src 'sha256-" in policy


def test_everything_is_there_without_scripts():
    html = page_html(page(galleries=[gallery(6)], tables=[table(read(row(), purified()))]))
    bare = re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)
    tree = Tree(bare)
    assert not any(
        "hidden" in attributes or "closed" in (attributes.get("class") or "") for _, attributes in tree.elements
    )
    assert {"Fixed", "Left", "Broken"} <= {text.strip() for text in tree.text}
    assert tree.of("button") == []


def test_what_a_screen_reader_needs():
    rows = read(row(), purified())
    confusion = Confusion(title="Confusion", classes=["a", "b"], matrices=[Matrix("no defence", [[1, 2], [3, 4]])])
    tree = Tree(
        page_html(page(galleries=[gallery(6)], tables=[table(rows)], charts=chart(rows), confusions=[confusion]))
    )
    assert all(image["alt"] for image in tree.of("img"))
    assert all(header.get("scope") in {"row", "col"} for header in tree.of("th"))
    assert [html["lang"] for html in tree.of("html")] == ["en"]
    ids = [attributes["id"] for _, attributes in tree.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = [attributes["aria-labelledby"] for _, attributes in tree.elements if "aria-labelledby" in attributes]
    assert set(named) <= set(ids)


@pytest.mark.parametrize(("size", "exact"), [(32, True), (300, False)])
def test_64_images_take_less_than_5_mb(size: int, exact: bool):
    """Of noise, which nothing makes smaller, in six forms each."""
    html = page_html(page(galleries=[gallery(64, size=size, forms=6)]))
    assert len(html.encode()) < 5_000_000
    assert ("shown smaller" in html) != exact
    assert len(Tree(html).of("img")) == 64 * 6


def test_small_pictures_keep_every_pixel():
    import base64

    from zipbatch.images import decode

    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    shown = inlined(picture, most_bytes=share_of(320))
    assert shown.exact and (shown.width, shown.height) == (32, 32)
    data = base64.b64decode(shown.source.partition(",")[2])
    assert (decode(data, "png") == picture).all()
    assert share_of(10_000) * 10_000 * 4 / 3 <= BUDGET_BYTES


def test_a_difference_is_shown_stronger_and_told_as_it_is():
    one, other = np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2, 3), np.uint8)
    other[0, 0] = 10
    other[1, 1] = 200
    shown, levels = difference(one, other)
    assert shown[0, 0].tolist() == [40] * 3 and shown[1, 1].tolist() == [255] * 3
    assert levels == pytest.approx(52.5)


def test_short_names_stay_apart():
    assert short_names(["zip k=1 S=20", "repaint t=1 > jpeg quality=60", "3x zip k=2"]) == {
        "zip k=1 S=20": "zip",
        "repaint t=1 > jpeg quality=60": "repaint > jpeg",
        "3x zip k=2": "3x zip",
    }
    assert short_names(["zip k=1", "zip k=2"]) == {"zip k=1": "zip k=1", "zip k=2": "zip k=2"}


def test_rows_over_seeds_have_their_deviations():
    told = {name: value for name, value in row(axes={"attack": "badnets"}).items() if not name.endswith("_ci95")}
    told |= {"seeds": [0, 1, 2], "n_seeds": 3, "seeds_of": ["poison"], "ca_sd": 0.0123, "asr_sd": None}
    told |= dict.fromkeys(("calls_least", "calls_most", "seconds_per_image", "seconds_on"))
    told |= {"purified_first": None, "purified_last": None, "findings": {"too few": 1}}
    del told["fled"]
    shown = shown_rows([SeedRow.model_validate(told)])
    titles = [column.title for column in table(shown).columns]
    cells = dict(zip(titles, table(shown).rows[0], strict=True))
    assert (cells["CA"].value, cells["CA"].more) == (0.871234, "±.012")
    assert (cells["ASR"].more, cells["seeds"].text) == ("", "3")
    assert "standard deviation" in table(shown).notes[0]
    assert findings(shown)[0].text.startswith("too few images to tell with 1 of 3 seeds")
    (drawn,) = chart(shown)
    assert drawn.points[0].y_ends == pytest.approx((0.871234 - 0.0123, 0.871234 + 0.0123))


def test_many_verdicts_open_on_demand():
    html = page_html(page(findings=[Finding(text=f"finding {i}") for i in range(20)]))
    assert "12 more verdicts" in html and "finding 19" in html


@pytest.mark.parametrize(
    ("document", "wrong"),
    [
        ([], "no 'rows'"),
        ({"rows": 3}, "no 'rows'"),
        ({"rows": ["x"]}, r"rows\.0: "),
        ({"rows": [row(), row() | {"ca": "high"}]}, r"rows\.1\.ca: "),
        ({"rows": [row() | {"asr_ci95": [1]}]}, r"rows\.0\.asr_ci95"),
        ({"rows": [{"victim": "v"}]}, r"rows\.0\.data: field required"),
        ({"rows": [], "failed": [1]}, "failed: "),
        ({"rows": [row()], "failed": {}}, r"rows\.0\.axes: field required"),
    ],
)
def test_what_is_no_result_is_named(document: object, wrong: str):
    with pytest.raises(UsageError, match=rf"r\.json.*{wrong}"):
        read_results(document, "r.json")


def test_where_a_page_may_be_written(tmp_path: Path):
    for bad in (tmp_path / "r.htm", tmp_path / "r.png", tmp_path / "none" / "r.html"):
        with pytest.raises(UsageError, match=re.escape(str(bad))):
            check_page(bad, "--report")
    write_page(check_page(tmp_path / "r.HTML", "--report"), page(title="\udcff é"))
    assert "é" in (tmp_path / "r.HTML").read_text("utf-8")
