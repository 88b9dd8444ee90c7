"""Small images on a 256 px canvas, from shard to shard: none lost, none invented, every slot recorded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.making import Ran, picture, sample, write_prior, write_shard, zipbatch
from zipbatch import images
from zipbatch.shards import Sample, read_shard
from zipbatch.store import Store, TaskRecord
from zipbatch.store.seal import unsealed

CANVAS = 256
QUICK = ("--preset", "paper", "--device", "cpu", "--steps", 2, "--start-step", 300)
RETURN = (*QUICK, "--transform", "blur:1", "--guidance-exponent", 1e9)  # full guidance by the identity: images return


@pytest.fixture(scope="module")
def canvas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prior of 256 px whose network is small: it works on 16 x 16 blocks."""
    return write_prior(tmp_path_factory.mktemp("priors") / "canvas", image_size=CANVAS, patch=16)


def numbered(count: int, size: int, *, start: int = 0) -> list[Sample]:
    return [sample(f"k{i:04d}", i % 10, seed=i, size=size) for i in range(start, start + count)]


def dark(key: str, size: int, level: int) -> Sample:
    return Sample(key, {"png": images.encode_png(np.full((size, size, 3), level, np.uint8)), "cls": b"3"})


def purify(shard: Path, prior: Path, *arguments: object) -> Ran:
    return zipbatch("purify", shard, "--prior", prior, "--store", shard.parent / "pur", *arguments)


def purified(
    folder: Path, samples: Sequence[Sample], prior: Path, *arguments: object
) -> tuple[list[Sample], list[dict[str, Any]]]:
    """The purified samples of a shard, and the slots that its task record tells of."""
    shard = write_shard(folder / "in.tar", samples)
    ran = purify(shard, prior, *arguments, "--json")
    assert ran.code == 0, ran.err
    (task,) = Store(folder / "pur").root.glob("tasks/*/*.json")
    record = TaskRecord.model_validate(unsealed(task.read_bytes()))
    (out,) = zipbatch("store", "urls", ran.json["reference"], "--store", folder / "pur").out.split()
    assert record.samples_in == record.samples_out == len(samples)
    return list(read_shard(Path(out))), [run.model_dump() for run in record.slots]


def pngs(samples: Sequence[Sample]) -> list[bytes]:
    return [item.members["png"] for item in samples]


def distance(a: Sample, b: Sample) -> int:
    return int(np.abs(a.image().astype(int) - b.image().astype(int)).max())


@pytest.mark.parametrize(
    ("size", "count", "slots"), [(32, 64, 64), (32, 65, 64), (32, 1, 64), (64, 17, 16), (128, 5, 4), (256, 2, 1)]
)
def test_every_image_comes_back_from_its_slot(tmp_path: Path, canvas: Path, size: int, count: int, slots: int):
    samples = numbered(count, size)
    after, runs = purified(tmp_path, samples, canvas, *RETURN)
    assert [item.key for item in after] == [item.key for item in samples]
    assert all(distance(a, b) <= 1 for a, b in zip(samples, after, strict=True))
    assert runs == [{"samples": count, "width": size, "height": size, "slots": slots}]


def test_dark_images_are_images(tmp_path: Path, canvas: Path):
    """All black, nearly black, most of a canvas and all of its remainder: they come back, as dark as they were."""
    samples = [dark(f"k{i:04d}", 32, level) for i, level in enumerate([0, 1, 0, 0, 2] + [0] * 64)]
    samples[20:20] = numbered(3, 32, start=9000)
    after, _ = purified(tmp_path, samples, canvas, *RETURN)
    assert [item.key for item in after] == [item.key for item in samples]
    assert all(distance(a, b) <= 1 for a, b in zip(samples, after, strict=True))


def test_dark_images_survive_the_published_settings(tmp_path: Path, canvas: Path):
    samples = [*numbered(3, 32), *(dark(f"z{i}", 32, 0) for i in range(64))]
    after, _ = purified(tmp_path, samples, canvas, "--device", "cpu", "--steps", 2)
    assert [item.key for item in after] == [item.key for item in samples]


def test_fills_do_not_count(tmp_path: Path, canvas: Path):
    """The 65th image, on a canvas with copies of itself, is what it would be alone; and the first 64 don't see it."""
    samples = numbered(65, 32)
    for name in ("all", "first", "last"):
        (tmp_path / name).mkdir()
    whole, _ = purified(tmp_path / "all", samples, canvas, *QUICK, "--batch-size", 1)
    first, _ = purified(tmp_path / "first", samples[:64], canvas, *QUICK, "--batch-size", 1)
    last, _ = purified(tmp_path / "last", samples[64:], canvas, *QUICK, "--batch-size", 1)
    assert pngs(whole) == pngs(first) + pngs(last)
    assert distance(whole[0], samples[0]) > 8  # it was painted anew


