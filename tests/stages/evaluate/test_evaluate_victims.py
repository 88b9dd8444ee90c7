"""Victims of every kind are one thing to evaluate: the same rows, whoever answers; heads wider than the data needs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.making import CLASSES, IMAGE_SIZE, write_shard, write_victim, zipbatch
from tests.serving import npy, serving
from tests.stages.evaluate.test_evaluate import colored, evaluated, write_known_victim
from zipbatch import images
from zipbatch.checkpoints import open_victim
from zipbatch.shards import Sample

FUNCTION = """
import numpy as np

def scores(images):  # class 1 for red images, class 0 for grey ones, as the network of the tests
    red = images[..., 0].astype(float).mean(axis=(1, 2)) - images[..., 1].mean(axis=(1, 2))
    return np.stack([np.full(len(images), 12.0), red, np.zeros(len(images))], axis=1)

def four(images):
    return np.tile(np.arange(4.0), (len(images), 1))

def two(images):
    return np.zeros((len(images), 2))

def moody(images):
    return np.zeros((len(images), 2 + len(images)))

def nan(images):
    return np.full((len(images), 3), np.nan)
"""


@pytest.fixture(scope="module")
def function(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("functions") / "victim.py"
    file.write_text(FUNCTION)
    return file


@pytest.fixture(scope="module")
def store(staged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores") / "pur"
    assert zipbatch("purify", staged, "--purifier", "blur", "--transform", "gray", "--store", folder).code == 0
    return folder


def nameless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "victim"} for row in rows]


def test_an_endpoint_gives_the_rows_of_the_folder_behind_it(staged: Path, store: Path, tmp_path: Path):
    folder = write_known_victim(tmp_path / "red", reds=True)
    network = open_victim(folder).load(torch.device("cpu"))
    asked = ("--data", staged, "--purified", "tiny-badnets", "--store", store)
    with serving(lambda pixels: (200, npy(network.classify(pixels)))) as served:
        rows = evaluated(served.url, *asked)
        table = zipbatch("evaluate", served.url, *asked)
    assert nameless(rows) == nameless(evaluated(folder, *asked))
    assert {row["victim"] for row in rows} == {served.url}
    assert served.url.removeprefix("http://") in table.out


def test_kinds_stand_side_by_side_and_a_sheet_is_drawn(staged: Path, function: Path, victim: Path, tmp_path: Path):
    named = f"python:{function}:scores"
    rows = evaluated(named, victim, "--data", staged, "--sheet", tmp_path / "sheet.png")
    assert [row["victim"] for row in rows] == [named, str(victim)]
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_unlabelled_shards_of_different_sizes_and_a_function(function: Path, tmp_path: Path):
    """What a function says of sizes and classes is its own affair."""
    data = tmp_path / "incoming"
    data.mkdir()
    colored(data / "day-000.tar", ["red", "grey"])
    large = np.full((40, 40, 3), (200, 60, 60), np.uint8)
    write_shard(data / "day-001.tar", [Sample("big", {"png": images.encode_png(large)})])
    store = tmp_path / "pur"
    assert zipbatch("purify", data, "--purifier", "blur", "--transform", "gray", "--store", store).code == 0
    _, after = evaluated(f"python:{function}:scores", "--data", data, "--purified", "incoming", "--store", store)
    assert (after["flip_rate"], after["n_flip"], after["fled"]) == (2 / 3, 3, {"1": 2})


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("two", 2, "the victim has 2 classes, tiny-badnets has 3"),
        ("nan", 2, "gave NaN for image 0 of 1"),
        ("moody", 1, "gave 6 scores an image where 3 are expected"),
        ("gone", 2, "has no function 'gone'"),
    ],
)
def test_functions_that_do_not_fit(staged: Path, function: Path, name: str, code: int, words: str):
    ran = zipbatch("evaluate", f"python:{function}:{name}", "--data", staged)
    assert (ran.code, ran.out) == (code, "")
    assert words in ran.err
    assert f"python:{function}:{name}" in ran.err


def test_an_endpoint_that_is_not_there_is_a_usage_error(staged: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("zipbatch.endpoints.http.PAUSE_S", 0.001)
    ran = zipbatch("evaluate", "http://127.0.0.1:9/", "--data", staged)
    assert (ran.code, ran.out) == (2, "")
    assert "http://127.0.0.1:9/: no answer in 3 attempts" in ran.err


def test_an_endpoint_that_goes_away_gives_no_half_measure(staged: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("zipbatch.endpoints.http.PAUSE_S", 0.001)
    left = iter([(200, npy([[1.0, 0.0, 0.0]])), (200, npy([[1.0, 0.0, 0.0]] * 4))])
    with serving(lambda _: next(left, (500, b"out of memory"))) as served:
        ran = zipbatch("evaluate", served.url, "--data", staged, "--json")
    assert (ran.code, ran.out) == (1, "")
    assert "5 of 6 shards could not be measured" in ran.err
    assert "status 500 (out of memory)" in ran.err


def test_without_an_image_there_is_nothing_to_ask(function: Path, tmp_path: Path):
    write_shard(tmp_path / "in" / "day-000.tar", [])
    ran = zipbatch("evaluate", f"python:{function}:scores", "--data", tmp_path / "in")
    assert ran.code == 2
    assert "holds no image" in ran.err


def test_code_is_never_named_by_data(staged: Path, victim: Path, tmp_path: Path):
    """A victim's own config cannot send anyone to a function."""
    folder = Path(shutil.copytree(victim, tmp_path / "v"))
    (tmp_path / "v.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')\ndef f(images): return None\n")
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"resnet20"', f'"python:{tmp_path / "v.py"}:f"'))
    ran = zipbatch("evaluate", folder, "--data", staged)
    assert ran.code == 2
    assert "unknown architecture" in ran.err
    assert not (tmp_path / "marker").exists()


