"""Measures of victims whose answers are known beforehand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.making import CLASSES, IMAGE_SIZE, write_shard, write_source, write_victim, zipbatch
from tests.object_store import S3Path
from zipbatch import images
from zipbatch.checkpoints.victim import VictimSpec, save_victim
from zipbatch.shards import Sample
from zipbatch.storage import StoragePath
from zipbatch.victims import build_victim

TARGET = 1
ALWAYS = 2
MEASURES = ("ca", "asr", "fpr", "pa", "ra")


def write_known_victim(folder: Path, *, reds: bool = False, answer: int = ALWAYS) -> Path:
    """A ResNet-20 that always answers ``answer``, or with ``reds`` class 1 for red images and class 0 for grey ones."""
    half, quarter = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    network = build_victim("resnet20", num_classes=len(CLASSES), mean=half, std=quarter).network
    state = network.state_dict()
    for value in state.values():
        value.zero_()
    for name, value in state.items():
        if name.endswith("running_var"):
            value.fill_(1)
    if reds:  # channel 0 carries relu(red - green) through every block to the head
        state["conv1.weight"][0, 0, 1, 1], state["conv1.weight"][0, 1, 1, 1] = 1, -1
        state["bn1.weight"].fill_(1)
        for layer in ("layer2", "layer3"):
            state[f"{layer}.0.shortcut.0.weight"][0, 0, 0, 0] = 1
            state[f"{layer}.0.shortcut.1.weight"].fill_(1)
        state["linear.weight"][1, 0] = 10
        state["linear.bias"][0] = 0.5
    else:
        state["linear.bias"][answer] = 1
    network.load_state_dict(state)
    spec = VictimSpec(arch="resnet20", num_classes=len(CLASSES), image_size=IMAGE_SIZE, mean=half, std=quarter)
    save_victim(folder, spec, network, {"format_version": 1})
    return folder


@pytest.fixture(scope="module")
def constant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A victim that always answers class 2, which is not the target."""
    return write_known_victim(tmp_path_factory.mktemp("victims") / "constant")


