"""``zipbatch store export``: plain folders that everything else reads, whole or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset as wds
from PIL import Image
from torchvision.datasets import ImageFolder

from tests.making import CLASSES, files_below, sample, write_shard, write_source, zipbatch
from zipbatch import images
from zipbatch.atomic import sha256_file
from zipbatch.datasets import open_dataset
from zipbatch.shards import Sample, ShardInfo, read_shard
from zipbatch.stages.purify.publish import publish_version
from zipbatch.storage import StoragePath
from zipbatch.store import Store, VersionRow

BESIDE = ("README.md", "croissant.json", "wids-test.json", "wids-test_poisoned.json")
BLUR = ("--purifier", "blur", "--device", "cpu")


def ok(*arguments: object) -> Any:
    """What a command says with ``--json``."""
    ran = zipbatch(*arguments, "--json")
    assert ran.code == 0, ran.err
    return ran.json


@pytest.fixture(scope="module")
def store(staged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The staged data, blurred."""
    store = tmp_path_factory.mktemp("export") / "pur"
    ok("purify", staged, *BLUR, "--store", store, "--tag", "nightly")
    return store


def purified(source: Path, tmp_path: Path) -> Path:
    """A store with the version ``in`` of a folder of bare shards."""
    ok("purify", source, *BLUR, "--name", "in", "--store", tmp_path / "pur")
    return tmp_path / "pur"


def rows(store: Path, reference: str) -> list[dict[str, Any]]:
    return list(ok("store", "show", reference, "--store", store)["shards"])


def test_shards_come_under_their_own_names_as_links(store: Path, tmp_path: Path):
    out = tmp_path / "deep" / "out"
    said = ok("store", "export", "tiny-badnets@nightly", out, "--store", store)
    assert (said["shards"], said["samples"], said["out"]) == (6, 24, str(out))
    listed = rows(store, "tiny-badnets")
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [*(row["shard"] for row in listed), *BESIDE, "manifest.json"]
    )
    for row in listed:
        file = store / "objects" / row["output"][:2] / f"{row['output']}.tar"
        assert (out / row["shard"]).samefile(file)
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["dataset"], manifest["purifier"]["method"]) == ("tiny-badnets", "blur")
    assert [(s["shard"], s["sha256"], s["samples"]) for s in manifest["shards"]] == [
        (row["shard"], row["output"], row["samples"]) for row in listed
    ]
    assert all(s["bytes"] == (out / s["shard"]).stat().st_size for s in manifest["shards"])
    assert "24 images of 6 shards" in zipbatch("store", "export", "tiny-badnets", tmp_path / "b", "--store", store).out


def test_copies_share_nothing_with_the_store(store: Path, tmp_path: Path):
    ok("store", "export", "tiny-badnets", tmp_path / "out", "--copy", "--store", store)
    shard = tmp_path / "out" / "test-000000.tar"
    assert shard.stat().st_nlink == 1
    assert sha256_file(shard) == rows(store, "tiny-badnets")[0]["output"]
    shard.write_bytes(b"spoilt")
    assert zipbatch("store", "verify", "--store", store).code == 0


