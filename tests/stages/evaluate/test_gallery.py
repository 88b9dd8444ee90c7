"""Pictures of evaluations in reports: which are chosen, and what is said of each."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.making import CLASSES, sample, write_shard, write_victim, zipbatch
from tests.report.test_page import Tree
from zipbatch.datasets import open_dataset
from zipbatch.report.page.model import Gallery
from zipbatch.stages.evaluate.confusions import MOST_CLASSES, confusions
from zipbatch.stages.evaluate.gallery import gallery
from zipbatch.stages.evaluate.job import EvaluateJob
from zipbatch.stages.evaluate.plan import plan_evaluate
from zipbatch.stages.evaluate.tally import CLEAN, Tally
from zipbatch.stages.evaluate.victims import ask, find_victim
from zipbatch.store import Store


@pytest.fixture(scope="module")
def store(staged: Path, prior: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The staged test splits purified twice."""
    folder = tmp_path_factory.mktemp("stores") / "pur"
    for tag, settings in {"jpeg": ("--set", "quality=10"), "blur": ()}.items():
        ran = zipbatch("purify", staged, "--purifier", tag, *settings, "--tag", tag, "--store", folder)
        assert ran.code == 0, ran.err
    return folder


def shown(victim: Path, data: Path, store: Path | None = None, *purified: str) -> Gallery:
    request = EvaluateJob(
        victims=(find_victim(str(victim)),),
        dataset=open_dataset([str(data)]),
        data_label=str(data),
        purified=purified,
        store=None if store is None else Store(store),
    )
    return gallery(plan_evaluate(request))


def test_every_form_of_an_image_stands_side_by_side(victim: Path, staged: Path, store: Path):
    found = shown(victim, staged, store, "tiny-badnets@jpeg", "tiny-badnets@blur")
    assert [tab.title for tab in found.tabs] == [
        "Triggered and fixed",
        "Triggered and left",
        "Clean and broken",
        "Random",
    ]
    for item in found.tabs[-1].items:
        titles = [picture.title for picture in item.pictures]
        assert titles in (
            ["clean", "poisoned", "jpeg", "blur", "difference ×4"],
            ["suspect", "jpeg", "blur", "difference ×4"],
        )
        *asked, difference = item.pictures
        assert difference.score is None and difference.about.endswith("of 255 levels on average")
        for picture in asked:
            assert picture.answer in CLASSES and picture.score is not None
            assert 1 / len(CLASSES) <= picture.score <= 1
    for item in found.tabs[1].items:
        assert item.pictures[-2].mark == "target"
    for item in found.tabs[0].items:
        assert item.pictures[-2].mark == "right" and item.pictures[1].mark == "target"


def test_an_image_is_not_twice_in_a_tab_and_random_is_the_same_again(victim: Path, staged: Path, store: Path):
    one, other = (shown(victim, staged, store, "tiny-badnets@blur") for _ in range(2))
    assert [item.key for item in one.tabs[-1].items] == [item.key for item in other.tabs[-1].items]
    for tab in one.tabs[:-1]:
        assert len({item.key for item in tab.items}) == len(tab.items)


def test_without_a_purified_version_the_tabs_say_so(victim: Path, staged: Path):
    titles = [tab.title for tab in shown(victim, staged).tabs]
    assert titles == ["Triggered and taken for the target", "Random"]


def test_bare_shards_have_no_triggers_to_speak_of(victim: Path, tmp_path: Path):
    write_shard(tmp_path / "in.tar", [sample(f"<b>{i}</b>", None, seed=i) for i in range(9)])
    assert [tab.title for tab in shown(victim, tmp_path / "in.tar").tabs] == ["Random"]
    purify = ("purify", tmp_path / "in.tar", "--purifier", "blur", "--store", tmp_path / "pur", "--name", "in")
    assert zipbatch(*purify).code == 0
    out = tmp_path / "r.html"
    asked = ("evaluate", victim, "--data", tmp_path / "in.tar", "--purified", "in", "--store", tmp_path / "pur")
    ran = zipbatch(*asked, "--report", out, "--json")
    assert ran.code == 0, ran.err
    tree = Tree(out.read_text("utf-8"))
    text = {part.strip() for part in tree.text}
    assert {"Answer changed", "Random", "Answers before and after", "<b>3</b>"} <= text
    assert tree.of("b") == []


def test_several_victims_each_have_their_confusion(victim: Path, staged: Path, store: Path, tmp_path: Path):
    other = write_victim(tmp_path / "other", seed=5)
    out = tmp_path / "r.html"
    asked = ("evaluate", victim, other, "--data", staged, "--purified", "tiny-badnets@blur", "--store", store)
    ran = zipbatch(*asked, "--report", out)
    assert ran.code == 0, ran.err
    text = {part.strip() for part in Tree(out.read_text("utf-8")).text}
    assert {"Confusion, clean images (untrained)", "Confusion, clean images (other)"} <= text


def test_of_many_classes_those_are_shown_that_are_mistaken_most():
    before, after = Tally(classes=100), Tally(classes=100)
    before.confusion = {CLEAN: Counter({(i, i): 5 for i in range(100)})}
    after.confusion = {CLEAN: Counter({(i, i): 5 for i in range(100)}) + Counter({(42, 7): 3, (99, 7): 2})}
    forms = [("no defence", before), ("blur", after)]
    (found,) = confusions("", forms, classes=100, names=[f"class {i}" for i in range(100)])
    assert len(found.classes) == MOST_CLASSES and {"class 7", "class 42", "class 99"} <= set(found.classes)
    row, column = found.classes.index("class 42"), found.classes.index("class 7")
    assert found.matrices[1].counts[row][column] == 3 and found.matrices[0].counts[row][column] == 0
    assert "of 100 classes" in found.about


@pytest.mark.parametrize(
    ("scores", "share"),
    [
        ([[0.1, 0.7, 0.2]], 0.7),
        ([[0.0, np.log(3.0), 0.0]], 0.6),
        ([[-np.inf, 0.0, -np.inf]], 1.0),
        ([[np.inf, np.inf, 0.0]], 0.5),
        ([[0.25, 0.74, 0.0]], 0.74),
        ([[1.0000004, -2e-7, -2e-7]], 1.0),
        ([[0.6, 0.7, 0.0]], np.exp(0.7) / (np.exp(0.7) + np.exp(0.6) + 1)),
        ([[1, 2, 1]], np.exp(2) / (np.exp(2) + 2 * np.exp(1))),
    ],
)
def test_a_score_is_a_share_of_1_whatever_the_victim_gives(scores: list[list[float]], share: float, victim: Path):
    class Fixed:
        def classify(self, images: np.ndarray) -> np.ndarray:
            return np.array(scores)

    answers, shares = ask(find_victim(str(victim)), Fixed(), torch.zeros((1, 3, 4, 4), dtype=torch.uint8), classes=3)
    assert answers.tolist() == [int(np.argmax(scores[0]))]
    assert shares.tolist() == pytest.approx([share])
