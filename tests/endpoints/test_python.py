"""Functions of the user's own: found by name, called with images, their failures told and their prints kept apart."""

from __future__ import annotations

import contextlib
import io
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from zipbatch.endpoints.python import PythonVictim
from zipbatch.errors import DataError, UsageError
from zipbatch.victims import top1

CPU = torch.device("cpu")
IMAGES = np.random.default_rng(5).integers(0, 256, (4, 6, 6, 3)).astype(np.uint8)

SOURCE = """
import dataclasses
import numpy as np
import torch
from neighbour import WEIGHT

@dataclasses.dataclass
class Kept:  # dataclasses look their own module up
    seen: "list[int]"

print("loading")

def means(images):
    assert images.dtype == np.uint8 and images.shape[-1] == 3
    print("asked about", len(images))
    means = images.mean(axis=(1, 2)) * WEIGHT
    images[:] = 0
    return means

def tensor(images):
    return torch.from_numpy(images).float().mean(dim=(1, 2)).requires_grad_()

def lists(images):
    return images.mean(axis=(1, 2)).tolist()

def ragged(images):
    return [[1], [1, 2]]

def fails(images):
    raise RuntimeError("no weights")

number = 3
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "neighbour.py").write_text("WEIGHT = 2\n")
    (tmp_path / "my.victim.py").write_text(SOURCE)
    yield tmp_path / "my.victim.py"
    sys.modules.pop("neighbour", None)


@pytest.mark.parametrize("function", ["means", "tensor", "lists"])
def test_a_function_of_a_file(file: Path, function: str):
    victim = PythonVictim.parse(f"python:{file}:{function}")
    assert (victim.name, victim.num_classes, victim.image_size) == (f"my.victim.py:{function}", None, None)
    classifier = pickle.loads(pickle.dumps(victim)).load(CPU)
    images = torch.from_numpy(IMAGES).permute(0, 3, 1, 2)
    before = images.clone()
    assert top1(classifier, images).tolist() == IMAGES.mean(axis=(1, 2)).argmax(axis=1).tolist()
    assert torch.equal(images, before), "the function works on a copy"


def test_prints_go_to_stderr_and_a_file_is_run_once(file: Path):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        for _ in range(2):
            PythonVictim.parse(f"python:{file}:means").load(CPU).classify(IMAGES)
    assert (out.getvalue(), err.getvalue()) == ("", "loading\nasked about 4\nasked about 4\n")


def test_a_relative_path_is_of_the_folder_where_it_was_named(file: Path, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(file.parent)
    victim = PythonVictim.parse(f"python:{file.name}:lists")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert victim.load(CPU).classify(IMAGES).shape == (4, 3)


def test_a_function_of_a_module(file: Path, monkeypatch: pytest.MonkeyPatch):
    (file.parent / "some_package").mkdir()
    (file.parent / "some_package" / "net.py").write_text("def scores(images): return [[1, 0] for _ in images]\n")
    monkeypatch.syspath_prepend(str(file.parent))
    victim = PythonVictim.parse("python:some_package.net:scores")
    assert victim.name == "some_package.net:scores"
    assert victim.load(CPU).classify(IMAGES).tolist() == [[1, 0]] * 4


def test_nothing_is_run_before_it_is_loaded(tmp_path: Path):
    (tmp_path / "v.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')\n")
    victim = PythonVictim.parse(f"python:{tmp_path / 'v.py'}:f")
    assert not (tmp_path / "marker").exists()
    with pytest.raises(UsageError, match="has no function 'f'"):
        victim.load(CPU)
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("python:", "not of the form python:FILE.py:FUNCTION"),
        ("python:file.py", "not of the form"),
        ("python:pkg.mod", "not of the form"),
        ("python:file.py:two words", "not of the form"),
        ("python:gone.py:f", "no such file: gone.py"),
        ("python:not a module:f", "neither a .py file nor a module's name"),
        ("python:../up:f", "neither a .py file nor a module's name"),
    ],
)
def test_names_that_are_none(text: str, words: str):
    with pytest.raises(UsageError, match=words):
        PythonVictim.parse(text)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def g(): pass", "has no function 'f'"),
        ("f = 3", "has no function 'f'"),
        ("import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("def f(:", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, source: str, words: str):
    (tmp_path / "v.py").write_text(source)
    for _ in range(2):  # and no half-imported module is left for the next try
        with pytest.raises(UsageError, match=words):
            PythonVictim.parse(f"python:{tmp_path / 'v.py'}:f").load(CPU)


def test_a_module_that_is_not_installed():
    with pytest.raises(UsageError, match=r"a file is named as python:FILE\.py:FUNCTION"):
        PythonVictim.parse("python:nothing_of_that_name:f").load(CPU)


@pytest.mark.parametrize(
    ("function", "words"), [("fails", "raised RuntimeError: no weights"), ("ragged", "inhomogeneous")]
)
def test_functions_that_fail(file: Path, function: str, words: str):
    with pytest.raises(DataError, match=words) as caught:
        PythonVictim.parse(f"python:{file}:{function}").load(CPU).classify(IMAGES)
    assert f"python:{file}:{function}" in str(caught.value)


def test_a_file_is_run_as_python_would_run_it(tmp_path: Path):
    """Not with what this project's own modules import from the future."""
    file = tmp_path / "typed.py"
    file.write_text("def ask(images: int):\n    return ask.__annotations__['images'] is int\n")
    victim = PythonVictim.parse(f"python:{file}:ask").load(torch.device("cpu"))
    assert victim.function(np.zeros(1, np.uint8)) is True
