"""``zipbatch adapt``: from its command to a staged dataset, again for the same bytes, and what it refuses."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.making import IMAGE_SIZE, files_below, picture, purifier_spec, write_source, zipbatch
from zipbatch.checkpoints.victim import VictimSpec, save_victim
from zipbatch.datasets import open_dataset
from zipbatch.images import decode
from zipbatch.pixels import from_u8
from zipbatch.shards import read_shard
from zipbatch.stages.adapt.white_box import MaskAlarm
from zipbatch.victims import build_victim

FEW = ("--steps", 2, "--batch-size", 4, "--images", 12, "--held-out", 6)


@pytest.fixture(scope="module")
def surrogate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A victim that has learned in a few steps which colour an image has most of."""
    torch.manual_seed(0)
    victim = build_victim("resnet20", num_classes=3, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)).train()
    images = from_u8(torch.from_numpy(np.stack([picture(i) for i in range(320)]).transpose(0, 3, 1, 2).copy()), "unit")
    optimiser = torch.optim.Adam(victim.parameters(), lr=3e-3)
    for rows in torch.arange(320).repeat(4).split(32):
        loss = F.cross_entropy(victim(images[rows]), images[rows].mean(dim=(2, 3)).argmax(dim=1))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    folder = tmp_path_factory.mktemp("surrogates") / "colours"
    spec = VictimSpec(arch="resnet20", num_classes=3, image_size=IMAGE_SIZE, mean=(0.5,) * 3, std=(0.25,) * 3)
    save_victim(folder, spec, victim.network, {"format_version": 1})
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_source(tmp_path_factory.mktemp("photos") / "in", counts={"train": 60, "test": 12}, labelled=False)


def adapted(photos: Path, surrogate: Path, out: Path, *more: object) -> dict:
    ran = zipbatch("adapt", photos, "--surrogate", surrogate, "--out", out, *more, "--json")
    assert ran.code == 0, ran.err
    return ran.json


def test_it_raises_what_a_defence_leaves_and_keeps_its_bound(photos: Path, surrogate: Path, tmp_path: Path):
    some = ("--images", 40, "--held-out", 20, "--steps", 12, "--batch-size", 16, "--epsilon", 48)
    told = adapted(photos, surrogate, tmp_path / "t.npy", "--through", "jpeg", "--target", 0, *some)
    levels = np.load(tmp_path / "t.npy", allow_pickle=False)
    assert (levels.dtype, levels.shape) == (np.int16, (IMAGE_SIZE, IMAGE_SIZE, 3))
    assert (levels.min(), levels.max()) == (-48, 48)
    assert told["clean"]["value"] < 0.2
    assert told["purified"]["value"] > 0.6
    assert told["images"] + told["purified"]["n"] < 60  # those that are of the target's colour anyway say nothing
    assert told["purified"]["ci95"][0] <= told["purified"]["value"] <= told["purified"]["ci95"][1]


def test_a_patch_through_a_prior_can_be_staged(
    photos: Path, source: Path, surrogate: Path, prior: Path, tmp_path: Path
):
    place = ("--patch-size", 4, "--row", 2, "--column", -3)
    told = adapted(photos, surrogate, tmp_path / "t.png", "--prior", prior, *place, *FEW)
    patch = decode((tmp_path / "t.png").read_bytes(), "png")
    assert patch.shape == (4, 4, 3)
    assert (told["split"], told["target"]) == ("train", 0)
    where = ("--param", "row=2", "--param", "column=-3", "--trigger-image", tmp_path / "t.png")
    ran = zipbatch("poison", source, "--attack", "patch", "--split", "test", *where, "--out", tmp_path / "staged")
    assert ran.code == 0, ran.err
    shards = open_dataset([str(tmp_path / "staged")]).split("test_poisoned")
    stamped = [sample.image() for shard in shards for sample in read_shard(shard.path)]
    assert len(stamped) == 12
    assert all(np.array_equal(image[2:6, IMAGE_SIZE - 6 : IMAGE_SIZE - 2], patch) for image in stamped)


@pytest.mark.parametrize("through", ["balanced", "none"])
def test_a_rerun_gives_the_same_bytes_and_another_seed_others(
    photos: Path, surrogate: Path, prior: Path, tmp_path: Path, through: str
):
    settings = ("--through", through, "--prior", prior, "--epsilon", 8, *FEW)
    first = adapted(photos, surrogate, tmp_path / "a.npy", *settings)
    again = adapted(photos, surrogate, tmp_path / "b.npy", *settings)
    adapted(photos, surrogate, tmp_path / "c.npy", *settings, "--seed", 1)
    assert first | {"out": ""} == again | {"out": ""}
    a, b, c = files_below(tmp_path).values()
    assert a == b
    assert a != c