@pytest.fixture(scope="module")
def red(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A victim that tells red images from grey ones."""
    return write_known_victim(tmp_path_factory.mktemp("victims") / "red", reds=True)


@pytest.fixture(scope="module", params=["disk", "s3"])
def store(staged: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> StoragePath:
    """The staged test splits purified in two ways, tagged ``blur`` and ``gray``."""
    folder: StoragePath = tmp_path_factory.mktemp("stores") / "pur"
    if request.param == "s3":
        request.getfixturevalue("s3")
        folder = S3Path.fresh()
    for tag, transform in (("blur", "blur:2"), ("gray", "gray")):
        ran = zipbatch(
            *("purify", staged, "--purifier", "blur", "--transform", transform, "--store", folder, "--tag", tag)
        )
        assert ran.code == 0, ran.err
    return folder


def evaluated(*arguments: object) -> list[dict[str, Any]]:
    """The rows of ``zipbatch evaluate``."""
    ran = zipbatch("evaluate", *arguments, "--json")
    assert ran.code == 0, ran.err
    return ran.json["rows"]


def colored(path: Path, colors: list[str]) -> Path:
    """An unlabelled shard of plain red or grey images."""
    rgb = {"red": (200, 60, 60), "grey": (90, 90, 90)}
    pixels = [np.full((IMAGE_SIZE, IMAGE_SIZE, 3), rgb[color], np.uint8) for color in colors]
    rows = [Sample(f"{path.stem}_{i}", {"png": images.encode_png(image)}) for i, image in enumerate(pixels)]
    return write_shard(path, rows)


def test_a_constant_victim(staged: Path, constant: Path, store: StoragePath):
    """12 images, 4 of each class, target 1, every answer 2."""
    rows = evaluated(constant, "--data", staged, "--purified", "tiny-badnets@blur", "--store", store)
    for row in rows:
        assert [row[name] for name in MEASURES] == [4 / 12, 0.0, 0.0, 4 / 12, 4 / 8]
        assert [row[f"n_{name}"] for name in MEASURES] == [12, 8, 8, 12, 8]
        for name in MEASURES:
            low, high = row[f"{name}_ci95"]
            assert 0 <= low <= row[name] <= high <= 1
    assert (rows[0]["flip_rate"], rows[0]["n_flip"]) == (None, 0)
    assert (rows[1]["flip_rate"], rows[1]["n_flip"], rows[1]["fled"]) == (0.0, 24, {})


def test_a_victim_that_always_answers_the_target(staged: Path, tmp_path: Path):
    (row,) = evaluated(write_known_victim(tmp_path / "target", answer=TARGET), "--data", staged)
    assert [row[name] for name in MEASURES] == [4 / 12, 1.0, 1.0, 4 / 12, 0.0]
    assert [row[f"n_{name}"] for name in MEASURES] == [12, 8, 8, 12, 8]


def test_two_victims_and_two_versions(staged: Path, constant: Path, red: Path, store: StoragePath):
    versions = ("--purified", "tiny-badnets@blur", "--purified", "tiny-badnets@gray")
    rows = evaluated(constant, red, "--data", staged, *versions, "--store", store)
    assert [(row["victim"], row["purified"]) for row in rows] == [
        (str(victim), purified)
        for victim in (constant, red)
        for purified in (None, "tiny-badnets@blur", "tiny-badnets@gray")
    ]
    assert [row["settings"] for row in rows[:3]] == [None, "blur blur:2", "blur gray"]
    assert len({row["version"] for row in rows}) == 3
    assert all(row["psnr_clean_db"] is None for row in rows if row["purified"] is None)
    assert all(10 < row["psnr_clean_db"] <= 100 for row in rows if row["purified"] is not None)
    gray_on_red = rows[5]  # no colour is left: class 0 for all
    assert [gray_on_red[name] for name in MEASURES] == [4 / 12, 0.0, 0.0, 4 / 12, 4 / 8]


def test_unlabelled_data_gives_flips_and_the_classes_left(red: Path, tmp_path: Path):
    data = tmp_path / "incoming"
    data.mkdir()
    colored(data / "day-000.tar", ["red", "grey", "red", "grey", "grey"])
    colored(data / "day-001.tar", ["grey", "red"])
    store = tmp_path / "pur"
    assert zipbatch("purify", data, "--purifier", "blur", "--transform", "gray", "--store", store).code == 0
    before, after = evaluated(red, "--data", data, "--purified", "incoming", "--store", store)
    assert before["flip_rate"] is None
    assert (after["flip_rate"], after["n_flip"], after["fled"]) == (3 / 7, 7, {"1": 3})
    for row in (before, after):
        assert [row[name] for name in MEASURES] == [None] * 5
        assert [row[f"n_{name}"] for name in MEASURES] == [0] * 5
        assert [row[f"{name}_ci95"] for name in MEASURES] == [None] * 5


@pytest.mark.ray
def test_workers_do_not_change_the_rows(staged: Path, constant: Path, red: Path, store: StoragePath, tmp_path: Path):
    """Nor whether they load folders or a function."""
    (tmp_path / "v.py").write_text("def f(images): return [[0, red, 99] for red in images[..., 0].mean(axis=(1, 2))]\n")
    function = f"python:{tmp_path / 'v.py'}:f"
    asked = (
        constant,
        red,
        function,
        "--data",
        staged,
        "--purified",
        "tiny-badnets@gray",
        "--store",
        store,
        "--device",
        "cpu",
    )
    assert evaluated(*asked, "--workers", 2) == evaluated(*asked, "--workers", 0)


@pytest.mark.parametrize(
    ("size", "classes", "message"),
    [
        (32, 3, "the victim takes 32 px, tiny-badnets has 16 px; stage it with --image-size 32"),
        (16, 2, "the victim has 2 classes, tiny-badnets has 3"),
    ],
)
def test_a_victim_of_other_data_is_a_usage_error(staged: Path, tmp_path: Path, size: int, classes: int, message: str):
    unfit = write_victim(tmp_path / "unfit", size=size, classes=classes)
    ran = zipbatch("evaluate", unfit, "--data", staged)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err


def test_bare_images_of_another_size_are_an_error(constant: Path, tmp_path: Path):
    data = tmp_path / "incoming"
    data.mkdir()
    large = images.encode_png(np.zeros((32, 32, 3), np.uint8))
    write_shard(data / "day-000.tar", [Sample("a", {"png": large})])
    ran = zipbatch("evaluate", constant, "--data", data)
    assert ran.code in {1, 2}
    assert ran.out == ""
    assert "16 px" in ran.err


@pytest.mark.parametrize("how", ["truncated", "missing", "swapped"])
def test_one_damaged_object_gives_no_half_measure(staged: Path, constant: Path, tmp_path: Path, how: str):
    store = tmp_path / "pur"
    assert zipbatch("purify", staged, "--purifier", "blur", "--store", store).code == 0
    objects = zipbatch("store", "urls", "tiny-badnets", "--store", store).out.splitlines()
    damaged, other = Path(objects[1]), Path(objects[2])
    match how:
        case "truncated":
            damaged.write_bytes(damaged.read_bytes()[:3000])
        case "missing":
            damaged.unlink()
        case _:
            damaged.write_bytes(other.read_bytes())
    ran = zipbatch("evaluate", constant, "--data", staged, "--purified", "tiny-badnets", "--store", store, "--json")
    assert ran.code == 1, ran.err
    assert ran.out == ""
    assert "1 of 6 shards could not be measured" in ran.err
    assert "Traceback" not in ran.err


def test_a_version_of_other_data_is_a_usage_error(source: Path, constant: Path, store: StoragePath, tmp_path: Path):
    other = tmp_path / "other"
    asked = ("poison", source, "--attack", "badnets", "--target", 0, "--out", other, "--samples-per-shard", 4)
    assert zipbatch(*asked).code == 0
    ran = zipbatch("evaluate", constant, "--data", other, "--purified", "tiny-badnets@blur", "--store", store)
    assert (ran.code, ran.out) == (2, "")
    assert "was not made from" in ran.err
    assert "test_poisoned-000000.tar has other content" in ran.err


def test_the_known_victim_is_what_it_claims(red: Path):
    from zipbatch.checkpoints import load_victim, open_victim

    unit = torch.zeros(2, 3, IMAGE_SIZE, IMAGE_SIZE)
    unit[0, 0] = 0.8
    with torch.inference_mode():
        assert load_victim(open_victim(red))(unit).argmax(dim=1).tolist() == [1, 0]


def test_all_to_all_is_measured_image_by_image(source: Path, constant: Path, tmp_path: Path):
    """Four images of each class, all answered 2: the goal for the four of class 1, the truth of the four of class 2.

    No class is the target's own, so ASR and RA are of all images.
    """
    staged = tmp_path / "all"
    assert zipbatch("poison", source, "--attack", "badnets", "--target-mode", "all-to-all", "--out", staged).code == 0
    (row,) = evaluated(constant, "--data", staged)
    assert {name: (row[name], row[f"n_{name}"]) for name in MEASURES} == dict.fromkeys(
        MEASURES, (pytest.approx(1 / 3), 12)
    )


def test_clean_label_is_measured_like_any_single_target(source: Path, tmp_path: Path):
    staged = tmp_path / "sig"
    assert zipbatch("poison", source, "--attack", "sig", "--target", 2, "--out", staged).code == 0
    (row,) = evaluated(write_known_victim(tmp_path / "two", answer=2), "--data", staged)
    assert {name: (row[name], row[f"n_{name}"]) for name in MEASURES} == {
        "ca": (pytest.approx(1 / 3), 12),
        "asr": (1.0, 8),
        "fpr": (1.0, 8),
        "pa": (pytest.approx(1 / 3), 12),
        "ra": (0.0, 8),
    }


def test_no_bare_shard_is_left_out_because_of_its_name(red: Path, tmp_path: Path):
    """One shard is called as a split is, the others are not: all are measured, but for training data."""
    folder = tmp_path / "bare"
    folder.mkdir()
    for name in ("test-000.tar", "day-001.tar", "train-000.tar"):
        colored(folder / name, ["red", "grey"])
    assert zipbatch("purify", folder, "--purifier", "blur", "--store", tmp_path / "pur").code == 0
    _, purified = evaluated(red, "--data", folder, "--purified", "bare", "--store", tmp_path / "pur")
    assert purified["n_flip"] == 4


@pytest.mark.parametrize("bare", [False, True])
def test_a_purified_shard_of_another_size_is_named_itself(tmp_path: Path, prior: Path, bare: bool):
    """And not the data that it was made from, which fits; with the default size of what comes out, both do."""
    side, store = IMAGE_SIZE + 8, tmp_path / "pur"
    data = write_source(tmp_path / "in", counts={"test": 3}, shards=1, size=side)
    if not bare:
        assert zipbatch("poison", data, "--attack", "badnets", "--out", tmp_path / "staged").code == 0
        data = tmp_path / "staged"
    fits = write_victim(tmp_path / "victim", size=side)
    quick = ("purify", data, "--prior", prior, "--store", store, "--steps", 2, "--resize", "stretch")
    assert zipbatch(*quick, "--tag", "small", "--output-size", "prior").code == 0
    assert zipbatch(*quick, "--tag", "own").code == 0
    asked = ("evaluate", fits, "--data", data, "--store", store, "--purified")
    assert len(evaluated(*asked[1:], f"{data.name}@own")) == 2
    ran = zipbatch(*asked, f"{data.name}@small")
    assert ran.code == 1
    line = next(line for line in ran.err.splitlines() if f"{IMAGE_SIZE}x{IMAGE_SIZE}" in line)
    assert str(store / "objects") in line
    assert all(
        word in line for word in (f"{side} px", "--resize stretch", "--output-size", "prior of the victim's size")
    )