def test_where_there_are_no_links_they_are_copied(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(_self: Path, _target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    ok("store", "export", "tiny-badnets", tmp_path / "out", "--store", store)
    assert (tmp_path / "out" / "test-000000.tar").stat().st_nlink == 1


def test_with_its_data_it_is_a_staged_dataset(store: Path, staged: Path, victim: Path, tmp_path: Path):
    out = tmp_path / "clean"
    ok("store", "export", "tiny-badnets", out, "--data", staged, "--store", store)
    dataset, before = open_dataset([str(out)]), open_dataset([str(staged)])
    assert dataset.manifest is not None
    assert before.manifest is not None
    assert (dataset.classes, dataset.manifest.attack) == (CLASSES, before.manifest.attack)
    assert dataset.manifest.options["purified"]["purifier"]["method"] == "blur"
    assert dataset.splits == ("test", "test_poisoned")
    assert all(sha256_file(Path(str(shard.path))) == shard.sha256 for shard in dataset.shards)
    direct = ok("evaluate", victim, "--data", out)
    through = ok("evaluate", victim, "--data", staged, "--purified", "tiny-badnets", "--store", store)
    found, expected = direct["rows"][0], through["rows"][1]
    assert [found[name] for name in ("ca", "asr", "pa", "n_ca", "n_pa")] == [
        expected[name] for name in ("ca", "asr", "pa", "n_ca", "n_pa")
    ]
    again = ok("purify", out, *BLUR, "--store", tmp_path / "pur", "--dry-run")
    assert (again["shards"], again["of_unknown_digest"]) == (6, 0)


def test_exported_shards_are_purified_and_read_like_any(store: Path, staged: Path, victim: Path, tmp_path: Path):
    out = tmp_path / "out"
    ok("store", "export", "tiny-badnets", out, "--split", "test", "--store", store)
    said = ok("purify", out, *BLUR, "--store", tmp_path / "pur")
    assert (said["computed"], said["samples"], list(said["counts"])) == (3, 12, ["test"])
    assert ok("evaluate", victim, "--data", out)["rows"][0]["n_ca"] == 12
    found = list(wds.WebDataset([str(f) for f in sorted(out.glob("*.tar"))], shardshuffle=False).decode("rgb8"))
    before = [s for f in sorted(staged.glob("test-*.tar")) for s in read_shard(f)]
    assert [(f["__key__"], f["cls"]) for f in found] == [(s.key, s.label()) for s in before]


def test_images_are_an_image_folder(store: Path, staged: Path, tmp_path: Path):
    out = tmp_path / "tree"
    ok("store", "export", "tiny-badnets", out, "--as", "images", "--data", staged, "--store", store)
    assert (out / "classes.txt").read_text().split() == CLASSES
    folder = ImageFolder(str(out / "test"))
    assert folder.classes == CLASSES
    listed = [row for row in rows(store, "tiny-badnets") if row["split"] == "test"]
    shards = [store / "objects" / row["output"][:2] / f"{row['output']}.tar" for row in listed]
    expected = {s.key: (s.label(), s.image()) for shard in shards for s in read_shard(shard)}
    assert len(folder) == len(expected) == 12
    for path, label in folder.samples:
        image = np.asarray(Image.open(path).convert("RGB"))
        assert expected[Path(path).stem][0] == label
        assert (expected[Path(path).stem][1] == image).all()


def test_images_go_back_into_a_store_as_they_are(store: Path, staged: Path, tmp_path: Path):
    ok("store", "export", "tiny-badnets", tmp_path / "tree", "--as", "images", "--store", store)
    said = ok("store", "import", tmp_path / "tree", "--data", staged, "--store", tmp_path / "pur")
    assert said["counts"] == ok("store", "show", "tiny-badnets", "--store", store)["counts"]
    assert [row["output"] for row in rows(tmp_path / "pur", "tiny-badnets")] == [
        row["output"] for row in rows(store, "tiny-badnets")
    ]


def test_poisoned_images_by_given_and_by_true_label(store: Path, staged: Path, tmp_path: Path):
    common = ("--as", "images", "--split", "test_poisoned", "--data", staged, "--store", store)
    ok("store", "export", "tiny-badnets", tmp_path / "given", *common)
    ok("store", "export", "tiny-badnets", tmp_path / "true", "--true-labels", *common)
    shards = sorted(staged.glob("test_poisoned-*.tar"))
    labels = {s.key: (s.label(), s.original_label()) for shard in shards for s in read_shard(shard)}
    for number, name in enumerate(("given", "true")):
        found = {f.stem: f.parent.name for f in (tmp_path / name).rglob("*.png")}
        assert found == {key: CLASSES[pair[number]] for key, pair in labels.items()}
    assert len({f.parent for f in (tmp_path / "given").rglob("*.png")}) == 1


def test_images_without_labels_and_with_slashes(tmp_path: Path):
    source = tmp_path / "in"
    write_shard(source / "day-000.tar", [sample("cam0/000", None, seed=1), sample("cam1/a/b", 2, seed=2)])
    store = purified(source, tmp_path)
    ok("store", "export", "in", tmp_path / "tree", "--as", "images", "--store", store)
    assert sorted(files_below(tmp_path / "tree")) == ["data/2/cam1/a/b.png", "data/cam0/000.png"]


def test_a_key_that_occurs_in_two_shards(tmp_path: Path):
    source = tmp_path / "in"
    for day in range(2):
        write_shard(source / f"day-{day:03d}.tar", [sample("same", None, seed=day)])
    ran = zipbatch("store", "export", "in", tmp_path / "t", "--as", "images", "--store", purified(source, tmp_path))
    assert (ran.code, ran.out) == (1, "")
    assert "key 'same': occurs twice in its split" in ran.err
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize("key", ["a" * 250, "x.png/" + "b", "x"])
def test_keys_that_are_no_names_of_files(tmp_path: Path, key: str):
    """One name is too long once it has its extension; another is a file and a folder at once."""
    source = tmp_path / "in"
    others = [sample("x", None, seed=1)] if key.startswith("x.png") else []
    write_shard(source / "day-000.tar", [*others, sample(key + ("" if len(key) < 9 else "long"), None, seed=2)])
    ran = zipbatch("store", "export", "in", tmp_path / "t", "--as", "images", "--store", purified(source, tmp_path))
    if key == "x":
        assert ran.code == 0, ran.err
        return
    assert (ran.code, ran.out) == (1, "")
    assert "key '" in ran.err
    assert not (tmp_path / "t").exists()


def test_a_label_beyond_the_classes(tmp_path: Path):
    source = write_source(tmp_path / "in", counts={"test": 3}, shards=1)
    store = purified(source, tmp_path)
    (source / "classes.txt").write_text("ant\nbee\n")
    ran = zipbatch("store", "export", "in", tmp_path / "t", "--as", "images", "--data", source, "--store", store)
    assert ran.code == 1
    assert "label 2 is none of the 2 classes" in ran.err
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize("name", ["../x", "a/b", ".."])
def test_a_class_that_is_no_name_of_a_folder(tmp_path: Path, name: str):
    source = write_source(tmp_path / "in", counts={"test": 3}, shards=1)
    store = purified(source, tmp_path)
    (source / "classes.txt").write_text(f"ant\nbee\n{name}\n")
    ran = zipbatch("store", "export", "in", tmp_path / "t", "--as", "images", "--data", source, "--store", store)
    assert ran.code == 2
    assert "cannot be the name of a folder" in ran.err
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize("form", ["shards", "images"])
def test_a_lost_object_exports_nothing(tmp_path: Path, form: str):
    store = purified(write_source(tmp_path / "in", counts={"test": 4}), tmp_path)
    sorted((store / "objects").rglob("*.tar"))[0].unlink()
    ran = zipbatch("store", "export", "in", tmp_path / "t", "--as", form, "--store", store)
    assert (ran.code, ran.out) == (1, "")
    assert "missing; run purify again" in ran.err
    assert not (tmp_path / "t").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".tmp-")]