def test_people_are_told_before_and_after(photos: Path, surrogate: Path, tmp_path: Path):
    ran = zipbatch(
        *("adapt", photos, "--surrogate", surrogate, "--through", "jpeg", "--epsilon", 8, *FEW),
        *("--out", tmp_path / "t.npy", "--target", "cow"),
    )
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert "of split train" in lines[0]
    assert "for class 2" in lines[1]
    rows = [re.fullmatch(r"  (\D+?) +[.\d]+ ±[.\d]+", line) for line in lines[2:]]
    assert [row and row[1] for row in rows] == ["stamped", "stamped and purified", "clean and purified"]
    assert "optimising t.npy" in ran.err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--out", "t.npy"), "give --patch-size PX for a patch, or --epsilon LEVELS"),
        (("--out", "t.npy", "--patch-size", 3, "--epsilon", 8), "give --patch-size PX for a patch, or --epsilon"),
        (("--out", "t.npy", "--patch-size", 3), "a patch is written as a .png file"),
        (("--out", "t.png", "--epsilon", 8), "a pattern is written as a .npy file"),
        (("--out", "nowhere/t.npy", "--epsilon", 8), "in a folder that is there"),
        (("--out", ".", "--epsilon", 8), "is a folder; name the file to write"),
        (("--out", "t.npy", "--epsilon", 300), "300 is not in the range"),
        (("--out", "t.png", "--patch-size", 17), "does not lie within 16x16; place it with --row, --column"),
        (("--out", "t.png", "--patch-size", 3, "--row", 14), "does not lie within 16x16"),
        (("--out", "t.npy", "--epsilon", 8, "--target", 3), "--target 3 is not one of the 3 classes 0..2"),
        (("--out", "t.npy", "--epsilon", 8, "--target", "cwo"), "cwo is not the name of a class (did you mean 'cow'?)"),
        (("--out", "t.npy", "--epsilon", 8, "--through", "nothing"), "nothing"),
        (("--out", "t.npy", "--epsilon", 8, "--through", "balanced"), "--prior embedded"),
        (("--out", "t.npy", "--epsilon", 8, "--through", "balanced", "--prior", "embedded"), "--through: image"),
        (("--out", "t.npy", "--epsilon", 8, "--image-size", 32), "--image-size 16 resizes them"),
        (("--out", "t.npy", "--epsilon", 8, "--split", "val"), "no split 'val'; it has train, test"),
    ],
)
def test_what_it_refuses(
    photos: Path,
    surrogate: Path,
    tmp_path: Path,
    more: tuple[object, ...],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    ran = zipbatch("adapt", photos, "--surrogate", surrogate, "--through", "jpeg", *FEW, *more)
    assert (ran.code, ran.out, "Traceback" in ran.err) == (2, "", False), ran.err
    assert words in ran.err
    assert not files_below(tmp_path)


def test_surrogates_that_do_not_do(photos: Path, victim: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The untrained victim takes every image for one class; the others have no gradient."""

    def told(surrogate: object) -> str:
        ran = zipbatch(
            *("adapt", photos, "--surrogate", surrogate, "--through", "none", "--epsilon", 8, *FEW),
            *("--out", tmp_path / "t.npy", "--target", 1),
        )
        assert (ran.code, ran.out, files_below(tmp_path)) == (2, "", {}), ran.err
        return ran.err

    assert "name another --target" in told(victim)
    assert "only a victim's folder has one" in told("http://localhost:1/predict")
    assert "no such folder" in told("nowhere")
    monkeypatch.setattr("zipbatch.checkpoints.victim.VictimFolder.load", lambda _self, _device: object())
    assert "is an ONNX model, whose gradient cannot be taken" in told(victim)


def test_what_a_mask_goes_by_has_a_gradient(photos: Path, prior: Path):
    """Down its slope an image has less of what would be masked; where nothing would be, there is no slope."""
    spec = purifier_spec(method="repaint", prior=prior)
    alarm, keys = MaskAlarm(spec, torch.device("cpu"), seed=0), [str(i) for i in range(6)]
    shown = torch.from_numpy(np.stack([picture(i) for i in range(6)]).transpose(0, 3, 1, 2).copy())
    before = alarm.excess(from_u8(shown, "model"), keys)
    slope = alarm.slope(shown, keys)
    assert float(before.sum()) > 0
    after = alarm.excess(from_u8(shown, "model") - 0.02 * slope.sign(), keys)
    assert float(after.sum()) < 0.9 * float(before.sum())
    calm = spec.settings.model_copy(update={"seed_threshold": 9.0, "region_threshold": 9.0})
    none = MaskAlarm(replace(spec, settings=calm), torch.device("cpu"), seed=0).slope(shown, keys)
    assert not bool(none.any())


def test_evading_is_repeatable_and_only_for_what_masks(photos: Path, surrogate: Path, prior: Path, tmp_path: Path):
    patch = ("--prior", prior, "--patch-size", 5, *FEW)
    for name, more in (("a", ["--evade"]), ("b", ["--evade"]), ("c", [])):
        adapted(photos, surrogate, tmp_path / f"{name}.png", *patch, *more)
    a, b, c = files_below(tmp_path).values()
    assert a == b
    assert a != c
    for through in ("jpeg", "none", "fast"):
        ran = zipbatch(
            *("adapt", photos, "--surrogate", surrogate, "--out", tmp_path / "d.png", *patch, "--evade"),
            *("--through", through),
        )
        assert ran.code == 2
        assert "--evade is for a defence that masks" in ran.err
