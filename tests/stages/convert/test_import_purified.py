"""Importing purified images: one file for each sample, paired shard by shard, evaluated like any other version."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.making import Ran, files_below, picture, sample, write_shard, zipbatch
from tests.test_strays import STRAYS
from zipbatch import images
from zipbatch.datasets import open_dataset
from zipbatch.shards import Sample, read_shard
from zipbatch.store import Store


def samples(staged: Path, split: str) -> list[Sample]:
    return [s for shard in open_dataset([str(staged)]).split(split) for s in read_shard(shard.path)]


def purified(seed: int) -> images.U8:
    return picture(5000 + seed)


def export(staged: Path, folder: Path, *splits: str) -> Path:
    """Purified images as another tool would write them: by key, below folders that mean nothing."""
    for number, split in enumerate(splits or ("test", "test_poisoned")):
        for i, item in enumerate(samples(staged, split)):
            file = folder / split / ("a/b" if i % 2 else "") / f"{item.key}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(images.encode_png(purified(100 * number + i)))
    return folder


def run(folder: Path, staged: Path, store: Path, *more: object) -> Ran:
    return zipbatch("store", "import", folder, "--data", staged, "--store", store, *more)


def objects(store: Path, reference: str) -> Iterator[tuple[str, str, list[Sample]]]:
    opened = Store(store)
    for row in opened.versions.read(reference).rows:
        yield row.split, row.shard, list(read_shard(opened.objects.path(row.output)))


def test_every_sample(staged: Path, tmp_path: Path):
    folder, store = export(staged, tmp_path / "in"), tmp_path / "pur"
    ran = run(folder, staged, store, "--name", "theirs", "--tag", "first", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["reference"] == "theirs@first"
    assert ran.json["tags"] == ["first", "latest"]
    assert ran.json["counts"] == {
        "test": {"shards": 3, "samples": 12},
        "test_poisoned": {"shards": 3, "samples": 12},
    }
    dataset = open_dataset([str(staged)])
    shards = {s.name: s for s in dataset.shards}
    seen = {"test": 0, "test_poisoned": 0}
    for split, name, out in objects(store, "theirs@first"):
        for before, after in zip(read_shard(shards[name].path), out, strict=True):
            assert after.key == before.key
            assert {k: v for k, v in after.members.items() if k != "png"} == {
                k: v for k, v in before.members.items() if k != "png"
            }
            number = 100 * (split == "test_poisoned") + seen[split]
            assert np.array_equal(after.image(), purified(number))
            seen[split] += 1
    version = Store(store).versions.read("theirs@first")
    assert [(row.shard, row.input) for row in version.rows] == [
        (s.name, s.sha256) for s in dataset.shards if s.split != "train"
    ]
    assert version.header.purifier == {
        "method": "import",
        "algorithm_version": 1,
        "settings": {},
        "resize": None,
        "content_sha256": ran.json["content_sha256"],
    }
    assert zipbatch("store", "verify", "--store", store).code == 0


def test_evaluate(staged: Path, victim: Path, tmp_path: Path):
    """The identity, imported, is measured as no defence at all is."""
    for split in ("test", "test_poisoned"):
        for item in samples(staged, split):
            file = tmp_path / "in" / split / f"{item.key}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(item.members["png"])
    assert run(tmp_path / "in", staged, tmp_path / "pur", "--name", "x", "--tag", "same").code == 0
    sheet = tmp_path / "sheet.png"
    command = ["evaluate", victim, "--data", staged, "--purified", "x@same", "--store", tmp_path / "pur"]
    ran = zipbatch(*command, "--sheet", sheet, "--json")
    assert ran.code == 0, ran.err
    none, same = ran.json["rows"]
    assert (same["purifier"], same["settings"], same["flip_rate"]) == ("import", "import", 0.0)
    measures = ("ca", "asr", "pa", "ra", "n_ca", "n_asr")
    assert [same[m] for m in measures] == [none[m] for m in measures]
    assert sheet.is_file()
    assert "import" in zipbatch("store", "ls", "--store", tmp_path / "pur").out


def test_the_same_again_adds_nothing_and_other_images_another_version(staged: Path, tmp_path: Path):
    folder, store = export(staged, tmp_path / "in"), tmp_path / "pur"
    first = run(folder, staged, store, "--json").json
    before = files_below(store / "versions"), files_below(store / "objects"), files_below(store / "tasks")
    moved = tmp_path / "moved"  # paths do not matter, keys do
    for split in ("test", "test_poisoned"):
        shutil.copytree(folder / split, moved / split / "elsewhere")
    again = run(moved, staged, store, "--json").json
    after = files_below(store / "versions"), files_below(store / "objects"), files_below(store / "tasks")
    assert (again["new"], again["version"], after) == (False, first["version"], before)
    first_file(folder).write_bytes(images.encode_png(picture(77)))
    other = run(folder, staged, store, "--json").json
    assert (other["new"], other["version"] == first["version"]) == (True, False)


@pytest.mark.parametrize("stray", STRAYS)
def test_strays_and_linked_folders(staged: Path, tmp_path: Path, stray: str):
    plain = run(export(staged, tmp_path / "plain"), staged, tmp_path / "pur", "--name", "x", "--json").json
    folder = export(staged, tmp_path / "in")
    for at in (folder, folder / "test", folder / "test/a"):
        (at / stray).write_bytes(b"x")
    (folder / "test/a").rename(folder / "test/.moved")
    (folder / "test/a").symlink_to(".moved")
    again = run(folder, staged, tmp_path / "pur", "--name", "x", "--json")
    assert (again.code, again.json["content_sha256"]) == (0, plain["content_sha256"])


def test_jpeg_is_stored_as_png(staged: Path, tmp_path: Path):
    decoded = {}
    for item in samples(staged, "test"):
        buffer = io.BytesIO()
        Image.fromarray(item.image()).save(buffer, "JPEG", quality=50)
        (tmp_path / "in/test").mkdir(parents=True, exist_ok=True)
        (tmp_path / "in/test" / f"{item.key}.JPG").write_bytes(buffer.getvalue())
        decoded[item.key] = images.decode(buffer.getvalue(), "jpg")
    assert run(tmp_path / "in", staged, tmp_path / "pur", "--name", "x").code == 0
    for _, _, out in objects(tmp_path / "pur", "x"):
        for item in out:
            assert set(item.members) == {"png", "cls", "json"}
            assert np.array_equal(item.image(), decoded[item.key])


def first_file(folder: Path, split: str = "test") -> Path:
    return next(iter(sorted((folder / split).glob("*.png"))))


def damage_missing(folder: Path) -> None:
    first_file(folder).unlink()


def damage_twice(folder: Path) -> None:
    (folder / "test/again").mkdir()
    shutil.copy(first_file(folder), folder / "test/again")


def damage_unknown(folder: Path) -> None:
    shutil.copy(first_file(folder), folder / "test/0.png")


def damage_size(folder: Path) -> None:
    first_file(folder).write_bytes(images.encode_png(picture(0, 20)))


def damage_bytes(folder: Path) -> None:
    first_file(folder).write_bytes(b"\x89PNG")


def damage_foreign(folder: Path) -> None:
    (folder / "test/notes.txt").write_text("x")


def damage_link(folder: Path) -> None:
    (folder / "test/x.png").symlink_to(folder / "gone.png")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_missing, "key 'test_0000': 1 of 12 samples of split test are missing"),
        (damage_twice, "key 'test_0000': is a second image of this sample"),
        (damage_unknown, "0.png: is no sample of split test"),
        (damage_size, "key 'test_0000': is 20x20, its sample is 16x16"),
        (damage_bytes, "key 'test_0000': "),
        (damage_foreign, "notes.txt: is not an image file"),
        (damage_link, "x.png: is not an image file"),
    ],
)
def test_what_does_not_pair_is_refused(staged: Path, tmp_path: Path, damage: Callable[[Path], None], words: str):
    folder = export(staged, tmp_path / "in")
    damage(folder)
    ran = run(folder, staged, tmp_path / "pur")
    assert (ran.code, ran.out) == (1, "")
    assert words in ran.err
    assert not (tmp_path / "pur").exists()


def test_a_path_that_may_be_two_keys(tmp_path: Path):
    write_shard(tmp_path / "data/test-000000.tar", [sample("x/1", 0, seed=1), sample("1", 0, seed=2)])
    for name in ("1", "x/1"):
        file = tmp_path / "in/test" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(images.encode_png(picture(0)))
    ran = run(tmp_path / "in", tmp_path / "data", tmp_path / "pur")
    assert (ran.code, "1.png: may be 'x/1' or '1'; say which with --map" in ran.err) == (1, True)
    (tmp_path / "map.csv").write_text("path,key\ntest/x/1.png,x/1\ntest/1.png,1\n")
    assert run(tmp_path / "in", tmp_path / "data", tmp_path / "pur", "--map", tmp_path / "map.csv").code == 0


def test_keys_with_folders(tmp_path: Path):
    write_shard(tmp_path / "data/a.tar", [sample(f"cat/{i}", 0, seed=i) for i in range(3)])
    for i in range(3):
        file = tmp_path / f"in/data/deep/cat/{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(images.encode_png(purified(i)))
    assert run(tmp_path / "in", tmp_path / "data", tmp_path / "pur", "--name", "bare").code == 0
    ((split, shard, out),) = objects(tmp_path / "pur", "bare")
    assert (split, shard, [s.key for s in out]) == ("data", "a.tar", ["cat/0", "cat/1", "cat/2"])


def published_layout(staged: Path, tmp_path: Path) -> tuple[Path, list[tuple[str, str, str]]]:
    """Images named by batch order, as the ZIP code leaves them, and which is which."""
    folder, rows = tmp_path / "pur/Mode3/CIFAR10/BadNets", []
    for split in ("test", "test_poisoned"):
        order = np.random.default_rng(0).permutation(12)
        for place, i in enumerate(order):
            name = f"{split[-5:]}_{place}.png"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(images.encode_png(purified(int(i))))
            rows.append((name, f"test_{i:04d}", split))
    return folder, rows


def test_the_published_layout_needs_a_map(staged: Path, tmp_path: Path):
    folder, rows = published_layout(staged, tmp_path)
    ran = run(folder, staged, tmp_path / "store")
    assert (ran.code, ran.out) == (2, "")
    assert "do not say which sample an image is: give --map" in ran.err
    table = tmp_path / "map.csv"
    table.write_text("path,key,split\n" + "".join(f"{','.join(row)}\n" for row in rows))
    ran = run(folder, staged, tmp_path / "store", "--map", table, "--json")
    assert ran.code == 0, ran.err
    assert set(ran.json["counts"]) == {"test", "test_poisoned"}
    for _, _, out in objects(tmp_path / "store", staged.name):
        for item in out:
            assert np.array_equal(item.image(), purified(int(item.key.removeprefix("test_"))))


def test_a_map_of_one_split(staged: Path, tmp_path: Path):
    folder, rows = published_layout(staged, tmp_path)
    table = tmp_path / "map.csv"
    table.write_text("path,key\n" + "".join(f"{path},{key}\n" for path, key, split in rows if split == "test"))
    ran = run(folder, staged, tmp_path / "store", "--map", table)
    assert (ran.code, "no column split" in ran.err) == (2, True)
    ran = run(folder, staged, tmp_path / "store", "--map", table, "--split", "test", "--json")
    assert (ran.code, set(ran.json["counts"])) == (0, {"test"})


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        ("", 1, "not path,key"),
        ("path,key\n", 2, "names no file"),
        ("file,key\n", 1, "starts with 'file,key'"),
        ("path,key,split\na.png,test_0000\n", 1, "map.csv:2: has 2 fields, not 3"),
        ("path,key,split\nx_0.png,test_0000,val\n", 1, "split 'val' is not one of"),
        ("path,key,split\nx_0.png,nobody,test\n", 1, "map.csv:2: key 'nobody': is no sample of split test"),
        ("path,key,split\n../x.png,test_0000,test\n", 1, "'../x.png' is not one below"),
        ("path,key,split\n/etc/passwd,test_0000,test\n", 1, "'/etc/passwd' is not one below"),
        ("path,key,split\ngone.png,test_0000,test\n", 1, "gone.png: is not an image file"),
        ("path,key,split\n_test_0.png,test_0000,test\n", 1, "11 of 12 samples of split test are missing"),
        ("path,key,split\n_test_0.png,test_0000,test\n_test_0.png,test_0001,test\n", 1, "_test_0.png occurs twice"),
        ("path,key,split\n_test_0.png,test_0000,test\n_test_1.png,test_0000,test\n", 1, "is a second image"),
        ("path,key\n\xff", 1, "map.csv"),
        (f"path,key,split\n{'x' * 5000}.png,test_0000,test\n", 1, "is not an image file"),
        (f"path,key,split\nx.png,{'k' * 5000},test\n", 1, "is no sample of split test"),
        ("path,key,split\nx\0.png,test_0000,test\n", 1, "is not one below"),
    ],
)
def test_maps_that_do_not_fit(staged: Path, tmp_path: Path, content: str, code: int, words: str):
    for i in range(2):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"_test_{i}.png").write_bytes(images.encode_png(purified(i)))
    (tmp_path / "map.csv").write_bytes(content.encode("latin-1"))
    ran = run(tmp_path / "in", staged, tmp_path / "pur", "--map", tmp_path / "map.csv")
    assert (ran.code, ran.out) == (code, ""), ran.err
    assert words in ran.err
    assert not (tmp_path / "pur").exists()


def test_refused_requests(staged: Path, tmp_path: Path):
    folder = export(staged, tmp_path / "in")
    (folder / "logs").mkdir()
    for more, words in (
        ((), "logs: is no split of the data"),
        (("--split", "val"), "no split 'val'"),
        (("--map", tmp_path / "gone.csv"), "gone.csv: no such file"),
        (("--tag", "a/b"), "--tag 'a/b'"),
        (("--name", ".."), "--name"),
    ):
        ran = run(folder, staged, tmp_path / "pur", *more)
        assert (ran.code, words in ran.err) == (2, True), ran.err
    assert run(tmp_path / "gone", staged, tmp_path / "pur").code == 2
    assert not (tmp_path / "pur").exists()
    assert run(folder, staged, tmp_path / "pur", "--split", "test").code == 0


def test_changed_data_is_refused(staged: Path, tmp_path: Path):
    folder = export(staged, tmp_path / "in")
    copy = Path(shutil.copytree(staged, tmp_path / "copy"))
    shard = copy / "test-000001.tar"
    data = bytearray(shard.read_bytes())
    data[data.index(b"PNG") + 20] ^= 1  # same size, other bytes
    shard.write_bytes(bytes(data))
    ran = run(folder, copy, tmp_path / "pur")
    assert (ran.code, "not those the manifest lists" in ran.err) == (1, True)
    assert not (tmp_path / "pur").exists()
    assert run(folder, staged, tmp_path / "pur").code == 0
    assert zipbatch("store", "verify", "--store", tmp_path / "pur").code == 0


def zip_layout(staged: Path, root: Path, *, splits: tuple[str, ...] = ("val", "val_pois")) -> Path:
    """What the published code leaves: shuffled, numbered over all classes, originals beside what was made of them."""
    of = {"val": "test", "val_pois": "test_poisoned"}
    for name in splits:
        rows = samples(staged, of[name])
        for number, i in enumerate(np.random.default_rng(7).permutation(len(rows))):
            label = rows[i].label()
            for folder, pixels, stem in (
                (f"{name}_orig/{label}", rows[i].image(), f"{label}_{number}"),
                (
                    f"{name}/{label}" + ("/0" if name == "val_pois" else ""),
                    255 - rows[i].image(),
                    f"{label}_0_{number}",
                ),
                (f"{name}_apy/{label}", rows[i].image() // 2, f"{label}_{number}_1"),
            ):
                file = root / folder / f"{stem}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(images.encode_png(pixels))
        (root / "train").mkdir(exist_ok=True)
    return root


def test_what_the_published_code_leaves_is_told_by_its_originals(staged: Path, tmp_path: Path):
    folder = zip_layout(staged, tmp_path / "pur/Mode3/Set/Attack/deg/2.0/10")
    hint = run(folder, staged, tmp_path / "store")
    assert (hint.code, "--layout zip" in hint.err) == (2, True)
    ran = run(folder, staged, tmp_path / "store", "--layout", "zip", "--json")
    assert ran.code == 0, ran.err
    assert {split: count["samples"] for split, count in ran.json["counts"].items()} == {"test": 12, "test_poisoned": 12}
    found = {
        (split, item.key): item.image() for split, _, out in objects(tmp_path / "store", staged.name) for item in out
    }
    for split in ("test", "test_poisoned"):
        for item in samples(staged, split):
            assert np.array_equal(found[split, item.key], 255 - item.image())


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("an original is another picture", "1 samples of split test have no image with their pixels there"),
        ("a purified image is gone", "has no purified image of its number"),
        ("a name without a number", "has no number at the end of its name"),
        ("a number twice", "has the number of"),
        ("canvases", "tiles small images on canvases"),
    ],
)
def test_what_cannot_be_told_is_refused(staged: Path, tmp_path: Path, damage: str, words: str):
    folder = zip_layout(staged, tmp_path / "in", splits=("val",))
    original = sorted((folder / "val_orig").rglob("*.png"))[0]
    purified_one = sorted((folder / "val").rglob("*.png"))[0]
    if damage == "an original is another picture":
        original.write_bytes(images.encode_png(picture(999)))
    elif damage == "a purified image is gone":
        purified_one.unlink()
    elif damage == "a name without a number":
        purified_one.rename(purified_one.with_name("picture.png"))
    elif damage == "a number twice":
        shutil.copy(purified_one, purified_one.with_name("x" + purified_one.name))
    else:
        for file in (folder / "val_orig").rglob("*.png"):
            file.write_bytes(images.encode_png(np.zeros((64, 64, 3), np.uint8)))
    ran = run(folder, staged, tmp_path / "pur", "--layout", "zip")
    assert (ran.code in {1, 2}, ran.out) == (True, "")
    assert words in ran.err
    assert not (tmp_path / "pur").exists()


def test_a_folder_of_another_layout_says_what_it_holds(staged: Path, tmp_path: Path):
    folder = export(staged, tmp_path / "in")
    ran = run(folder, staged, tmp_path / "pur", "--layout", "zip")
    assert ran.code == 2
    assert "it holds test, test_poisoned" in ran.err
