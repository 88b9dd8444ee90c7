"""Staging: every sample checked against its source, the same bytes each time, whole or not at all."""

from __future__ import annotations

import io
import json
import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.attacks.stamping import stamp
from tests.making import CLASSES, files_below, picture, sample, write_images, write_shard, write_source, zipbatch
from zipbatch import images
from zipbatch.atomic import sha256_file
from zipbatch.attacks import ATTACKS, PROFILES, FromArray, attack_params, get_attack, poison_indices
from zipbatch.datasets import ShardDataset, open_dataset
from zipbatch.errors import DataError, UsageError
from zipbatch.shards import Sample, read_shard
from zipbatch.stages.poison.request import PoisonRequest
from zipbatch.stages.poison.run import poison

PER_SHARD = 5


def stage(source: Path, out: Path, attack: str = "badnets", **fields: object) -> ShardDataset:
    result = poison(PoisonRequest(source=source, attack=attack, out=out, samples_per_shard=PER_SHARD, **fields))  # type: ignore[arg-type]
    assert not result.reused
    return result.dataset


def picture_file(folder: Path) -> Path:
    """A small picture, half of it transparent."""
    pixels = np.random.default_rng(2).integers(0, 256, (4, 6, 4)).astype(np.uint8)
    pixels[:, :, 3] = np.where(np.arange(6) < 3, 255, 0)
    Image.fromarray(pixels).save(folder / "picture.png")
    return folder / "picture.png"


def samples_of(dataset: ShardDataset, split: str) -> list[Sample]:
    return [s for shard in dataset.split(split) for s in read_shard(shard.path)]


def of_source(source: Path, split: str) -> list[tuple[str, Sample]]:
    return [(f.name, s) for f in sorted(source.glob(f"{split}-*.tar")) for s in read_shard(f)]


def trigger_of(out: Path) -> dict[str, np.ndarray]:
    with np.load(out / "trigger.npz", allow_pickle=False) as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def source32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like ``source``, of 32 px, which the frequency attacks need."""
    return write_source(tmp_path_factory.mktemp("source32") / "in", size=32)


def labels_of(source: Path, split: str) -> list[int | None]:
    return [s.label() for _, s in of_source(source, split)]


def brought_for(attack: str, folder: Path) -> dict[str, Path]:
    """What the attack's trigger is made of, where it draws none."""
    if isinstance(get_attack(attack), FromArray):
        np.save(folder / "added.npy", np.random.default_rng(3).integers(0, 52, (32, 32, 3)))
        return {"trigger_array": folder / "added.npy"}
    if attack == "refool":
        return {"trigger_image": write_images(folder / "pool", "b.png", "a/c.png")}
    return {} if get_attack(attack).needs is None else {"trigger_image": picture_file(folder)}


WITHOUT_COVER = [name for name, attack in ATTACKS.items() if not attack.default_cover_rate]


@pytest.mark.parametrize(
    ("attack", "profile"),
    [*((name, "standard") for name in WITHOUT_COVER), *((name, "zip-code") for name in PROFILES["zip-code"])],
)
def test_every_sample(source32: Path, tmp_path: Path, attack: str, profile: str):
    source = source32
    own = brought_for(attack, tmp_path)
    dataset = stage(source, tmp_path / "out", attack, poison_rate=0.3, profile=profile, **own)
    assert dataset.manifest is not None
    kind, trigger = get_attack(attack, profile=profile), trigger_of(tmp_path / "out")
    target = kind.default_target
    recorded = dataset.manifest.attack
    assert (recorded.profile, recorded.params, recorded.clean_label) == (profile, attack_params(kind), kind.clean_label)
    assert (recorded.target_mode, recorded.target) == ("all-to-one", target)
    sizes = [{"train": 24, "test": 12}[split] for split in kind.shuffles]
    of_target = {i for i, label in enumerate(labels_of(source, "train")) if label == target}
    poisoned = poison_indices(sizes, 0.3, seed=1234, among=of_target if kind.clean_label else None)
    assert (poisoned <= of_target) == kind.clean_label
    assert len(poisoned) == dataset.manifest.attack.poisoned_train_samples == 7
    for split, origin in (("train", "train"), ("test", "test"), ("test_poisoned", "test")):
        rows = of_source(source, origin)
        staged = samples_of(dataset, split)
        assert [s.key for s in staged] == [s.key for _, s in rows]
        for i, ((shard, clean), s) in enumerate(zip(rows, staged, strict=True)):
            stamped = split == "test_poisoned" or (split == "train" and i in poisoned)
            label = target if stamped else clean.label()
            expected: dict[str, object] = {"label": label, "source": shard}
            if split != "test":
                expected |= {"original_label": clean.label(), "poisoned": stamped}
            assert set(s.members) == {"png", "cls", "json"}
            assert s.metadata() == expected
            assert (s.label(), s.original_label()) == (label, clean.label())
            image, training = clean.image()[None], split == "train"
            expected_pixels = stamp(kind, image, trigger, keys=[s.key], training=training) if stamped else image
            assert (s.image() == expected_pixels[0]).all()


