"""A purifier in hand gives what ``zipbatch purify`` gives, in the caller's own form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import zipbatch
from tests.making import picture, sample, write_shard
from tests.making import zipbatch as run
from zipbatch.errors import UsageError
from zipbatch.images import U8
from zipbatch.shards import read_shard

KEYS = [f"k{number}" for number in range(7)]


@pytest.fixture(scope="module")
def images() -> U8:
    return np.stack([picture(number, 32) for number in range(len(KEYS))])


@pytest.mark.parametrize(
    ("flags", "given"),
    [
        (("--preset", "jpeg"), {"preset": "jpeg"}),
        (("--preset", "shrinkpad", "--seed", 5), {"preset": "shrinkpad", "seed": 5}),
        (("--preset", "fast", "--prior", "embedded"), {"preset": "fast", "prior": "embedded"}),
        (
            ("--chain", "jpeg quality=60", "--chain", "blur transforms=blur:2"),
            {"chain": ["jpeg quality=60", "blur transforms=blur:2"]},
        ),
    ],
    ids=lambda part: part[1] if isinstance(part, tuple) else "",
)
def test_the_same_pixels_as_purify(flags: tuple[object, ...], given: dict, images: U8, tmp_path: Path):
    shard = write_shard(tmp_path / "in.tar", [sample(key, 0, seed=n, size=32) for n, key in enumerate(KEYS)])
    ran = run("purify", shard, *flags, "--name", "in", "--store", tmp_path / "pur", "--batch-size", 4)
    assert ran.code == 0, ran.err
    (path,) = run("store", "urls", "in", "--store", tmp_path / "pur").out.split()
    stored = np.stack([one.image() for one in read_shard(Path(path))])
    purifier = zipbatch.load_purifier(batch_size=4, **given)
    assert np.array_equal(purifier(images, KEYS), stored)
    assert not np.array_equal(stored, images)


def test_arrays_and_tensors_of_one_or_many(images: U8):
    purifier = zipbatch.load_purifier("jpeg")
    many = purifier(images)
    assert many.dtype == np.uint8
    assert np.array_equal(purifier(images[0]), many[0])
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2)
    assert np.array_equal(purifier(tensor).permute(0, 2, 3, 1).numpy(), many)
    assert purifier(tensor[0]).shape == tensor[0].shape
    assert purifier(images[:0]).shape == (0, 32, 32, 3)


def test_an_image_has_the_same_noise_wherever_it_is(images: U8):
    purifier = zipbatch.load_purifier("shrinkpad")
    assert np.array_equal(purifier(images, KEYS)[3], purifier(images[3], ["k3"]))
    assert not np.array_equal(purifier(images[3], ["k3"]), purifier(images[3], ["another"]))


def test_images_that_do_not_fit_are_stretched_when_that_is_asked_for(tmp_path: Path):
    large = np.stack([picture(number, 40) for number in range(3)])
    with pytest.raises(ValueError, match="40"):
        zipbatch.load_purifier("fast", prior="embedded")(large)
    shard = write_shard(tmp_path / "in.tar", [sample(f"{n}", 0, seed=n, size=40) for n in range(3)])
    ran = run(
        "purify",
        shard,
        "--name",
        "in",
        "--preset",
        "fast",
        "--prior",
        "embedded",
        "--resize",
        "stretch",
        "--store",
        tmp_path / "pur",
    )
    assert ran.code == 0, ran.err
    (path,) = run("store", "urls", "in", "--store", tmp_path / "pur").out.split()
    purified = zipbatch.load_purifier("fast", prior="embedded", resize="stretch")(large)
    assert np.array_equal(purified, np.stack([one.image() for one in read_shard(Path(path))]))


def test_what_cannot_be_is_refused(images: U8):
    purifier = zipbatch.load_purifier("jpeg")
    with pytest.raises(TypeError, match="uint8, 0 to 255, got float32"):
        purifier(images.astype(np.float32))
    with pytest.raises(ValueError, match=r"\[N, H, W, 3\] or \[H, W, 3\], got \[7, 3, 32, 32\]"):
        purifier(images.transpose(0, 3, 1, 2))
    with pytest.raises(ValueError, match="need 7 keys, a different one for each image, got 1"):
        purifier(images, ["a"] * 7)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"preset": "nosuch"}, "no preset 'nosuch'"),
        ({"preset": "fast"}, "needs a diffusion model"),
        ({"preset": "jpeg", "quality": 3}, "quality = 3"),
        ({"preset": "jpeg", "batch_size": 0}, "batch_size must be 1 or more"),
        ({"preset": "balanced", "prior": "embedded", "keep_masks": True}, "keep_masks is for zipbatch.purify"),
    ],
)
def test_what_cannot_be_loaded(given: dict, told: str):
    with pytest.raises(UsageError, match=told):
        zipbatch.load_purifier(**given)
