"""What users bring for a trigger: pictures, folders of them, arrays, functions; what it decides, what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.making import Ran, files_below, write_images, write_source, zipbatch
from tests.stages.poison.test_poison import of_source, samples_of, trigger_of
from zipbatch.datasets import open_dataset

FUNCTIONS = """
print("loading")

def corner(images):
    print("stamping")
    images[:, :2, :2] = 255
    return images

def flat(images):
    return images[:, 0]

def fails(images):
    raise RuntimeError("no idea")

number = 3
"""


@pytest.fixture(scope="module")
def source32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_source(tmp_path_factory.mktemp("source32") / "in", size=32)


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "mine.py").write_text(FUNCTIONS)
    return tmp_path / "mine.py"


def poison(source: Path, out: Path, attack: str, *options: object) -> Ran:
    return zipbatch("poison", source, "--attack", attack, "--poison-rate", 0.25, "--out", out, *options)


def patches(folder: Path, count: int) -> list[object]:
    """Options that name so many pictures with a patch each, transparent around it."""
    folder.mkdir()
    for i in range(count):
        pixels = np.zeros((8, 8, 4), np.uint8)
        pixels[i : i + 2, 0:2] = (10 * i, 200, 255 - 10 * i, 255)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return [part for i in range(count) for part in ("--trigger-image", folder / f"{i}.png")]


def test_a_function_of_a_file_stamps_and_its_digest_decides(source: Path, tmp_path: Path, mine: Path):
    out, named = tmp_path / "out", f"python:{mine}:corner"
    ran = poison(source, out, named)
    assert (ran.code, "loading" in ran.out, "stamping" in ran.err) == (0, False, True)
    dataset = open_dataset([str(out)])
    for (_, clean), s in zip(of_source(source, "test"), samples_of(dataset, "test_poisoned"), strict=True):
        expected = clean.image().copy()
        expected[:2, :2] = 255
        assert np.array_equal(s.image(), expected)
    assert dataset.manifest is not None
    attack = dataset.manifest.attack
    assert (attack.name, attack.target, attack.poisoned_train_samples) == ("function", 0, 6)
    assert attack.params["function"] == "mine.py:corner"
    assert "already staged" in poison(source, out, named).out
    mine.write_text(FUNCTIONS + "\n# another\n")
    ran = poison(source, out, named)
    assert (ran.code, "taken by a staged dataset of other settings" in ran.err) == (2, True)


@pytest.mark.parametrize(
    ("function", "code", "words"),
    [
        ("flat", 1, "mine.py:flat: must return a uint8 array of "),
        ("fails", 1, "raised RuntimeError: no idea"),
        ("number", 2, "has no function 'number'"),
        ("gone", 2, "has no function 'gone'"),
    ],
)
def test_functions_that_do_not_do(source: Path, tmp_path: Path, mine: Path, function: str, code: int, words: str):
    ran = poison(source, tmp_path / "out", f"python:{mine}:{function}")
    assert (ran.code, ran.out) == (code, "")
    assert words in ran.err
    assert "Traceback" not in ran.err
    assert [p.name for p in tmp_path.iterdir()] == ["mine.py"]


def test_names_of_functions_that_do_not_do(source: Path, tmp_path: Path, mine: Path):
    cases = {
        "python:gone.py:f": "no such file: gone.py",
        "python:numpy:abs": "name a .py file, python:FILE.py:FUNCTION; its digest says what was staged",
        f"{mine}:corner": "a function of yours is named as python:FILE.py:FUNCTION",
    }
    for name, words in cases.items():
        ran = poison(source, tmp_path / "out", name)
        assert (ran.code, words in ran.err) == (2, True)
    for option in (("--param", "a=1"), ("--profile", "zip-code")):
        ran = poison(source, tmp_path / "out", f"python:{mine}:corner", *option)
        assert (ran.code, "a function has no --param and no --profile" in ran.err) == (2, True)
    assert "loading" not in ran.err


def test_a_pipeline_runs_no_function(source: Path, tmp_path: Path):
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')\n")
    for attack, more in (
        (f"python:{tmp_path}/mine.py:f", []),
        ("${attack}", ["--var", f"attack=python:{tmp_path}/mine.py:f"]),
    ):
        (tmp_path / "p.yaml").write_text(
            f'vars: {{attack: null}}\nstages: {{shards: {{run: poison, source: {source}, attack: "{attack}"}}}}\n'
        )
        ran = zipbatch("run", tmp_path / "p.yaml", "--out", tmp_path / "out", *more)
        assert ran.code == 2
        assert "functions of yours are run by 'zipbatch poison --attack python:…' alone" in ran.err or not more
        assert not (tmp_path / "marker").exists()


def test_pictures_of_a_pool_are_taken_by_name_and_their_digest_decides(source32: Path, tmp_path: Path):
    pool = write_images(tmp_path / "pool", "c.png", "b/a.png", "a.png")
    (pool / "notes.txt").write_text("mine")
    (pool / ".DS_Store").write_text("theirs")
    out = tmp_path / "out"
    ran = poison(source32, out, "refool", "--trigger-image", pool, "--json")
    assert ran.code == 0
    assert ran.err.count("not taken, as they are no pictures: 1 (") == 1
    assert ran.json["manifest"]["options"]["trigger_images"]["count"] == 3
    stored = trigger_of(out)["pool"]
    assert stored.shape == (3, 32, 32, 3)
    files = [option for name in ("a.png", "b/a.png", "c.png") for option in ("--trigger-image", pool / name)]
    assert poison(source32, tmp_path / "named", "refool", *files).code == 0
    assert files_below(tmp_path / "named") == files_below(out)
    (pool / "c.png").unlink()
    assert poison(source32, out, "refool", "--trigger-image", pool).code == 2


def test_several_pictures_are_the_patches(source32: Path, tmp_path: Path):
    options = patches(tmp_path / "own", 4)
    assert poison(source32, tmp_path / "out", "adaptive-patch", *options).code == 0
    trigger = trigger_of(tmp_path / "out")
    assert trigger["patterns"].shape == (4, 32, 32, 3)
    two = [*options[:4], "--param", "alphas=0.5,0.25"]
    assert poison(source32, tmp_path / "two", "adaptive-patch", *two).code == 0
    assert trigger_of(tmp_path / "two")["patterns"].shape[0] == 2
    assert poison(source32, tmp_path / "two", "adaptive-patch", *options[2:4], *options[:2], *two[4:]).code == 2


def test_an_array_is_added_and_its_digest_decides(source32: Path, tmp_path: Path):
    added = np.random.default_rng(1).integers(0, 52, (32, 32, 3)).astype(np.uint8)
    file, out = tmp_path / "added.npy", tmp_path / "out"
    np.save(file, added)
    assert poison(source32, out, "lf", "--trigger-array", file).code == 0
    for (_, clean), s in zip(
        of_source(source32, "test"), samples_of(open_dataset([str(out)]), "test_poisoned"), strict=True
    ):
        assert np.array_equal(s.image(), np.minimum(clean.image().astype(int) + added, 255))
    np.save(file, added // 2)
    assert poison(source32, out, "lf", "--trigger-array", file).code == 2


def npy(folder: Path, array: object, name: str = "own.npy") -> Path:
    np.save(folder / name, np.array(array), allow_pickle=True)
    return folder / name


REFUSED = {
    "no array": ("lf", lambda _: [], "attack lf needs an array of yours; name one with --trigger-array FILE.npy"),
    "no pictures": ("refool", lambda _: [], "attack refool needs pictures of yours; name their folder with --trig"),
    "no folder": ("refool", lambda _: ["--trigger-image", "gone"], "gone"),
    "an empty folder": (
        "refool",
        lambda folder: [(folder / "empty").mkdir(), "--trigger-image", folder / "empty"][1:],
        "holds no picture (png, jpg",
    ),
    "an array for another": (
        "badnets",
        lambda folder: ["--trigger-array", npy(folder, np.ones((16, 16)))],
        "--trigger-array: attack badnets takes none",
    ),
    "a picture for lf": (
        "lf",
        lambda folder: ["--trigger-image", write_images(folder, "a.png") / "a.png"],
        "--trigger-image: attack lf draws its own trigger, or makes it of something else",
    ),
    "two pictures for one": (
        "patch",
        lambda folder: patches(folder / "own", 2),
        "--trigger-image: attack patch takes one picture, got 2",
    ),
    "two pictures for a pattern": (
        "adaptive-blend",
        lambda folder: patches(folder / "own", 2),
        "takes one picture, got 2",
    ),
    "three pictures for four": (
        "adaptive-patch",
        lambda folder: patches(folder / "own", 3),
        "takes 4 pictures, one for each of alphas, got 3",
    ),
    "a transparent picture in a pool": (
        "refool",
        lambda folder: patches(folder / "own", 1),
        "0.png: has transparent pixels; flatten it onto a background first",
    ),
    "no picture in a pool": (
        "refool",
        lambda folder: ["--trigger-image", (folder / "a.png").write_text("none") and folder / "a.png"],
        "a.png: is not a png image",
    ),
    "an array of shares": (
        "lf",
        lambda folder: ["--trigger-array", npy(folder, np.full((16, 16, 3), 0.2))],
        "own.npy: adds less than one of 255 levels (up to 0.2), which is cut away",
    ),
    "an array of objects": (
        "lf",
        lambda folder: ["--trigger-array", npy(folder, [{"a": 1}])],
        "own.npy: a .npy array that says object",
    ),
    "an array of another size": (
        "lf",
        lambda folder: ["--trigger-array", npy(folder, np.ones((8, 8, 3)))],
        "own.npy: is 8 x 8 x 3, the images need 16 x 16 x 3 (or x 1); --image-size resizes the images",
    ),
    "no array in the file": (
        "lf",
        lambda folder: ["--trigger-array", (folder / "a.npy").write_text("none") and folder / "a.npy"],
        "a.npy: is not a .npy array, as numpy.save writes it",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_material_that_does_not_do(source: Path, tmp_path: Path, case: str):
    attack, options, words = REFUSED[case]
    (tmp_path / "own-things").mkdir()
    ran = poison(source, tmp_path / "out", attack, *options(tmp_path / "own-things"))
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err
    assert "Traceback" not in ran.err
    assert [p.name for p in tmp_path.iterdir()] == ["own-things"]


def test_an_array_over_the_limit_is_not_read(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("zipbatch.stages.poison.trigger.MAX_ARRAY_BYTES", 200)
    ran = poison(source, tmp_path / "out", "lf", "--trigger-array", npy(tmp_path, np.ones((16, 16))))
    assert (ran.code, "own.npy: over the limit of 200 bytes" in ran.err) == (2, True)


def test_a_pool_over_the_limit_is_not_read(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("zipbatch.stages.poison.trigger.MAX_POOL_BYTES", 1000)
    pool = write_images(tmp_path / "pool", "a.png", "b.png")
    ran = poison(source, tmp_path / "out", "refool", "--trigger-image", pool)
    assert (ran.code, "2 pictures of 16 px take 1536 bytes, over the limit of 1000; name fewer" in ran.err) == (2, True)