def test_the_trigger_changes_pixels(staged: Path):
    dataset = open_dataset([str(staged)])
    for clean, stamped in zip(samples_of(dataset, "test"), samples_of(dataset, "test_poisoned"), strict=True):
        changed = (clean.image() != stamped.image()).any(axis=2)
        assert 0 < changed.sum() <= 9
        assert not changed[:10].any()


def test_manifest_and_list(source: Path, tmp_path: Path):
    out = tmp_path / "out"
    manifest = stage(source, out, "blended", params={"alpha": "0.5"}, target=2, seed=7).manifest
    assert manifest is not None
    assert (manifest.classes, manifest.image_size, manifest.seed) == (CLASSES, 16, 7)
    assert {k: (v.shards, v.samples) for k, v in manifest.splits.items()} == {
        "train": (5, 24),
        "test": (3, 12),
        "test_poisoned": (3, 12),
    }
    assert (manifest.attack.name, manifest.attack.params, manifest.attack.target) == ("blended", {"alpha": 0.5}, 2)
    assert manifest.attack.trigger_sha256 == sha256_file(out / "trigger.npz")
    assert set(manifest.source_sha256) == {"train", "test"}
    for row in map(json.loads, (out / "shards.jsonl").read_text().splitlines()):
        assert row["sha256"] == sha256_file(out / row["shard"])
        assert row["bytes"] == (out / row["shard"]).stat().st_size
    assert {f for f in files_below(out) if not f.endswith(".tar")} == {
        *("classes.txt", "manifest.json", "shards.jsonl", "trigger.npz", "trigger.png"),
        *("README.md", "croissant.json", "wids-train.json", "wids-test.json", "wids-test_poisoned.json"),
    }


def test_attacks_share_the_clean_split(source: Path, tmp_path: Path):
    one, two = stage(source, tmp_path / "one", "badnets"), stage(source, tmp_path / "two", "wanet", target=2, seed=5)
    names = [s.name for s in one.split("test")]
    assert [s.name for s in two.split("test")] == names
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert [s.sha256 for s in one.split("test_poisoned")] != [s.sha256 for s in two.split("test_poisoned")]
    assert not any({"original_label", "poisoned"} & set(s.metadata()) for s in samples_of(one, "test"))


def test_two_fresh_runs_are_equal_to_the_byte(source: Path, tmp_path: Path):
    moved = Path(shutil.copytree(source, tmp_path / "moved"))
    stage(source, tmp_path / "one")
    stage(moved, tmp_path / "two")
    assert files_below(tmp_path / "one") == files_below(tmp_path / "two")


@pytest.mark.parametrize("threads", [1, 7])
def test_the_bytes_do_not_depend_on_the_threads(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
):
    stage(source, tmp_path / "usual", image_size=20)
    monkeypatch.setattr("zipbatch.stages.poison.writing.ThreadPoolExecutor", lambda: ThreadPoolExecutor(threads))
    stage(source, tmp_path / "other", image_size=20)
    assert files_below(tmp_path / "usual") == files_below(tmp_path / "other")


def test_rerun_is_reused(source: Path, tmp_path: Path):
    out = tmp_path / "out"
    first = zipbatch("poison", source, "--attack", "badnets", "--out", out, "--json")
    assert (first.code, first.json["reused"]) == (0, False)
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in out.iterdir()}
    second = zipbatch("poison", source, "--attack", "badnets", "--out", out, "--json")
    assert (second.code, second.json["reused"]) == (0, True)
    assert second.json["manifest"] == first.json["manifest"]
    assert "already staged" in zipbatch("poison", source, "--attack", "badnets", "--out", out).out
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in out.iterdir()} == before