@pytest.mark.parametrize("how", [(), ("--copy",), ("--as", "images")], ids=["links", "copies", "images"])
def test_a_damaged_object_is_not_handed_out(tmp_path: Path, how: tuple[str, ...]):
    store = purified(write_source(tmp_path / "in", counts={"test": 4}), tmp_path)
    file = sorted((store / "objects").rglob("*.tar"))[0]
    file.write_bytes(file.read_bytes() + b"\0" * 512)
    ran = zipbatch("store", "export", "in", tmp_path / "t", *how, "--store", store)
    assert (ran.code, ran.out) == (1, "")
    assert f"{file}: its bytes are not those its name says" in ran.err
    assert not (tmp_path / "t").exists()


def with_one_object(root: Path) -> tuple[Store, ShardInfo]:
    """A store that holds a shard of one image, and no version."""
    store = Store(root)
    store.prepare()
    with store.objects.new() as writer:
        writer.write(Sample("a", {"png": images.encode_png(np.zeros((4, 4, 3), np.uint8))}))
        info = writer.finish()
        store.objects.publish(writer, info)
    return store, info


@pytest.mark.parametrize(
    "name",
    [
        *("manifest.json", "shards.jsonl", "classes.txt", "trigger.npz", "trigger.png"),
        *("README.md", "croissant.json", "wids-test.json"),
    ],
)
def test_a_shard_named_as_a_file_beside_the_shards_reaches_no_object(staged: Path, tmp_path: Path, name: str):
    """Neither from a list of a store, nor from a staged folder; the object that its name would link to stays itself."""
    store, info = with_one_object(tmp_path / "pur")
    row = VersionRow("test", name, info.sha256, "0" * 64, 1)
    publish_version(store, "d", {"method": "x"}, rows=[row], tag=None, parent=None, started_ns=0)
    ran = zipbatch("store", "export", "d", tmp_path / "t", "--data", staged, "--store", store.root)
    assert ran.code == 2
    ran = zipbatch("store", "export", "d", tmp_path / "t", "--store", store.root)
    assert (ran.code, name in ran.err) == (2, True)
    assert not (tmp_path / "t").exists()
    assert sha256_file(Path(str(store.objects.path(info.sha256)))) == info.sha256
    folder = Path(shutil.copytree(staged, tmp_path / "staged"))
    listed = (folder / "shards.jsonl").read_text()
    (folder / "shards.jsonl").write_text(listed.replace("test-000000.tar", name))
    ran = zipbatch("purify", folder, *BLUR, "--store", tmp_path / "pur2")
    assert (ran.code, name in ran.err) == (2, True)


