"""Labels nobody promised never stop an evaluation; promised ones are held to their word."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.making import CLASSES, IMAGE_SIZE, picture, write_shard, zipbatch
from tests.stages.evaluate.test_evaluate import ALWAYS, constant, evaluated  # noqa: F401 (constant is a fixture)
from zipbatch import images
from zipbatch.shards import Sample, read_shard

UNUSABLE: dict[str, dict[str, bytes]] = {
    "a name": {"cls": b"walrus"},
    "below 0": {"cls": b"-1"},
    "a float": {"cls": b"1.5"},
    "nothing": {"cls": b""},
    "no text": {"cls": b"\xff\xfe"},
    "a name in json": {"json": b'{"label": "walrus"}'},
    "a list in json": {"json": b'{"label": [1]}'},
    "a caption": {"json": b"a walrus on the ice"},
    "a list of captions": {"json": b'["a walrus", "ice"]'},
}


def bare(folder: Path, members: list[dict[str, bytes]], *, sizes: list[int] | None = None) -> Path:
    """A shard with an image for each of ``members``, in shards of two."""
    rows = [
        Sample(f"k{i}", {"png": images.encode_png(picture(i, size)), **more})
        for i, (more, size) in enumerate(zip(members, sizes or [IMAGE_SIZE] * len(members), strict=True))
    ]
    for start in range(0, len(rows), 2):
        write_shard(folder / f"day-{start:03d}.tar", rows[start : start + 2])
    return folder


@pytest.mark.parametrize("kind", UNUSABLE)
def test_labels_that_cannot_be_used_count_as_none(constant: Path, tmp_path: Path, kind: str):  # noqa: F811
    data = bare(tmp_path / "in", [UNUSABLE[kind], {}, {}])
    (row,) = evaluated(constant, "--data", data)
    assert (row["ca"], row["n_ca"], row["n_unlabelled"]) == (None, 0, 3)
    assert "'k0'" in row["unlabelled_reason"]
    ran = zipbatch("evaluate", constant, "--data", data)
    assert (ran.code, ran.err.count("unlabelled")) == (0, 1)
    assert "key 'k0'" in ran.err


def test_images_without_labels_need_no_word(constant: Path, tmp_path: Path):  # noqa: F811
    ran = zipbatch("evaluate", constant, "--data", bare(tmp_path / "in", [{}, {}]))
    assert ran.code == 0
    assert "label" not in ran.err


def test_accuracy_is_of_the_labelled_and_flips_are_of_all(constant: Path, tmp_path: Path):  # noqa: F811
    members = [{"cls": str(ALWAYS).encode()}, {}, {"cls": b"walrus"}, {"cls": b"0"}, {}]
    data, store = bare(tmp_path / "in", members), tmp_path / "pur"
    assert zipbatch("purify", data, "--purifier", "blur", "--store", store).code == 0
    for row in evaluated(constant, "--data", data, "--purified", "in", "--store", store):
        assert (row["ca"], row["n_ca"], row["n_unlabelled"]) == (0.5, 2, 3)
    assert row["n_flip"] == 5
    table = zipbatch("evaluate", constant, "--data", data, "--purified", "in", "--store", store).out
    assert "3 more images have no label that can be used" in table


@pytest.mark.parametrize("member", ["cls", "json"])
def test_names_of_classes_are_labels_where_they_are_known(constant: Path, tmp_path: Path, member: str):  # noqa: F811
    names = [CLASSES[ALWAYS], CLASSES[0]]
    data = bare(
        tmp_path / "in",
        [{member: name.encode() if member == "cls" else json.dumps({"label": name}).encode()} for name in names],
    )
    (row,) = evaluated(constant, "--data", data)
    assert (row["ca"], row["n_unlabelled"]) == (None, 2)
    (data / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    (row,) = evaluated(constant, "--data", data)
    assert (row["ca"], row["n_ca"], row["n_unlabelled"]) == (0.5, 2, 0)


def test_labels_of_other_classes_than_the_victims_measure_nothing(constant: Path, tmp_path: Path):  # noqa: F811
    """Those that happen to be numbers of its classes are not its classes either."""
    data = bare(tmp_path / "in", [{"cls": b"2"}, {"cls": b"1"}, {"cls": b"3"}])
    ran = zipbatch("evaluate", constant, "--data", data, "--json")
    (row,) = ran.json["rows"]
    assert (ran.code, row["ca"], row["n_ca"]) == (0, None, 0)
    assert "key 'k2': label 3 is not one of the 3 classes" in ran.err


def test_a_staged_dataset_is_held_to_its_labels(constant: Path, staged: Path, tmp_path: Path):  # noqa: F811
    """Neither labels that were changed nor the bytes of a clean twin pass: their digests are known."""
    import shutil

    for split in ("test", "test_poisoned"):
        folder = Path(shutil.copytree(staged, tmp_path / split))
        shard = folder / f"{split}-000000.tar"
        rows = list(read_shard(shard))
        size = shard.stat().st_size
        changed = [Sample(row.key, {**row.members, "cls": b"2"}) for row in rows]
        write_shard(shard, changed)
        assert shard.stat().st_size == size
        ran = zipbatch("evaluate", constant, "--data", folder)
        assert (ran.code, ran.out) == (1, "")
        assert f"{shard}: its bytes are not those the manifest lists" in ran.err


def test_mixed_sizes_are_asked_size_by_size(tmp_path: Path):
    """A victim that takes any size is asked about each; its answer is the side of the image, so order shows."""
    (tmp_path / "by_size.py").write_text(
        "import numpy as np\ndef answer(images):\n    return np.eye(40)[np.full(len(images), images.shape[1])]\n"
    )
    sizes = [16, 32, 16, 24, 32]
    data = bare(tmp_path / "in", [{"cls": str(size).encode()} for size in sizes], sizes=sizes)
    store = tmp_path / "pur"
    assert zipbatch("purify", data, "--purifier", "blur", "--store", store).code == 0
    victim = f"python:{tmp_path / 'by_size.py'}:answer"
    for row in evaluated(victim, "--data", data, "--purified", "in", "--store", store):
        assert (row["ca"], row["n_ca"]) == (1.0, 5)
    assert row["n_flip"] == 5


def test_a_size_that_the_victim_does_not_take_is_named(constant: Path, tmp_path: Path):  # noqa: F811
    data = bare(tmp_path / "in", [{}, {}], sizes=[IMAGE_SIZE, 24])
    ran = zipbatch("evaluate", constant, "--data", data)
    assert (ran.code, ran.out) == (1, "")
    assert f"key 'k1': image is 24x24, the victim constant takes {IMAGE_SIZE} px" in ran.err


def test_poison_takes_names_of_classes(tmp_path: Path):
    names = [CLASSES[i % 3] for i in range(6)]
    rows = [Sample(f"k{i}", {"png": images.encode_png(picture(i)), "cls": n.encode()}) for i, n in enumerate(names)]
    write_shard(tmp_path / "in" / "test-000.tar", rows)
    (tmp_path / "in" / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    ran = zipbatch("poison", tmp_path / "in", "--attack", "badnets", "--out", tmp_path / "out")
    assert ran.code == 0, ran.err
    labels = [sample.label() for sample in read_shard(tmp_path / "out" / "test-000000.tar")]
    assert labels == [i % 3 for i in range(6)]
    assert np.unique(labels).tolist() == [0, 1, 2]


def test_images_of_bare_shards_are_counted_to_the_last(constant: Path, tmp_path: Path):  # noqa: F811
    """Nobody says beforehand how many there are; what is told at the end is how many there were."""
    from zipbatch.datasets import open_dataset
    from zipbatch.report.progress import Part, Progress
    from zipbatch.stages.evaluate.job import EvaluateJob
    from zipbatch.stages.evaluate.plan import plan_evaluate
    from zipbatch.stages.evaluate.run import evaluate
    from zipbatch.stages.evaluate.victims import find_victim

    data, told = bare(tmp_path / "in", [{}] * 5), list[Progress]()
    victims = (find_victim(str(constant)), find_victim(str(constant)))
    evaluate(
        plan_evaluate(EvaluateJob(victims=victims, dataset=open_dataset([str(data)]), data_label="in")),
        on_progress=told.append,
    )
    images = [progress.part("images").done for progress in told]
    assert images == sorted(images)
    assert (told[-1].part("shards"), told[-1].part("images")) == (Part("shards", 3, 3), Part("images", 5))