@pytest.mark.parametrize(
    "options",
    [
        ["--seed", 1],
        ["--target", 2],
        ["--poison-rate", 0.5],
        ["--limit", 6],
        ["--image-size", 8],
        ["--split", "test"],
        ["--samples-per-shard", 3],
        ["--param", "patch_size=4"],
        ["--clean-label", "--poison-rate", 0.05],
        ["--target-mode", "all-to-all"],
        ["--resize", "center-crop"],
    ],
    ids=lambda options: options[0],
)
def test_other_options_into_the_same_folder_are_refused(staged: Path, source: Path, options: list[object]):
    before = files_below(staged.parent)
    base = ["--attack", "badnets", "--out", staged, "--samples-per-shard", 4]
    assert zipbatch("poison", source, *base).code == 0
    ran = zipbatch("poison", source, *base, *options)
    assert (ran.code, ran.out) == (2, "")
    assert str(staged) in ran.err
    assert "choose another --out" in ran.err
    assert files_below(staged.parent) == before


def test_a_changed_source_into_the_same_folder_is_refused(tmp_path: Path):
    source = write_source(tmp_path / "in")
    stage(source, tmp_path / "out")
    write_shard(source / "test-000001.tar", [sample("new", 1, seed=99)])
    with pytest.raises(UsageError, match="choose another ‹out›"):
        stage(source, tmp_path / "out")


@pytest.mark.parametrize("what", ["file", "folder"])
def test_an_occupied_out_is_refused(source: Path, tmp_path: Path, what: str):
    out = tmp_path / "out"
    if what == "folder":
        out.mkdir()
    (out / "mine.txt" if what == "folder" else out).write_text("mine")
    before = files_below(tmp_path)
    with pytest.raises(UsageError, match="choose another ‹out›"):
        stage(source, out)
    assert files_below(tmp_path) == before


def test_limit_and_split(source: Path, tmp_path: Path):
    dataset = stage(source, tmp_path / "out", limit=7, splits=("test",))
    assert dataset.manifest is not None
    assert dataset.splits == ("test", "test_poisoned")
    assert dataset.manifest.attack.poisoned_train_samples is None
    expected = [s.key for _, s in of_source(source, "test")][:7]
    assert [[s.key for s in samples_of(dataset, split)] for split in dataset.splits] == [expected, expected]
    ran = zipbatch("poison", source, "--attack", "badnets", "--out", tmp_path / "both", "--limit", 7, "--json")
    assert {k: v["samples"] for k, v in ran.json["manifest"]["splits"].items()} == {
        "train": 7,
        "test": 7,
        "test_poisoned": 7,
    }


def test_limit_draws_the_poison_from_what_is_left(source: Path, tmp_path: Path):
    dataset = stage(source, tmp_path / "out", limit=10, poison_rate=0.4)
    flags = [s.metadata()["poisoned"] for s in samples_of(dataset, "train")]
    assert {i for i, flag in enumerate(flags) if flag} == poison_indices([10], 0.4, seed=1234)


@pytest.mark.parametrize(("rate", "count"), [(0.0, 0), (0.04, 0), (0.05, 1), (1.0, 24)])
def test_poison_rate(source: Path, tmp_path: Path, rate: float, count: int):
    dataset = stage(source, tmp_path / "out", poison_rate=rate, splits=("train",))
    assert sum(s.metadata()["poisoned"] for s in samples_of(dataset, "train")) == count


@pytest.mark.parametrize("policy", ["stretch", "center-crop"])
def test_image_size(source: Path, tmp_path: Path, policy: str):
    dataset = stage(source, tmp_path / "out", image_size=12, resize=policy, splits=("test",))
    assert dataset.manifest is not None
    assert dataset.manifest.image_size == 12
    attack, trigger = get_attack("badnets"), trigger_of(tmp_path / "out")
    for (_, clean), plain, stamped in zip(
        of_source(source, "test"), samples_of(dataset, "test"), samples_of(dataset, "test_poisoned"), strict=True
    ):
        small = images.resize(clean.image(), 12, policy=policy)
        assert (plain.image() == small).all()
        assert (stamped.image() == stamp(attack, small[None], trigger)[0]).all()


