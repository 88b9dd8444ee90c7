"""Cover images, attacks on some classes alone, and triggers that differ between training and test, as they are staged
and measured.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from tests.attacks.stamping import stamp
from tests.making import files_below, write_source, write_victim, zipbatch
from tests.stages.poison.test_poison import labels_of, of_source, samples_of, stage, trigger_of
from zipbatch.attacks import get_attack
from zipbatch.datasets import open_dataset
from zipbatch.stages.poison.request import PoisonRequest
from zipbatch.stages.poison.run import poison
from zipbatch.stages.train.data import load_split

TACT = {"source_classes": "1", "cover_classes": "2"}


def shuffled(count: int) -> list[int]:
    order = list(range(count))
    random.Random(1234).shuffle(order)
    return order


@pytest.mark.parametrize("attack", ["badnets", "adaptive-blend", "adaptive-patch"])
def test_cover_is_stamped_as_poison_is_and_keeps_its_label(source: Path, tmp_path: Path, attack: str):
    dataset = stage(source, tmp_path / "out", attack, target=0, poison_rate=0.3, cover_rate=0.25)
    kind, trigger, order = get_attack(attack), trigger_of(tmp_path / "out"), shuffled(24)
    poisoned, covers = set(order[:7]), set(order[7:13])
    for i, ((shard, clean), s) in enumerate(zip(of_source(source, "train"), samples_of(dataset, "train"), strict=True)):
        expected = {"label": clean.label(), "original_label": clean.label(), "poisoned": False, "source": shard}
        if i in poisoned:
            expected |= {"label": 0, "poisoned": True}
        if i in covers:
            expected |= {"cover": True}
        assert (s.key, s.metadata(), s.label()) == (clean.key, expected, expected["label"])
        assert s.stamped() == (i in poisoned | covers)
        stamped = stamp(kind, clean.image()[None], trigger, keys=[clean.key], training=True)[0]
        assert np.array_equal(s.image(), stamped if s.stamped() else clean.image())
    for (_, clean), s in zip(of_source(source, "test"), samples_of(dataset, "test_poisoned"), strict=True):
        assert np.array_equal(s.image(), stamp(kind, clean.image()[None], trigger)[0])
    assert dataset.manifest is not None
    recorded = dataset.manifest.attack
    assert (recorded.poisoned_train_samples, recorded.cover_train_samples, recorded.cover_rate) == (7, 6, 0.25)
    loaded, truth = load_split(dataset.split("train")), labels_of(source, "train")
    assert int(loaded.stamped.sum()) == 13
    assert int((loaded.labels != loaded.original_labels).sum()) == sum(truth[i] != 0 for i in poisoned)


def test_training_and_test_differ_where_the_attack_says_so(source: Path, tmp_path: Path):
    dataset = stage(source, tmp_path / "out", "adaptive-blend", poison_rate=1.0, cover_rate=0)
    changed = {}
    for split, origin in (("train", "train"), ("test_poisoned", "test")):
        pairs = zip(of_source(source, origin), samples_of(dataset, split), strict=True)
        changed[split] = np.mean([(clean.image() != s.image()).any(axis=2).mean() for (_, clean), s in pairs])
    assert changed["train"] < 0.55
    assert changed["test_poisoned"] > 0.9


def test_without_any_cover_nothing_tells_of_it(source: Path, tmp_path: Path):
    stage(source, tmp_path / "none", cover_rate=0)
    stage(source, tmp_path / "default")
    assert files_below(tmp_path / "none") == files_below(tmp_path / "default")
    content = json.loads((tmp_path / "none" / "manifest.json").read_text())
    told = {*content["options"], *content["attack"]}
    assert not {"cover_rate", "cover_train_samples", "source_classes"} & told


def test_cover_of_clean_labels_is_of_other_classes(source: Path, tmp_path: Path):
    dataset = stage(source, tmp_path / "out", clean_label=True, target=2, poison_rate=0.1, cover_rate=0.5)
    covers = [s for s in samples_of(dataset, "train") if s.metadata().get("cover")]
    assert len(covers) == 12
    assert all(s.label() != 2 for s in covers)


def test_backdoorbenchs_draw_has_cover_of_what_is_left(source: Path, tmp_path: Path):
    dataset = stage(source, tmp_path / "out", profile="backdoorbench", seed=0, poison_rate=0.5, cover_rate=0.5)
    flags = [(s.metadata()["poisoned"], s.metadata().get("cover", False)) for s in samples_of(dataset, "train")]
    assert sorted(flags) == [(False, True)] * 12 + [(True, False)] * 12


def test_source_classes_alone_are_poisoned_and_tested(source: Path, tmp_path: Path):
    """Of 24 training images 8 are of each class. Shard N of the poisoned test holds twins of shard N of the test."""
    options = {"params": TACT, "poison_rate": 0.2, "cover_rate": 0.1}
    dataset = stage(source, tmp_path / "out", "tact", **options)
    for s in samples_of(dataset, "train"):
        meta = s.metadata()
        assert not meta["poisoned"] or (meta["original_label"], meta["label"]) == (1, 0)
        assert not meta.get("cover") or (meta["original_label"], meta["label"]) == (2, 2)
    assert sum(s.metadata()["poisoned"] for s in samples_of(dataset, "train")) == 4
    assert sum(s.metadata().get("cover", False) for s in samples_of(dataset, "train")) == 2
    tested = samples_of(dataset, "test_poisoned")
    assert [s.key for s in tested] == [s.key for _, s in of_source(source, "test") if s.label() == 1]
    assert {(s.original_label(), s.label(), s.metadata()["poisoned"]) for s in tested} == {(1, 0, True)}
    assert [len(samples_of(dataset, split)) for split in ("test", "test_poisoned")] == [12, 4]
    for shard in dataset.split("test_poisoned"):
        twin = tmp_path / "out" / shard.name.replace("test_poisoned", "test")
        own = {s.key for s in samples_of(open_dataset([str(shard.path)]), shard.split)}
        assert own < {s.key for s in samples_of(open_dataset([str(twin)]), "test")}
    assert dataset.manifest is not None
    assert dataset.manifest.attack.source_classes == (1,)
    assert zipbatch("poison", source, "--attack", "badnets", "--out", tmp_path / "out").code == 2


def test_shards_without_any_image_of_the_source_classes_are_left_out(tmp_path: Path):
    source = write_source(tmp_path / "in", counts={"test": 12})
    request = PoisonRequest(
        source=source, attack="tact", out=tmp_path / "out", params=TACT, splits=("test",), samples_per_shard=1
    )
    names = [shard.name for shard in poison(request).dataset.split("test_poisoned")]
    assert names == [f"test_poisoned-{i:06d}.tar" for i in (1, 4, 7, 10)]


def test_a_victim_is_measured_on_the_source_classes(source: Path, tmp_path: Path):
    """ASR, PA and RA count the stamped images, all of the source class; FPR the clean images of that class, so that
    the two compare; purified forms and their clean twins are found for those that there are.
    """
    data, store = tmp_path / "data", tmp_path / "pur"
    params = ["--param", "source_classes=1", "--param", "cover_classes=2", "--poison-rate", 0.2, "--cover-rate", 0.1]
    ran = zipbatch("poison", source, "--attack", "tact", *params, "--samples-per-shard", 5, "--out", data)
    assert ran.code == 0, ran.err
    assert "4 training images are poisoned" in ran.out
    assert "2 others are cover: stamped, labels true" in ran.out
    assert "only images of the source classes are poisoned, and are in test_poisoned: 1" in ran.out
    assert zipbatch("purify", data, "--preset", "jpeg", "--store", store).code == 0
    victim = write_victim(tmp_path / "victim")
    measured = ["--data", data, "--purified", "data", "--store", store, "--sheet", tmp_path / "sheet.png"]
    ran = zipbatch("evaluate", victim, *measured, "--json")
    assert ran.code == 0, ran.err
    for row in ran.json["rows"]:
        counts = {name: row[f"n_{name}"] for name in ("ca", "asr", "pa", "ra", "fpr")}
        assert counts == {"ca": 12, "asr": 4, "pa": 4, "ra": 4, "fpr": 4}
    assert ran.json["rows"][1]["psnr_poisoned_db"] > 10
    assert (tmp_path / "sheet.png").is_file()


REFUSED: dict[str, tuple[list[object], str]] = {
    "too much cover": (
        ["--attack", "badnets", "--poison-rate", 0.5, "--cover-rate", 0.75],
        "--cover-rate 0.75 of 24 training images is 18, but only 12 that may be cover are left; lower --cover-rate",
    ),
    "cover above 1": (["--attack", "badnets", "--cover-rate", 1.5], "1.5"),
    "too few of the source class": (
        ["--attack", "tact", "--param", "cover_classes=2", "--poison-rate", 0.5],
        "is 12, but the source classes (1) have only 8; lower --poison-rate to 0.3333 or less, or name more",
    ),
    "a source class that is none": (
        ["--attack", "tact", "--param", "cover_classes=2", "--param", "source_classes=3"],
        "source_classes 3 is not one of the 3 classes 0..2; name others with --param source_classes=",
    ),
    "a cover class that is none": (["--attack", "tact"], "cover_classes 5 is not one of the 3 classes 0..2"),
    "the target as a source class": (
        ["--attack", "tact", "--param", "cover_classes=2", "--target", 1],
        "class 1 is both the target and a source class",
    ),
    "clean labels of other classes": (
        ["--attack", "tact", "--param", "cover_classes=2", "--clean-label"],
        "attack tact poisons images of other classes than the target: no --clean-label",
    ),
    "none to be tested": (
        ["--attack", "tact", "--param", "cover_classes=2", "--split", "test", "--limit", 1],
        "none of the 1 images of test is of the source classes (1)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_requests_leave_nothing(source: Path, tmp_path: Path, case: str):
    options, named = REFUSED[case]
    ran = zipbatch("poison", source, "--out", tmp_path / "out", *options)
    assert (ran.code, ran.out) == (2, "")
    assert named in ran.err
    assert "Traceback" not in ran.err
    assert list(tmp_path.iterdir()) == []


def test_classes_by_name_are_those_of_that_number(source: Path, tmp_path: Path):
    flags = ("--attack", "tact", "--target", "ant", "--split", "test", "--out", tmp_path / "d")
    by_name = zipbatch(
        "poison", source, *flags, "--param", "source_classes=bee", "--param", "cover_classes=cow", "--json"
    )
    assert by_name.code == 0, by_name.err
    attack = by_name.json["manifest"]["attack"]
    assert (attack["params"]["source_classes"], attack["params"]["cover_classes"], attack["target"]) == ([1], [2], 0)
    again = zipbatch("poison", source, *flags, "--param", "source_classes=1", "--param", "cover_classes=2", "--json")
    assert again.json["reused"]


@pytest.mark.parametrize(
    ("params", "words"),
    [
        (
            ("source_classes=bees", "cover_classes=cow"),
            "bees is not the name of a class (did you mean 'bee'?)",
        ),
        (
            ("source_classes=yak", "cover_classes=cow"),
            "source_classes yak is not the name of a class; there are: ant",
        ),
        (("source_classes=bee,1", "cover_classes=cow"), "must be different classes"),
        (("source_classes=bee", "cover_classes=1"), "class 1 cannot be both a source class and a cover class"),
        (("source_classes=bee,", "cover_classes=cow"), "a class is a number of 0 or more, or a name"),
    ],
)
def test_a_class_name_that_does_not_do(source: Path, tmp_path: Path, params: tuple[str, ...], words: str):
    given = [word for one in params for word in ("--param", one)]
    ran = zipbatch("poison", source, "--attack", "tact", "--split", "test", "--out", tmp_path / "d", *given)
    assert (ran.code, words in ran.err) == (2, True), ran.err