def test_the_record_says_who_shared_a_canvas(tmp_path: Path, canvas: Path):
    """Another first image changes what shared its canvas by the record, and nothing else."""
    samples = [*numbered(66, 32), *numbered(5, 64, start=100), *numbered(3, 32, start=200)]
    changed = [sample(samples[0].key, 0, seed=77, size=32), *samples[1:]]
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
    before, runs = purified(tmp_path / "before", samples, canvas, *QUICK)
    after, again = purified(tmp_path / "after", changed, canvas, *QUICK)
    assert runs == again
    assert [(run["samples"], run["height"], run["slots"]) for run in runs] == [(66, 32, 64), (5, 64, 16), (3, 32, 64)]
    canvases = [(number, i // run["slots"]) for number, run in enumerate(runs) for i in range(run["samples"])]
    differs = [place for place, a, b in zip(canvases, pngs(before), pngs(after), strict=True) if a != b]
    assert set(differs) == {(0, 0)}
    assert len(differs) > 32


def test_batch_sizes_do_not_change_the_record(tmp_path: Path, canvas: Path):
    samples = numbered(130, 32)
    for name in ("one", "many"):
        (tmp_path / name).mkdir()
    one, runs = purified(tmp_path / "one", samples, canvas, *QUICK, "--batch-size", 1)
    many, again = purified(tmp_path / "many", samples, canvas, *QUICK, "--batch-size", 2)
    assert runs == again == [{"samples": 130, "width": 32, "height": 32, "slots": 64}]
    assert all(distance(a, b) <= 1 for a, b in zip(one, many, strict=True))


def test_labels_are_never_read(tmp_path: Path, canvas: Path):
    """Labels of another class, none, and ones that are no numbers: the pictures are the same to the byte."""

    def labelled(cls: bytes | None) -> list[Sample]:
        members = [{"png": images.encode_png(picture(i, 32))} for i in range(6)]
        extra = {} if cls is None else {"cls": cls, "json": b'{"poisoned": ' + cls + b"}"}
        return [Sample(f"k{i}", {**member, **extra}) for i, member in enumerate(members)]

    results = []
    for number, cls in enumerate([b"0", b"9", None, b"\xffnot a number"]):
        (tmp_path / str(number)).mkdir()
        after, _ = purified(tmp_path / str(number), labelled(cls), canvas, *QUICK)
        results.append(pngs(after))
        assert all(item.members.get("cls") == cls for item in after)
    assert results[0] == results[1] == results[2] == results[3]


def test_a_size_that_does_not_tile_is_refused_by_key(tmp_path: Path, canvas: Path):
    """256 is no multiple of 48: nothing is padded, cropped or left out in silence."""
    shard = write_shard(tmp_path / "in.tar", [*numbered(2, 32), *numbered(5, 48, start=50)])
    ran = purify(shard, canvas, *QUICK)
    assert ran.code == 1
    for part in ("in.tar", "'k0050'", "48x48", "neither equals nor tiles the prior's 256x256", "--resize stretch"):
        assert part in ran.err
    assert not (tmp_path / "pur" / "versions").exists() or not list((tmp_path / "pur" / "versions").iterdir())


@pytest.mark.parametrize(
    ("options", "side"),
    [
        (("--resize", "stretch"), 48),
        (("--resize", "stretch", "--output-size", "input"), 48),
        (("--resize", "stretch", "--output-size", "prior"), CANVAS),
        (("--resize", "center-crop"), CANVAS),
    ],
)
def test_a_size_that_does_not_tile_is_resized_when_asked(
    tmp_path: Path, canvas: Path, options: tuple[str, ...], side: int
):
    """What comes out has the size that went in, unless the prior's is asked for or a crop leaves no other."""
    samples = [*numbered(2, 32), *numbered(5, 48, start=50)]
    after, runs = purified(tmp_path, samples, canvas, *RETURN, *options)
    assert [item.key for item in after] == [item.key for item in samples]
    assert [item.image().shape[:2] for item in after] == [(32, 32)] * 2 + [(side, side)] * 5
    assert [(run["samples"], run["width"], run["slots"]) for run in runs] == [(2, 32, 64), (5, 256, 1)]
    expected = images.resize(images.resize(samples[2].image(), CANVAS, policy=options[1]), side)
    assert np.abs(after[2].image().astype(int) - expected.astype(int)).max() <= 1


def test_images_of_any_shape_come_out_in_theirs(tmp_path: Path, canvas: Path):
    shapes = [(48, 40), (40, 300), (48, 40), (257, 31)]
    samples = [
        Sample(f"k{i}", {"png": images.encode_png(images.stretch(picture(i, 64), *shape))})
        for i, shape in enumerate(shapes)
    ]
    after, _ = purified(tmp_path, samples, canvas, *RETURN, "--resize", "stretch")
    assert [item.image().shape[:2] for item in after] == shapes