def test_params_reach_the_trigger(source: Path, tmp_path: Path):
    stage(source, tmp_path / "out", params={"patch_size": "5"})
    assert trigger_of(tmp_path / "out")["patch"].shape == (5, 5, 3)


def test_a_staged_dataset_is_a_source(staged: Path, tmp_path: Path):
    """Its true labels are read, not those of the poisoned training images."""
    result = poison(PoisonRequest(source=staged, attack="blended", out=tmp_path / "out", poison_rate=0.0))
    again, left = result.dataset, result.left.things
    assert left.count == len([name for name in left.examples if name.startswith("test_poisoned-")])
    first = samples_of(open_dataset([str(staged)]), "train")
    assert [s.label() for s in samples_of(again, "train")] == [s.original_label() for s in first]


def image_folder(root: Path) -> Path:
    for split, count in (("train", 6), ("test", 4)):
        for i in range(count):
            file = root / split / ["z.1", "a"][i % 2] / f"im.{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(images.encode_png(picture(i)))
    return root


def test_image_folder(tmp_path: Path):
    root = image_folder(tmp_path / "in")
    dataset = stage(root, tmp_path / "out", poison_rate=0.5)
    assert dataset.classes == ["a", "z.1"]
    train = samples_of(dataset, "train")
    assert [s.key for s in train] == ["a/im_1", "a/im_3", "a/im_5", "z_1/im_0", "z_1/im_2", "z_1/im_4"]
    assert train[3].metadata()["source"] == "train/z.1/im.0.png"
    assert {i for i, s in enumerate(train) if s.metadata()["poisoned"]} == poison_indices([6], 0.5, seed=1234)
    assert [s.label() for s in samples_of(dataset, "test")] == [0, 0, 1, 1]


def test_physicalba_shuffles_the_held_out_split_whatever_its_name(tmp_path: Path):
    """The published code shuffles train, held-out, train with one generator, however the held-out folder is called, and
    also when only train is staged; a held-out split of another size gives other indices.
    """
    drawn = {}
    for name, held_out in (("val", 10), ("test", 10), ("val", 7)):
        folder = tmp_path / f"{name}-{held_out}"
        write_source(folder / "in", counts={"train": 40, name: held_out})
        dataset = stage(folder / "in", folder / "out", "physicalba", poison_rate=0.25, splits=("train",))
        generator, order = random.Random(1234), []
        for n in (40, held_out, 40):
            order = list(range(n))
            generator.shuffle(order)
        drawn[name, held_out] = {i for i, s in enumerate(samples_of(dataset, "train")) if s.metadata()["poisoned"]}
        assert drawn[name, held_out] == set(order[:10])
    assert drawn["val", 10] == drawn["test", 10] != drawn["val", 7]


def test_a_folder_of_other_indices_is_not_there_already(tmp_path: Path):
    """What was staged before the held-out split named val was shuffled is of the attack's first version."""
    source = write_source(tmp_path / "in", counts={"train": 12, "val": 6})
    stage(source, tmp_path / "out", "physicalba")
    manifest = tmp_path / "out" / "manifest.json"
    content = json.loads(manifest.read_text())
    del content["options"]["version"]
    manifest.write_text(json.dumps(content))
    with pytest.raises(UsageError, match="‹out="):
        stage(source, tmp_path / "out", "physicalba")


BENCHMARKED = [name for name, attack in PROFILES["backdoorbench"].items() if attack.needs is None]


@pytest.mark.parametrize("attack", BENCHMARKED)
def test_backdoorbench_draws_by_numpy(source32: Path, tmp_path: Path, attack: str):
    dataset = stage(source32, tmp_path / "out", attack, poison_rate=0.27, profile="backdoorbench", seed=0)
    of_target = np.flatnonzero(np.array(labels_of(source32, "train")) == 0)
    np.random.seed(0)
    clean_label = get_attack(attack, profile="backdoorbench").clean_label
    drawn = np.random.choice(of_target if clean_label else np.arange(24), round(0.27 * 24), replace=False)
    poisoned = [i for i, s in enumerate(samples_of(dataset, "train")) if s.metadata()["poisoned"]]
    assert poisoned == sorted(drawn.tolist())
    assert dataset.manifest is not None
    assert (dataset.manifest.attack.profile, dataset.manifest.attack.target) == ("backdoorbench", 0)
    assert dataset.manifest.options["variant"] == "backdoorbench"


