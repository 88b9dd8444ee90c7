"""A BackdoorBench record becomes a staged dataset: each image its own bytes, labels and place of origin."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.foreign import SIZE, attack_result, stamped_picture, stamped_rows, write_record
from tests.making import CLASSES, Ran, files_below, picture, write_shard, zipbatch
from zipbatch import images
from zipbatch.datasets import open_dataset
from zipbatch.shards import Sample, read_shard

COUNT = 9


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """A record whose model is but one tensor."""
    return write_record(tmp_path / "record" / "badnet_0_1")


def write_clean(folder: Path, *, count: int = COUNT, labels: list[int] | None = None, size: int = SIZE) -> Path:
    """The clean test set in its own order, of three classes."""
    folder.mkdir()
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    labels = [index % 3 for index in range(count)] if labels is None else labels
    rows = [
        Sample(f"test_{i:05d}", {"png": images.encode_png(picture(1000 + i, size)), "cls": str(label).encode()})
        for i, label in enumerate(labels)
    ]
    for number, chunk in enumerate(np.array_split(np.arange(len(rows)), 2)):
        write_shard(folder / f"test-{number:06d}.tar", [rows[i] for i in chunk])
    return folder


def imported(record: Path, out: Path, *options: object) -> Ran:
    ran = zipbatch("import", "dataset", record, "--out", out, *options)
    assert ran.code == 0, ran.err
    return ran


def refused(ran: Ran, code: int, *parts: str) -> None:
    assert (ran.code, ran.out) == (code, ""), ran.err
    for part in parts:
        assert part in ran.err


def samples(out: Path, split: str) -> list[list[Sample]]:
    return [list(read_shard(shard.path)) for shard in open_dataset([str(out)]).split(split)]


def test_without_a_source_there_is_the_poisoned_split_alone(record: Path, tmp_path: Path):
    ran = imported(record, tmp_path / "staged", "--samples-per-shard", 4)
    assert "test_poisoned         6 images in 2 shards" in ran.out
    dataset = open_dataset([str(tmp_path / "staged")])
    manifest = dataset.manifest
    assert manifest is not None
    assert dataset.splits == ("test_poisoned",)
    assert (manifest.attack.name, manifest.attack.target, manifest.attack.poison_rate) == ("badnet_0_1", 0, 0.1)
    assert (manifest.attack.trigger_sha256, manifest.seed, manifest.image_size) == (None, None, SIZE)
    assert manifest.classes == ["0", "1", "2"]
    rows = [sample for shard in samples(tmp_path / "staged", "test_poisoned") for sample in shard]
    assert [sample.key for sample in rows] == [f"{label}/{index}" for index, label in stamped_rows()]
    for sample, (index, label) in zip(rows, stamped_rows(), strict=True):
        source = f"bd_test_dataset/{label}/{index}.png"
        assert sample.members["png"] == (record / source).read_bytes()
        assert (sample.label(), sample.original_label()) == (0, label)
        assert sample.metadata() == {
            "label": 0,
            "original_label": label,
            "poisoned": True,
            "source": source,
            "index": index,
        }


def test_with_a_source_twins_stand_in_shards_of_the_same_number(record: Path, tmp_path: Path):
    source = write_clean(tmp_path / "clean")
    imported(record, tmp_path / "staged", "--source", source, "--samples-per-shard", 4)
    clean, stamped = samples(tmp_path / "staged", "test"), samples(tmp_path / "staged", "test_poisoned")
    keys = [f"test_{index:05d}" for index, _ in stamped_rows()]
    assert [[s.key for s in shard] for shard in stamped] == [keys[:4], keys[4:]]
    assert [[s.key for s in shard] for shard in clean] == [
        keys[:4],
        keys[4:],
        ["test_00000", "test_00003", "test_00006"],
    ]
    for shard in clean:
        for sample in shard:
            index = int(sample.key.removeprefix("test_"))
            assert np.array_equal(sample.image(), picture(1000 + index, SIZE))
            assert sample.metadata() == {"label": index % 3, "source": sample.metadata()["source"], "index": index}
    assert np.array_equal(stamped[0][0].image(), stamped_picture(1))
    manifest = open_dataset([str(tmp_path / "staged")]).manifest
    assert manifest is not None
    assert manifest.classes == CLASSES


def test_the_victim_of_a_record_is_evaluated_on_its_data(tmp_path: Path):
    """Import both, purify, evaluate: every measure has its images, and fidelity its clean twins."""
    record = write_record(tmp_path / "record" / "badnet_0_1", attack_result(arch="preactresnet18"))
    source, store = write_clean(tmp_path / "clean"), tmp_path / "pur"
    imported(record, tmp_path / "staged", "--source", source, "--samples-per-shard", 4)
    assert zipbatch("import", "victim", record, "--out", tmp_path / "v").code == 0
    assert zipbatch("purify", tmp_path / "staged", "--purifier", "blur", "--store", store).code == 0
    asked = ("--data", tmp_path / "staged", "--purified", "staged", "--store", store, "--json")
    ran = zipbatch("evaluate", tmp_path / "v", *asked)
    assert ran.code == 0, ran.err
    before, after = ran.json["rows"]
    assert [before[f"n_{name}"] for name in ("ca", "asr", "pa", "ra")] == [9, 6, 6, 6]
    assert (before["attack"], after["n_flip"]) == ("badnet_0_1", 15)
    assert after["psnr_poisoned_db"] is not None
    assert after["psnr_clean_db"] is not None


def test_again_and_for_other_content(record: Path, tmp_path: Path):
    out = tmp_path / "staged"
    imported(record, out)
    before = files_below(out)
    assert "already staged" in imported(record, out).out
    assert files_below(out) == before
    moved = Path(shutil.copytree(record, tmp_path / "elsewhere" / "badnet_0_1"))
    imported(moved, tmp_path / "again")
    assert files_below(tmp_path / "again") == before, "the same record gives the same bytes, wherever it lies"
    refused(
        zipbatch("import", "dataset", record, "--out", out, "--samples-per-shard", 3),
        2,
        "taken by a staged dataset of other settings",
    )
    (record / "bd_test_dataset" / "1" / "1.png").write_bytes(images.encode_png(picture(7, SIZE)))
    refused(zipbatch("import", "dataset", record, "--out", out), 2, "taken by a staged dataset of other settings")


def test_several_targets_are_no_target(tmp_path: Path):
    content = attack_result()
    rows: dict[Any, Any] = content["bd_test"]["bd_data_container"]["data_dict"]
    for row in rows.values():
        row["other_info"][0] = (int(row["other_info"][1]) + 1) % 3
    imported(write_record(tmp_path / "r", content), tmp_path / "staged")
    manifest = open_dataset([str(tmp_path / "staged")]).manifest
    assert manifest is not None
    assert (manifest.attack.target, manifest.attack.params["targets"]) == (None, [0, 2])


@pytest.mark.parametrize(
    ("clean", "code", "words"),
    [
        ({"labels": [1, 0, 2] * 3}, 2, "image 1 of test (test_00001) is of class 0"),
        ({"count": 5}, 2, "test ends before image 5, which"),
        ({"size": 20}, 1, "is 20x20, the record's images are 16 px"),
    ],
)
def test_sources_that_are_of_other_data(record: Path, tmp_path: Path, clean: dict[str, Any], code: int, words: str):
    source = write_clean(tmp_path / "clean", **clean)
    ran = zipbatch("import", "dataset", record, "--source", source, "--out", tmp_path / "staged")
    refused(ran, code, words)
    assert not (tmp_path / "staged").exists()


def test_a_source_of_other_classes(record: Path, tmp_path: Path):
    source = write_clean(tmp_path / "clean")
    (source / "classes.txt").write_text("a\nb\nc\nd\n")
    ran = zipbatch("import", "dataset", record, "--source", source, "--out", tmp_path / "staged")
    refused(ran, 2, "has 4 classes, the record has 3")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda picture_: picture_.unlink(), "missing; attack_result.pt lists it as the stamped image of index 4"),
        (lambda picture_: picture_.write_bytes(b"text"), "key '1/4'"),
        (
            lambda picture_: picture_.write_bytes(images.encode_png(picture(1, 20))),
            "is 20x20, the record's images are 16",
        ),
    ],
)
def test_pictures_that_are_none(record: Path, tmp_path: Path, damage: Any, words: str):
    damage(record / "bd_test_dataset" / "1" / "4.png")
    ran = zipbatch("import", "dataset", record, "--out", tmp_path / "staged")
    refused(ran, 1, "bd_test_dataset/1/4.png", words)
    assert not (tmp_path / "staged").exists()


def test_a_record_that_is_not_there(tmp_path: Path):
    refused(zipbatch("import", "dataset", tmp_path / "gone", "--out", tmp_path / "s"), 2, "gone: missing")
    refused(zipbatch("import", "dataset", tmp_path, "--out", tmp_path / "s"), 2, "attack_result.pt: missing")
