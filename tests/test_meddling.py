"""What is checked is what is used: files that change between plan and use, under every command that reads them.

Each command is run while one of its inputs becomes another right before it is opened for the first, second, … time.
Whatever it reads by then, it may fail and say so, or end well with what it would have made of one of the two files
alone; a mixture, or a result that is certified to be of the other file, is what must never be.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.checkpoints.guided_restated import Settings, random_state
from tests.foreign import stamped_picture, weights, write_record
from tests.making import (
    Ran,
    files_below,
    picture,
    sample,
    write_images,
    write_prior,
    write_shard,
    write_source,
    zipbatch,
)
from tests.meddling import Change, alike, flipped, swapped, watched
from tests.stages.evaluate.test_evaluate import write_known_victim
from zipbatch import images
from zipbatch.atomic import sha256_file
from zipbatch.datasets import open_dataset
from zipbatch.store import Store

Command = Callable[[Path, Path], Ran]
"""Inputs, place for results -> what came of it."""


@dataclass(frozen=True)
class Case:
    """A command.

    Attributes:
        make: fills a folder with its inputs.
        others: name of an input -> makes a file that may take its place.
        run: the command.
        told: what it made, and what it says that this was made from.
    """

    make: Callable[[Path], None]
    others: dict[str, Callable[[Path], object]]
    run: Command
    told: Callable[[Path], Any]


def _store(out: Path) -> Any:
    """What the store certifies, and whether that is so."""
    versions = Store(out).versions
    found = []
    for dataset in versions.datasets():
        for name in versions.ids(dataset):
            version = versions.read_id(dataset, name)
            found.append((version.header.prior_sha256, [(row.shard, row.input, row.output) for row in version.rows]))
            assert all(sha256_file(Store(out).objects.path(row.output)) == row.output for row in version.rows)
    return found


def _folder(out: Path) -> Any:
    return {name: data for name, data in files_below(out).items() if not name.endswith(".png")}


def _shards(folder: Path) -> None:
    write_source(folder / "data", counts={"test": 8})


def _other_shard(file: Path) -> object:
    return write_shard(file, [sample(f"test_{i:04d}", 1, seed=70 + i) for i in range(4)])


def _staged(folder: Path) -> None:
    source = write_source(folder.parent / "of-staged", counts={"train": 12, "test": 6})
    ran = zipbatch("poison", source, "--attack", "badnets", "--out", folder / "data", "--poison-rate", 0.3)
    assert ran.code == 0, ran.err


def _purify(folder: Path, out: Path) -> Ran:
    return zipbatch(
        *("purify", folder / "data", "--prior", folder / "prior", "--store", out, "--preset", "fast-v1"),
        *("--steps", 4, "--start-step", 500, "--transform", "blur:1"),
    )


def _purify_inputs(folder: Path) -> None:
    _shards(folder)
    write_prior(folder / "prior", seed=1)


def _evaluate(folder: Path, out: Path) -> Ran:
    return _asked(folder / "victim", folder, out)


def _asked(victim: object, folder: Path, out: Path) -> Ran:
    ran = zipbatch("evaluate", victim, "--data", folder / "data", "--json")
    if ran.code == 0:
        out.mkdir()
        (out / "rows.json").write_text(ran.out)
    return ran


def _evaluate_inputs(folder: Path) -> None:
    _staged(folder)
    write_known_victim(folder / "victim", answer=0)


def _function(answer: int) -> str:
    return f"import numpy as np\ndef ask(images):\n    return np.eye(3)[[{answer}] * len(images)]\n"


def _ask_function(folder: Path, out: Path) -> Ran:
    return _asked(f"python:{folder / 'mine.py'}:ask", folder, out)


def _function_inputs(folder: Path) -> None:
    _staged(folder)
    (folder / "mine.py").write_text(_function(0))


def _checkpoint(seed: int) -> Callable[[Path], object]:
    return lambda file: torch.save(weights("resnet20", 3, seed=seed), file)


def _tree(folder: Path) -> None:
    """What is to be imported as the purified form of ``data``."""
    _shards(folder)
    for shard in open_dataset([str(folder / "data")]).shards:
        for i in range(4):
            number = i + 4 * int(shard.name == "test-000001.tar")
            file = folder / "theirs" / "test" / f"test_{number:04d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(images.encode_png(picture(300 + number)))


def _train(folder: Path, out: Path) -> Ran:
    return zipbatch("train", "prior", folder / "data", "--out", out, "--steps", 2)


def _trained(out: Path) -> Any:
    manifest = json.loads((out / "manifest.json").read_text())
    return manifest["trained_on"], sha256_file(out / "unet" / "diffusion_pytorch_model.safetensors")


def _pipeline_inputs(folder: Path) -> None:
    write_source(folder / "data", counts={"train": 6, "test": 6})
    write_prior(folder / "prior", seed=1)
    write_known_victim(folder / "victim", answer=0)
    (folder / "mine.yaml").write_text("method: jpeg\nquality: 40\n")
    (folder / "line.yaml").write_text(
        f"""