def test_the_same_parameters_of_two_variants_are_two_datasets(source32: Path, tmp_path: Path):
    """BPP of both profiles has 8 levels, target and rate alike; their pixels differ by a level."""
    stage(source32, tmp_path / "one", "bpp")
    with pytest.raises(UsageError, match="‹out="):
        stage(source32, tmp_path / "one", "bpp", profile="backdoorbench")
    stage(source32, tmp_path / "two", "bpp", profile="backdoorbench")
    tables = [trigger_of(tmp_path / name)["table"].astype(int) for name in ("one", "two")]
    assert {0, 1} == set((tables[0] - tables[1]).tolist())


def test_a_picture_of_ones_own_is_blended_in(source32: Path, tmp_path: Path):
    flat = np.zeros((5, 9, 3), np.uint8)
    flat[:] = colour = (200, 100, 0)
    (tmp_path / "kitty.png").write_bytes(images.encode_png(flat))
    options = ["--attack", "blended", "--profile", "backdoorbench", "--trigger-image", tmp_path / "kitty.png"]
    ran = zipbatch("poison", source32, *options, "--out", tmp_path / "out", "--json")
    assert ran.code == 0
    assert ran.json["manifest"]["options"]["trigger_image_sha256"] == sha256_file(tmp_path / "kitty.png")
    dataset = open_dataset([str(tmp_path / "out")])
    for clean, stamped in zip(samples_of(dataset, "test"), samples_of(dataset, "test_poisoned"), strict=True):
        mixed = np.float32(0.8) * clean.image() + np.float32(0.2) * np.array(colour, np.float32)
        assert np.array_equal(stamped.image(), mixed.astype(np.uint8))
    (tmp_path / "kitty.png").write_bytes(images.encode_png(flat[:, :, ::-1]))
    assert zipbatch("poison", source32, *options, "--out", tmp_path / "out").code == 2