# ---- heads that are wider than the data's classes


def test_a_wider_head_answers_wrong_at_worst(staged: Path, store: Path, tmp_path: Path):
    """20 scores on data of three classes: answers beyond them are wrong, in no table's way, and have a name."""
    folder = write_wide_victim(tmp_path / "wide")
    before, after = evaluated(folder, "--data", staged, "--purified", "tiny-badnets", "--store", store)
    assert [before[name] for name in ("ca", "asr", "pa", "ra")] == [0, 0, 0, 0]
    assert [before[f"n_{name}"] for name in ("ca", "asr", "pa", "ra")] == [12, 8, 12, 8]
    assert (after["n_flip"], after["flip_rate"], after["fled"]) == (24, 1.0, {"class 17": 24})


def write_wide_victim(folder: Path) -> Path:
    """20 classes: 17 for what has colour, 0 for what is grey."""
    from zipbatch.checkpoints.victim import VictimSpec, save_victim
    from zipbatch.victims import build_victim

    small = open_victim(write_known_victim(folder.parent / "small", reds=True)).load(torch.device("cpu"))
    network = build_victim("resnet20", num_classes=20).network
    state = dict(small.network.state_dict())
    weight, bias = torch.zeros(20, 64), torch.full((20,), -9.0)
    weight[17, 0], bias[17], bias[0] = 1e6, 0.0, 1e-3
    network.load_state_dict({**state, "linear.weight": weight, "linear.bias": bias})
    half = (0.5, 0.5, 0.5)
    spec = VictimSpec(arch="resnet20", num_classes=20, image_size=IMAGE_SIZE, mean=half, std=(0.25, 0.25, 0.25))
    save_victim(folder, spec, network, {})
    return folder


def test_a_sheet_and_a_table_of_a_wider_head(staged: Path, tmp_path: Path):
    folder = write_victim(tmp_path / "wide", classes=len(CLASSES) + 4)
    ran = zipbatch("evaluate", folder, "--data", staged, "--sheet", tmp_path / "sheet.png")
    assert ran.code == 0, ran.err
    assert (tmp_path / "sheet.png").is_file()