stages:
  shards: {{run: poison, source: {folder}/data, attack: badnets}}
  cleaned: {{run: purify, data: "${{shards}}", preset: {folder}/mine.yaml}}
  table: {{run: evaluate, data: "${{shards}}", victim: {folder}/victim, purified: "${{cleaned}}"}}
"""
    )


def _pipeline_told(out: Path) -> Any:
    """By the name of each result, which is the digest of what it was made from, what it holds."""
    made = {name: data for name, data in files_below(out).items() if name.startswith(("shards/", "table/"))}
    made = {name: _timeless(data.replace(str(out).encode(), b"out")) for name, data in made.items()}
    return made, sorted(tag.name for tag in (out / "pur/tags").glob("*/cleaned-*")), _store(out / "pur")


def _timeless(data: bytes) -> bytes:
    """A table without what says when and how quickly its versions were made."""
    return re.sub(rb'"(seconds_per_image|purified_first|purified_last)": [^,\n]+', b"", data)


def _weights_of_a_prior(file: Path) -> None:
    write_prior(file.parent / "p", seed=2)
    shutil.copyfile(file.parent / "p/unet/diffusion_pytorch_model.safetensors", file)


def _weights_of_a_victim(file: Path) -> None:
    write_known_victim(file.parent / "v", answer=1)
    shutil.copyfile(file.parent / "v/model.safetensors", file)


def _guided(file: Path, *, seed: int) -> None:
    torch.save(random_state(Settings(channels=32, multiples=(1, 2, 3, 4), blocks=1, attention=(3,)), seed=seed), file)


CASES = {
    "purify, the prior": Case(
        _purify_inputs,
        {"prior/unet/diffusion_pytorch_model.safetensors": _weights_of_a_prior},
        _purify,
        _store,
    ),
    "purify, a bare shard": Case(_purify_inputs, {"data/test-000001.tar": _other_shard}, _purify, _store),
    "poison": Case(
        _shards,
        {"data/test-000001.tar": _other_shard},
        lambda folder, out: zipbatch("poison", folder / "data", "--attack", "badnets", "--out", out),
        _folder,
    ),
    "poison from a staged folder": Case(
        _staged,
        {"data/train-000000.tar": lambda file: write_shard(file, [sample("a", 1, seed=1)])},
        lambda folder, out: zipbatch("poison", folder / "data", "--attack", "badnets", "--out", out),
        _folder,
    ),
    "poison with a picture": Case(
        lambda folder: (_shards(folder), write_images(folder, "own.png"))[0],
        {"own.png": lambda file: file.write_bytes(images.encode_png(picture(99)))},
        lambda folder, out: zipbatch(
            *("poison", folder / "data", "--attack", "blended", "--profile", "backdoorbench"),
            *("--trigger-image", folder / "own.png", "--out", out),
        ),
        _folder,
    ),
    "poison with an array": Case(
        lambda folder: (_shards(folder), np.save(folder / "own.npy", np.full((16, 16, 3), 9)))[0],
        {"own.npy": lambda file: np.save(file, np.full((16, 16, 3), 7))},
        lambda folder, out: zipbatch(
            *("poison", folder / "data", "--attack", "lf", "--trigger-array", folder / "own.npy", "--out", out)
        ),
        _folder,
    ),
    "poison with a pool": Case(
        lambda folder: (_shards(folder), write_images(folder / "pool", "a.png", "b.png"))[0],
        {"pool/b.png": lambda file: file.write_bytes(images.encode_png(picture(99)))},
        lambda folder, out: zipbatch(
            *("poison", folder / "data", "--attack", "refool", "--trigger-image", folder / "pool", "--out", out)
        ),
        _folder,
    ),
    "poison with a function": Case(
        lambda folder: (_shards(folder), (folder / "mine.py").write_text("def f(images): return 255 - images\n"))[0],
        {"mine.py": lambda file: file.write_text("def f(images): return 254 - images\n")},
        lambda folder, out: zipbatch(
            *("poison", folder / "data", "--attack", f"python:{folder}/mine.py:f", "--out", out)
        ),
        _folder,
    ),
    "evaluate, the victim": Case(
        _evaluate_inputs,
        {"victim/model.safetensors": _weights_of_a_victim},
        _evaluate,
        _folder,
    ),
    "evaluate, staged data": Case(
        _evaluate_inputs,
        {"data/test-000000.tar": lambda file: write_shard(file, [sample("a", 1, seed=1)])},
        _evaluate,
        _folder,
    ),
    "evaluate, a function": Case(
        _function_inputs, {"mine.py": lambda file: file.write_text(_function(1))}, _ask_function, _folder
    ),
    "import victim": Case(
        lambda folder: _checkpoint(1)(folder / "net.pt"),
        {"net.pt": _checkpoint(2)},
        lambda folder, out: zipbatch("import", "victim", folder / "net.pt", "--out", out, "--image-size", 16),
        _folder,
    ),
    "import prior": Case(
        lambda folder: _guided(folder / "net.pt", seed=1),
        {"net.pt": lambda file: _guided(file, seed=2)},
        lambda folder, out: zipbatch("import", "prior", folder / "net.pt", "--out", out),
        _folder,
    ),
    "import dataset": Case(
        lambda folder: write_record(folder / "record"),
        {"record/bd_test_dataset/1/1.png": lambda file: file.write_bytes(images.encode_png(stamped_picture(2)))},
        lambda folder, out: zipbatch("import", "dataset", folder / "record", "--out", out),
        _folder,
    ),
    "train prior": Case(
        lambda folder: write_source(folder / "data", counts={"train": 8, "test": 4}),
        {"data/train-000001.tar": lambda file: write_shard(file, [sample(f"t{i}", 1, seed=i) for i in range(4)])},
        _train,
        _trained,
    ),
    "train victim": Case(
        _staged,
        {"data/train-000000.tar": lambda file: write_shard(file, [sample("a", 1, seed=1)])},
        lambda folder, out: zipbatch("train", "victim", folder / "data", "--out", out, "--epochs", 1),
        lambda out: sha256_file(out / "model.safetensors"),
    ),
    "store import": Case(
        _tree,
        {"theirs/test/test_0001.png": lambda file: file.write_bytes(images.encode_png(picture(999)))},
        lambda folder, out: zipbatch("store", "import", folder / "theirs", "--data", folder / "data", "--store", out),
        _store,
    ),
    "run, a source": Case(
        _pipeline_inputs,
        {"data/test-000001.tar": _other_shard},
        lambda folder, out: zipbatch("run", folder / "line.yaml", "--out", out),
        _pipeline_told,
    ),
    "run, a preset": Case(
        _pipeline_inputs,
        {"mine.yaml": lambda file: file.write_text("method: jpeg\nquality: 90\n")},
        lambda folder, out: zipbatch("run", folder / "line.yaml", "--out", out),
        _pipeline_told,
    ),
    "run, a victim": Case(
        _pipeline_inputs,
        {"victim/model.safetensors": _weights_of_a_victim},
        lambda folder, out: zipbatch("run", folder / "line.yaml", "--out", out),
        _pipeline_told,
    ),
}


@pytest.mark.parametrize("what", CASES)
def test_a_file_that_changes_is_refused_or_used_for_what_it_is(what: str, tmp_path: Path):
    case, folder, number = CASES[what], tmp_path / "in", 0

    def ran(name: str = "", nth: int = 0, change: Change | None = None) -> tuple[Ran, Any, dict[str, int]]:
        nonlocal number
        number += 1
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "kept", folder)
        if change is not None and not nth:
            change(folder / name)
        out = tmp_path / f"out-{number}"
        with watched(folder, name=name, nth=nth, change=change if nth else None) as opened:
            found = case.run(folder, out)
        return found, case.told(out) if found.code == 0 else None, opened.times

    (tmp_path / "other").mkdir()
    folder.mkdir()
    case.make(folder)
    shutil.copytree(folder, tmp_path / "kept")
    clean, first, times = ran()
    assert clean.code == 0, clean.err
    for name, make in case.others.items():
        other = tmp_path / "other" / Path(name).name
        make(other)
        _, second, _ = ran(name, change=swapped(other))
        assert second != first
        assert times[name], "it is not read at all"
        for nth in range(1, times[name] + 1):
            changed, told, _ = ran(name, nth, swapped(other))
            assert changed.code or told in (first, second), f"opening {nth} of {times[name]} of {name}"
            assert not changed.code or "internal error" not in changed.err, changed.err


def test_every_byte_of_an_input_is_held_against_its_digest(tmp_path: Path):
    """One bit of a staged shard, or of a purified one, turns over right before each opening."""
    folder, store = tmp_path / "in", tmp_path / "in/pur"
    _evaluate_inputs(folder)
    purify = ("purify", folder / "data", "--purifier", "blur", "--store", store)
    assert zipbatch(*purify).code == 0
    row = Store(store).versions.read("data").rows[0]
    commands = {
        "evaluate": ("evaluate", folder / "victim", "--data", folder / "data", "--purified", "data", "--store", store),
        "export": ("store", "export", "data", "--store", store),
        "images": ("store", "export", "data", "--store", store, "--as", "images"),
        "poison": ("poison", folder / "data", "--attack", "sig"),
        "train": ("train", "victim", folder / "data", "--epochs", "1"),
        "purify": ("purify", folder / "data", "--purifier", "jpeg", "--store", tmp_path / "fresh"),
    }
    shutil.copytree(folder, tmp_path / "kept", copy_function=shutil.copy2)
    read = 0
    for what, command in commands.items():
        for name in (f"data/{row.shard}", f"pur/objects/{row.output[:2]}/{row.output}.tar"):
            nth, met = 0, True
            while met:
                nth += 1
                shutil.rmtree(folder)
                shutil.copytree(tmp_path / "kept", folder)
                shutil.rmtree(tmp_path / "fresh", ignore_errors=True)
                place = tmp_path / f"{what}-{nth}-{row.shard in name}"
                out = {"store": (place,), "poison": ("--out", place), "train": ("--out", place)}.get(command[0], ())
                with watched(folder, name=name, nth=nth, change=flipped) as opened:
                    ran = zipbatch(*command, *out)
                met = opened.changed
                read += met
                assert (ran.code != 0) == met, f"{what}: opening {nth} of {name}: {ran.err}"
    assert read > 15


def test_another_file_of_the_same_size_and_time_is_another_file(tmp_path: Path):
    """Tars are padded, and ``cp -p`` keeps times: a pipeline, like purify, tells them apart all the same."""
    _pipeline_inputs(tmp_path / "in")
    shard, other = tmp_path / "in/data/test-000001.tar", tmp_path / "other.tar"
    write_shard(other, [sample(f"other_{i}", 1, seed=70 + i) for i in range(3)])
    size = max(shard.stat().st_size, other.stat().st_size)
    for file in (shard, other):
        file.write_bytes(file.read_bytes() + bytes(size - file.stat().st_size))
    run = ("run", tmp_path / "in/line.yaml", "--out", tmp_path / "out", "--json")
    assert zipbatch(*run).code == 0
    alike(other)(shard)
    assert "changed: source" in zipbatch(*run, "--dry-run").out
    assert "changed: source" not in zipbatch(*run, "--dry-run", "--trust-mtime").out
    assert zipbatch(*run).code == zipbatch("run", tmp_path / "in/line.yaml", "--out", tmp_path / "fresh").code == 0
    fresh, again = (
        {file.parent.name: file.read_bytes() for file in (tmp_path / out).glob("shards/*/test-000000.tar")}
        for out in ("fresh", "out")
    )
    assert len(again) == 2 and fresh.items() <= again.items()


def test_a_stage_that_was_not_looked_at_again_is_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A run that ends between a stage and the second look at what it was made from, as by a kill."""
    (tmp_path / "in").mkdir()
    _pipeline_inputs(tmp_path / "in")
    run, looks = ("run", tmp_path / "in/line.yaml", "--out", tmp_path / "out"), []

    def look(*_: object) -> None:
        looks.append(1)
        if len(looks) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("zipbatch.pipeline.run._check_unchanged", look)
        assert zipbatch(*run).code == 130
    states = {each["stage"]: each["state"] for each in zipbatch(*run, "--dry-run", "--json").json["stages"]}
    assert states["shards"] != "done"
    assert zipbatch(*run).code == 0
    assert not list((tmp_path / "out").rglob("*.unchecked"))
    assert {each["state"] for each in zipbatch(*run, "--dry-run", "--json").json["stages"]} == {"done"}