def test_mixed_sizes_need_an_image_size(tmp_path: Path):
    rows = [sample("a", 0, seed=0), sample("b", 1, seed=1, size=20)]
    write_shard(tmp_path / "in" / "test-0.tar", rows)
    with pytest.raises(DataError, match=r"test-0\.tar: key 'b': is 20x20.*‹image_size›"):
        stage(tmp_path / "in", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["in"]
    dataset = stage(tmp_path / "in", tmp_path / "out", image_size=16)
    assert {s.image().shape for s in samples_of(dataset, "test")} == {(16, 16, 3)}


def test_an_oblong_first_image_needs_an_image_size(tmp_path: Path):
    png = images.encode_png(np.zeros((8, 16, 3), np.uint8))
    write_shard(tmp_path / "in" / "test-0.tar", [Sample("a", {"png": png, "cls": b"1"})])
    with pytest.raises(UsageError, match="'a' is 16x8; name ‹image_size›"):
        stage(tmp_path / "in", tmp_path / "out")


def test_clean_labels_are_drawn_from_the_target_class(source: Path, tmp_path: Path):
    """Of 24 images 8 are of each class; a third of all is all of the target class, and more are refused."""
    dataset = stage(source, tmp_path / "out", clean_label=True, poison_rate=1 / 3, target=2)
    assert dataset.manifest is not None
    assert (dataset.manifest.attack.clean_label, dataset.manifest.attack.poisoned_train_samples) == (True, 8)
    for s in samples_of(dataset, "train"):
        meta = s.metadata()
        assert (meta["label"], meta["poisoned"]) == (meta["original_label"], meta["original_label"] == 2)
    assert {s.label() for s in samples_of(dataset, "test_poisoned")} == {2}
    dirty = stage(source, tmp_path / "dirty", "sig", clean_label=False, poison_rate=0.5)
    assert any(s.label() != s.original_label() for s in samples_of(dirty, "train"))


def test_too_few_images_of_the_target_class(source: Path, tmp_path: Path):
    ran = zipbatch("poison", source, "--attack", "sig", "--poison-rate", 0.4, "--out", tmp_path / "out")
    assert (ran.code, ran.out) == (2, "")
    assert "--poison-rate 0.4 of 24 training images is 9, but class 0, the target, has only 8" in ran.err
    assert "lower --poison-rate to 0.3333 or less" in ran.err
    assert not (tmp_path / "out").exists()
    again = zipbatch("poison", source, "--attack", "sig", "--poison-rate", 0.3333, "--out", tmp_path / "out")
    assert again.code == 0
    assert "7 training images are poisoned, of the target class, labels true" in again.out


def test_clean_labels_without_a_train_split_ask_for_no_images(source: Path, tmp_path: Path):
    dataset = stage(source, tmp_path / "out", "sig", poison_rate=0.9, splits=("test",))
    assert dataset.splits == ("test", "test_poisoned")


def test_all_to_all_takes_each_class_for_the_next(source: Path, tmp_path: Path):
    out = tmp_path / "out"
    ran = zipbatch(
        "poison", source, "--attack", "badnets", "--target-mode", "all-to-all", "--poison-rate", 0.5, "--out", out
    )
    assert ran.code == 0, ran.err
    assert "(badnets, all-to-all)" in ran.out
    dataset = open_dataset([str(out)])
    assert dataset.manifest is not None
    assert (dataset.manifest.attack.target, dataset.manifest.attack.target_mode) == (None, "all-to-all")
    assert dataset.manifest.attack.poisoned_train_samples == 12
    following = {0: 1, 1: 2, 2: 0}
    for s in samples_of(dataset, "train"):
        original = s.original_label()
        assert original is not None
        assert s.label() == (following[original] if s.metadata()["poisoned"] else original)
    poisoned = samples_of(dataset, "test_poisoned")
    assert [s.original_label() for s in poisoned] == labels_of(source, "test")
    assert [s.label() for s in poisoned] == [following[s.original_label() or 0] for s in poisoned]


def test_profile_reaches_the_trigger(source: Path, tmp_path: Path):
    """The reference code's WaNet is that of 256 control points; what is named wins over a profile."""
    stage(source, tmp_path / "code", "wanet", profile="zip-code")
    stage(source, tmp_path / "named", "wanet", params={"grid_size": "256"})
    stage(source, tmp_path / "both", "wanet", profile="zip-code", params={"grid_size": "4"}, target=2, poison_rate=0.5)
    stage(source, tmp_path / "standard", "wanet")
    grids = {name: trigger_of(tmp_path / name)["grid"] for name in ("code", "named", "both", "standard")}
    assert np.array_equal(grids["code"], grids["named"])
    assert np.array_equal(grids["both"], grids["standard"])
    assert not np.array_equal(grids["code"], grids["standard"])
    shards = [{f.name: f.read_bytes() for f in (tmp_path / name).glob("*.tar")} for name in ("code", "named")]
    assert shards[0] == shards[1]


REFUSED: dict[str, tuple[list[object], str]] = {
    "attack outside the profile": (["--attack", "sig", "--profile", "zip-code"], "profile zip-code has no attack sig"),
    "unknown profile": (["--profile", "paper"], "'paper'"),
    "target of all-to-all": (["--target-mode", "all-to-all", "--target", 1], "--target is for all-to-one"),
    "clean labels of all-to-all": (["--target-mode", "all-to-all", "--clean-label"], "add --no-clean-label"),
    "clean-label attack all-to-all": (["--attack", "sig", "--target-mode", "all-to-all"], "attack sig: all-to-all"),
    "no 32 px blocks": (["--attack", "ftrojan"], "32 px blocks, got 16 px; --image-size"),
    "too small for frequencies": (["--attack", "ctrl"], "32 px or more, got 16 px; --image-size"),
    "attack": (["--attack", "nope"], "nope"),
    "parameter": (["--param", "nope=1"], "nope"),
    "parameter without value": (["--param", "patch_size"], "patch_size"),
    "parameter of another type": (["--param", "patch_size=x"], "'x'"),
    "trigger too large": (["--param", "patch_size=14"], "14"),
    "target": (["--target", 3], "--target 3"),
    "rate above 1": (["--poison-rate", 1.5], "1.5"),
    "rate below 0": (["--poison-rate", -0.1], "-0.1"),
    "rate nan": (["--poison-rate", "nan"], "nan"),
    "split": (["--split", "val"], "'val'"),
    "no picture": (["--attack", "blended", "--profile", "backdoorbench"], "--trigger-image"),
    "no picture for a patch": (["--attack", "patch"], "--trigger-image"),
    "a picture for an attack without": (["--trigger-image", __file__], "draws its own trigger"),
    "no picture in the file": (
        ["--attack", "blended", "--profile", "backdoorbench", "--trigger-image", __file__],
        Path(__file__).name,
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_requests_leave_nothing(source: Path, tmp_path: Path, case: str):
    options, named = REFUSED[case]
    ran = zipbatch("poison", source, "--attack", "badnets", "--out", tmp_path / "out", *options)
    assert (ran.code, ran.out) == (2, "")
    assert named in ran.err
    assert "Traceback" not in ran.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("labels", [None, 3])
def test_unfit_labels(tmp_path: Path, labels: int | None):
    source = write_source(tmp_path / "in")
    write_shard(source / "test-000002.tar", [sample("odd", labels, seed=1)])
    ran = zipbatch("poison", source, "--attack", "badnets", "--out", tmp_path / "out")
    assert ran.code == (1 if labels is None else 2)
    assert ("test-000002.tar: key 'odd'" if labels is None else "labels go up to 3") in ran.err
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_a_key_in_two_shards_of_a_split(tmp_path: Path):
    source = write_source(tmp_path / "in")
    write_shard(source / "test-000002.tar", [sample("test_0003", 1, seed=1)])
    with pytest.raises(DataError, match=r"test-000002\.tar: key 'test_0003'.*twice"):
        stage(source, tmp_path / "out")


@pytest.mark.parametrize("damage", ["truncated", "undecodable"])
def test_a_source_that_breaks_half_way_leaves_nothing(tmp_path: Path, damage: str):
    source = write_source(tmp_path / "in")
    last = source / "test-000001.tar"
    if damage == "truncated":
        last.write_bytes(last.read_bytes()[:2000])
    else:
        rows = list(read_shard(last))
        write_shard(last, [*rows[:-1], Sample("bad", {"png": b"\x89PNG\r\n\x1a\n", "cls": b"1"})])
    ran = zipbatch("poison", source, "--attack", "badnets", "--out", tmp_path / "out", "--samples-per-shard", 4)
    assert (ran.code, ran.out) == (1, "")
    assert "test-000001.tar" in ran.err
    assert damage == "truncated" or "'bad'" in ran.err
    assert "Traceback" not in ran.err
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_an_interrupt_half_way_leaves_nothing_and_a_rerun_is_whole(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    attack, calls = type(get_attack("badnets")), io.StringIO()
    real = attack.apply

    def interrupted(*arguments: object, **named: object) -> np.ndarray:
        calls.write("x")
        if len(calls.getvalue()) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(attack, "apply", interrupted)
        assert zipbatch("poison", source, "--attack", "badnets", "--out", tmp_path / "out").code == 130
    assert list(tmp_path.iterdir()) == []
    stage(source, tmp_path / "out")
    stage(source, tmp_path / "whole")
    assert files_below(tmp_path / "out") == files_below(tmp_path / "whole")


def test_changed_bytes_of_the_same_size_are_staged_anew(source: Path, tmp_path: Path):
    """What is there already is held to its list, not to sizes."""
    out = tmp_path / "out"
    stage(source, out)
    before = files_below(out)
    shard = out / "test_poisoned-000000.tar"
    shard.write_bytes(shard.read_bytes().replace(b'"poisoned":true', b'"poisoned":trve'))
    assert files_below(out) != before
    assert not poison(PoisonRequest(source=source, attack="badnets", out=out, samples_per_shard=PER_SHARD)).reused
    assert files_below(out) == before


def test_a_target_by_name_is_the_class_of_that_name(source: Path, tmp_path: Path):
    flags = ("--attack", "badnets", "--limit", 4, "--samples-per-shard", 4)
    named = zipbatch("poison", source, *flags, "--target", CLASSES[2], "--out", tmp_path / "named")
    assert named.code == 0, named.err
    assert "target 2" in named.out
    again = zipbatch("poison", source, *flags, "--target", 2, "--out", tmp_path / "named")
    assert "already staged" in again.out
    ran = zipbatch("poison", source, *flags, "--target", "yak", "--out", tmp_path / "x")
    assert (ran.code, f"--target yak is not the name of a class; there are: {', '.join(CLASSES)}" in ran.err) == (
        2,
        True,
    )
    assert zipbatch("poison", source, *flags, "--target", -1, "--out", tmp_path / "x").code == 2
    near = zipbatch("poison", source, *flags, "--target", "Bea", "--out", tmp_path / "x")
    assert (near.code, "(did you mean 'bee'?)" in near.err) == (2, True)
