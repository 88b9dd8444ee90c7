"""A report in a real browser: no errors, no requests, sorting, tabs, phones, print, and axe's accessibility rules.

Skipped where playwright, a Chromium or, for its own test, axe-core is missing. ``CHROMIUM`` names a browser that is not
on the path, ``AXE`` the file ``axe.min.js`` that is not in node_modules/.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.report.test_page import HOSTILE, gallery, page, purified, read, row
from zipbatch.report.page.evaluation import at_a_glance, chart, findings, table
from zipbatch.report.page.html import write_page
from zipbatch.report.page.model import Confusion, Fact, Facts, Item, Matrix, Picture, Provenance, Tab
from zipbatch.report.page.model import Gallery as PageGallery

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
ROOT = Path(__file__).parents[2]
CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
AXE = Path(os.environ.get("AXE") or ROOT / "node_modules/axe-core/axe.min.js")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium, or CHROMIUM=…")
PHONE = {"width": 390, "height": 844}


def answered() -> PageGallery:
    picture = np.full((32, 32, 3), 90, np.uint8)
    marks = [("right", "cat"), ("target", "dog"), ("wrong", HOSTILE), ("unknown", "cow")]
    pictures = [
        Picture(title=f"form {mark}", pixels=picture, answer=answer, mark=mark, score=0.987) for mark, answer in marks
    ]  # type: ignore[arg-type]
    return PageGallery("More pictures", [Tab("One", [Item("k" * 200, pictures, "true class: cat")])])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with everything that a page can have."""
    rows = read(
        row(), purified("blur blur:2", ca=0.41, asr=0.93), purified("repaint S=20 > jpeg q=6 > zip k=1" + " y" * 40)
    )
    names = [HOSTILE, *(f"class {i}" for i in range(9))]
    counts = np.arange(100).reshape(10, 10).tolist()
    matrices = [Matrix("no defence", counts), Matrix("zip", counts)]
    whole = page(
        title="A victim with a name that is as long as names of folders tend to be_" + "x" * 60,
        findings=[*findings(rows), *findings(read(row(asr=0.02), purified(n_asr=4, asr_ci95=[0, 0.6])))],
        figures=at_a_glance(rows[:2]),
        tables=[table(rows)],
        charts=chart(rows),
        galleries=[gallery(6), answered()],
        confusions=[Confusion(title="Confusion", classes=names, matrices=matrices)],
        provenance=Provenance(
            "zipbatch evaluate " + "a-long-path/" * 30,
            [Facts("Data", [Fact(name="sha256", text="0" * 64 + "\n" + "1" * 64, code=True)])],
        ),
    )
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_page(path, whole)
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as found:
        browser = found.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(browser: Any, path: Path, **settings: Any) -> Any:
    """The page, and in ``page.said`` what its console said and what it asked a network for."""
    view = browser.new_context(**settings).new_page()
    view.said = []
    view.on("console", lambda message: view.said.append(message.text))
    view.on("pageerror", lambda error: view.said.append(str(error)))
    view.on("dialog", lambda dialog: (view.said.append(dialog.message), dialog.dismiss()))
    view.on("request", lambda request: request.url.startswith(("file:", "data:")) or view.said.append(request.url))
    view.goto(path.as_uri())
    return view


def visible_panels(view: Any) -> int:
    return view.locator("#pictures-1 .panel").evaluate_all(
        "panels => panels.filter(p => p.offsetParent !== null).length"
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [{"width": 1200, "height": 900}, PHONE], ids=["wide", "phone"])
def test_no_errors_no_requests_and_nothing_sticks_out(
    browser: Any, written: Path, scheme: str, viewport: dict[str, int]
):
    view = opened(browser, written, color_scheme=scheme, viewport=viewport)
    assert view.said == []
    assert view.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert view.locator(".plot").evaluate_all("plots => plots.filter(p => p.checkVisibility()).length") == 1


def test_a_click_on_a_header_sorts_by_numbers_and_what_is_unknown_goes_last(browser: Any, written: Path):
    view = opened(browser, written)
    titles = view.locator("table.data thead th").all_inner_texts()

    def column(name: str) -> list[str]:
        at = titles.index(name) + 1
        return [
            text.split("\n")[0] for text in view.locator(f"table.data tbody tr > :nth-child({at})").all_inner_texts()
        ]

    view.get_by_role("button", name="CA", exact=True).click()
    assert column("CA") == [".410", ".871", ".871"]
    view.get_by_role("button", name="flips", exact=True).click()
    assert column("flips")[-1] == "–"
    view.get_by_role("button", name="flips", exact=True).press("Enter")
    assert column("flips")[-1] == "–"
    header = view.locator("table.data thead th", has_text="flips")
    assert header.get_attribute("aria-sort") == "descending"
    assert view.locator("[aria-sort]").count() == 1


def test_tabs_go_by_the_keyboard(browser: Any, written: Path):
    view = opened(browser, written)
    assert visible_panels(view) == 1
    tabs = view.locator("#pictures-1 [role=tab]")
    tabs.first.focus()
    for key, wanted in (("ArrowRight", 1), ("End", 2), ("ArrowRight", 0), ("ArrowLeft", 2), ("Home", 0)):
        view.keyboard.press(key)
        selected = tabs.evaluate_all("all => all.map(tab => tab.getAttribute('aria-selected'))")
        assert selected.index("true") == wanted
        assert view.evaluate("document.activeElement.getAttribute('aria-selected')") == "true"
    assert visible_panels(view) == 1


def test_paper_and_browsers_without_scripts_show_everything(browser: Any, written: Path):
    view = opened(browser, written)
    view.emulate_media(media="print")
    assert visible_panels(view) == 3
    assert not view.locator("nav").is_visible()
    assert len(view.pdf(format="A4")) > 10_000
    bare = opened(browser, written, java_script_enabled=False)
    assert bare.locator("#pictures-1 .panel h3").all_inner_texts() == ["Fixed", "Left", "Broken"]
    assert all(panel.is_visible() for panel in bare.locator("#pictures-1 .panel").all())


def test_the_command_can_be_copied(browser: Any, written: Path):
    view = opened(browser, written, permissions=["clipboard-read", "clipboard-write"])
    view.get_by_role("button", name="Copy").click()
    view.get_by_role("button", name="Copied").wait_for()
    assert view.evaluate("navigator.clipboard.readText()").startswith("zipbatch evaluate a-long-path/")


@pytest.mark.skipif(not AXE.is_file(), reason="no axe-core: npm install axe-core, or AXE=…/axe.min.js")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [{"width": 1200, "height": 900}, PHONE], ids=["wide", "phone"])
def test_axe_finds_nothing(browser: Any, written: Path, scheme: str, viewport: dict[str, int]):
    view = opened(browser, written, color_scheme=scheme, viewport=viewport)
    found = view.evaluate(f"{AXE.read_text('utf-8')}; axe.run()")
    assert [(rule["id"], rule["nodes"][0]["html"][:200]) for rule in found["violations"]] == []
    assert len(found["passes"]) > 20