def test_what_cannot_be_asked(store: Path, staged: Path, source: Path, tmp_path: Path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")
    for arguments, part in (
        ((tmp_path / "full",), "full: exists already"),
        ((tmp_path / "full" / "x" / "y",), "exists already"),
        ((tmp_path / "o", "--split", "train"), "no split 'train'; it has test, test_poisoned"),
        ((tmp_path / "o", "--true-labels"), "--true-labels goes with --as images"),
        ((tmp_path / "o", "--as", "images", "--copy"), "--copy goes with --as shards"),
        ((tmp_path / "o", "--data", source), "was not made from"),
    ):
        ran = zipbatch("store", "export", "tiny-badnets", *arguments, "--store", store)
        assert (ran.code, ran.out) == (2, ""), arguments
        assert part in ran.err
    assert files_below(tmp_path) == {"full/x": b"mine"}


def test_a_list_with_a_path_in_it_writes_nowhere_else(tmp_path: Path):
    """Names in a store's lists are data of whoever wrote the store."""
    store, info = with_one_object(tmp_path / "pur")
    for number, name in enumerate(("../evil.tar", "/evil.tar", "..", "a/b.tar")):
        row = VersionRow("test" if number else "../t", name, info.sha256, "0" * 64, 1)
        publish_version(store, "d", {"method": "x"}, rows=[row], tag=None, parent=None, started_ns=number)
        for form in ("shards", "images") if number == 0 else ("shards",):
            ran = zipbatch("store", "export", "d", tmp_path / "t", "--as", form, "--store", store.root)
            assert ran.code == 1, ran.err
            assert "no name of a file" in ran.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pur"]


def test_export_from_any_kind_of_store(pur: StoragePath, source: Path, tmp_path: Path):
    ok("purify", source, *BLUR, "--split", "test", "--name", "in", "--store", pur)
    ok("store", "export", "in", tmp_path / "out", "--store", pur)
    ok("store", "export", "in", tmp_path / "tree", "--as", "images", "--data", source, "--store", pur)
    listed = ok("store", "show", "in", "--store", pur)["shards"]
    assert [sha256_file(tmp_path / "out" / row["shard"]) for row in listed] == [row["output"] for row in listed]
    assert len(ImageFolder(str(tmp_path / "tree" / "test"))) == 12
