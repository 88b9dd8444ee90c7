"""Purify whole datasets: the same bytes however the work is done, nothing lost, nothing done twice."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.making import (
    IMAGE_SIZE,
    Ran,
    files_below,
    picture,
    purifier_spec,
    sample,
    write_prior,
    write_shard,
    write_source,
    write_tar,
    zipbatch,
)
from zipbatch import images
from zipbatch.cluster import WorkerContext
from zipbatch.errors import Cancelled, DataError, WorkFailed
from zipbatch.purifiers.base import NonFiniteError
from zipbatch.shards import Sample, read_shard
from zipbatch.stages.purify import computing
from zipbatch.stages.purify import worker as purify_shard
from zipbatch.stages.purify.worker import PurifySetup, PurifyTask, PurifyWorker
from zipbatch.storage import StoragePath, stamp, storage_path
from zipbatch.store import Store

STEPS = ("--steps", 3, "--transform", "blur:2", "--device", "cpu")
BLUR = ("--purifier", "blur", "--device", "cpu")
IMAGE_MEMBERS = ("png", "jpg", "jpeg")


def purified(*arguments: object) -> dict[str, Any]:
    """What ``zipbatch purify --json`` says of a run that went well."""
    ran = zipbatch("purify", *arguments, "--json")
    assert ran.code == 0, ran.err
    return ran.json


def outputs(store: StoragePath, reference: str) -> list[StoragePath]:
    """The objects of a version, in order."""
    return [storage_path(line) for line in zipbatch("store", "urls", reference, "--store", store).out.splitlines()]


def shown(store: StoragePath, reference: str) -> dict[str, Any]:
    """A version's header and rows."""
    return zipbatch("store", "show", reference, "--store", store, "--json").json


def versions_in(store: Path) -> dict[str, bytes]:
    """Version lists by name; headers are left out, they hold the time of the run."""
    return {name: data for name, data in files_below(store / "versions").items() if name.endswith(".gz")}


def jpeg(pixels: images.U8) -> bytes:
    """The pixels as JPEG."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def check_same_but_images(inputs: Sequence[Path], purified_shards: Sequence[StoragePath]) -> None:
    """Keys in order, and every member but the image, are those of the input; the image is a PNG of the same size."""
    assert len(inputs) == len(purified_shards)
    for before, after in zip(inputs, purified_shards, strict=True):
        for old, new in zip(read_shard(before), read_shard(after), strict=True):
            assert new.key == old.key
            assert new.image_extension == "png"
            assert new.image().shape == old.image().shape
            assert (new.image() != old.image()).any()
            kept = {name: data for name, data in old.members.items() if name not in IMAGE_MEMBERS}
            assert {name: data for name, data in new.members.items() if name != "png"} == kept


class Fake:
    """A purifier with known answers: the images inverted, after whatever ``before`` does."""

    def __init__(self, before: Callable[[Tensor, Sequence[str]], None]) -> None:
        self._before, self.sizes = before, list[int]()

    def images_per_row(self, height: int, width: int) -> int:
        return 1

    def __call__(self, pixels: Tensor, keys: Sequence[str]) -> Tensor:
        self._before(pixels, keys)
        self.sizes.append(len(keys))
        return 255 - pixels


def worker_with(
    fake: Fake, store: StoragePath, *, batch_size: int = 8, heartbeat: Callable[[], None] = lambda: None
) -> PurifyWorker:
    """A worker on ``store`` whose purifier is ``fake``."""
    Store(store).prepare()
    setup = PurifySetup(spec=purifier_spec(method="blur"), store=store, batch_size=batch_size)
    return PurifyWorker(
        setup, WorkerContext(device="cpu", compute_threads=1, heartbeat=heartbeat, label={"pid": 1}), fake
    )


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    """A folder of unlabelled shards as others write them: JPEG, unsorted members, text and nested keys."""
    folder = tmp_path / "incoming"
    folder.mkdir()
    for day in range(3):
        members: list[tuple[str, bytes]] = []
        for i in range(3):
            key = f"cam{day}/{i:03d}"
            members += [(f"{key}.txt", f"seen {i}".encode()), (f"{key}.jpg", jpeg(picture(10 * day + i)))]
            members += [(f"{key}.meta.bin", bytes(range(day, day + 9)))]
        write_tar(folder / f"day-{day:03d}.tar", members)
    return folder


@pytest.fixture
def one_shard(tmp_path: Path) -> PurifyTask:
    """A task of twenty images."""
    path = write_shard(tmp_path / "in" / "data-000.tar", [sample(f"k{i:02d}", i % 3, seed=i) for i in range(20)])
    return PurifyTask(path.name, path, None)


@pytest.fixture(scope="module")
def reference(staged: Path, prior: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The staged data purified in this process: the store and what the run said."""
    store = tmp_path_factory.mktemp("reference") / "pur"
    return store, purified(staged, "--prior", prior, "--store", store, *STEPS, "--workers", 0)


@pytest.mark.ray
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_change_a_byte(
    reference: tuple[Path, dict[str, Any]], staged: Path, prior: Path, tmp_path: Path, workers: int
):
    store, said = reference
    again = purified(staged, "--prior", prior, "--store", tmp_path / "pur", *STEPS, "--workers", workers)
    assert (again["computed"], again["version"]) == (6, said["version"])
    assert files_below(tmp_path / "pur" / "objects") == files_below(store / "objects")
    assert versions_in(tmp_path / "pur") == versions_in(store)


def test_another_run_gives_the_same_bytes(
    reference: tuple[Path, dict[str, Any]], staged: Path, prior: Path, tmp_path: Path
):
    store, said = reference
    again = purified(staged, "--prior", prior, "--store", tmp_path / "pur", *STEPS)
    assert again["version"] == said["version"]
    assert files_below(tmp_path / "pur" / "objects") == files_below(store / "objects")


def test_another_batch_size_is_within_one_level(
    reference: tuple[Path, dict[str, Any]], staged: Path, prior: Path, tmp_path: Path
):
    store, _ = reference
    purified(staged, "--prior", prior, "--store", tmp_path / "pur", *STEPS, "--batch-size", 1)
    pairs = zip(outputs(store, "tiny-badnets"), outputs(tmp_path / "pur", "tiny-badnets"), strict=True)
    for before, after in pairs:
        for one, other in zip(read_shard(before), read_shard(after), strict=True):
            assert one.key == other.key
            assert np.abs(one.image().astype(int) - other.image().astype(int)).max() <= 1


def test_all_but_the_image_is_kept(reference: tuple[Path, dict[str, Any]], staged: Path):
    store, said = reference
    shards = [staged / row["shard"] for row in shown(store, "tiny-badnets")["shards"]]
    assert [path.name for path in shards] == [
        f"{split}-{number:06d}.tar" for split in ("test", "test_poisoned") for number in range(3)
    ]
    check_same_but_images(shards, outputs(store, "tiny-badnets"))
    counts = {"shards": 3, "samples": 12}
    assert said["counts"] == {"test": counts, "test_poisoned": counts}
    for record in (store / "tasks").glob("??/*.json"):
        fields = json.loads(record.read_bytes())
        assert fields["samples_in"] == fields["samples_out"] == 4


def test_shards_from_elsewhere(incoming: Path, prior: Path, pur: StoragePath):
    store = pur
    said = purified(incoming, "--prior", prior, "--store", store, *STEPS)
    assert (said["reference"], said["counts"]) == ("incoming@latest", {"data": {"shards": 3, "samples": 9}})
    check_same_but_images(sorted(incoming.iterdir()), outputs(store, "incoming"))
    first = next(read_shard(outputs(store, "incoming")[0]))
    assert (first.key, sorted(first.members)) == ("cam0/000", ["meta.bin", "png", "txt"])


def test_a_brace_pattern_takes_what_it_names(incoming: Path, pur: StoragePath):
    said = purified(f"{incoming}/day-{{000..001}}.tar", *BLUR, "--store", pur)
    assert (said["shards"], said["samples"], said["reference"]) == (2, 6, "incoming@latest")
    rows = shown(pur, "incoming")["shards"]
    assert [row["shard"] for row in rows] == ["day-000.tar", "day-001.tar"]


@pytest.mark.parametrize("labelled", [True, False])
def test_a_second_run_changes_no_file(incoming: Path, staged: Path, pur: StoragePath, labelled: bool):
    data, store = staged if labelled else incoming, pur
    first = purified(data, *BLUR, "--store", store)
    before = {name: (data, stamp(store / name)) for name, data in files_below(store).items() if "tags" not in name}
    second = purified(data, *BLUR, "--store", store)
    after = {name: (data, stamp(store / name)) for name, data in files_below(store).items() if "tags" not in name}
    assert (second["computed"], second["reused"], second["new_version"]) == (0, first["shards"], False)
    assert second["version"] == first["version"]
    assert after == before


def test_only_a_new_shard_is_read_and_computed(incoming: Path, pur: StoragePath, monkeypatch: pytest.MonkeyPatch):
    store = pur
    first = purified(incoming, *BLUR, "--store", store)
    old = set(files_below(store / "objects"))
    write_shard(incoming / "day-003.tar", [sample("new", None, seed=99)])
    read: list[str] = []

    def noted(path: Path) -> str:
        read.append(path.name)
        return digest(path)

    digest = purify_shard.storage.sha256
    monkeypatch.setattr(purify_shard.storage, "sha256", noted)
    second = purified(incoming, *BLUR, "--store", store)
    assert (second["computed"], second["reused"]) == (1, 3)
    assert read == ["day-003.tar"]
    assert len(set(files_below(store / "objects")) - old) == 1
    assert shown(store, "incoming")["parent"] == first["version"]
    assert shown(store, f"incoming@{first['version']}")["parent"] is None

    os.utime(incoming / "day-000.tar")  # touched, not changed: read again, not computed again
    third = purified(incoming, *BLUR, "--store", store)
    assert (third["computed"], third["version"]) == (0, second["version"])
    assert read == ["day-003.tar", "day-000.tar"]


def test_a_changed_shard_is_computed_alone(incoming: Path, pur: StoragePath):
    store = pur
    first = purified(incoming, *BLUR, "--store", store)
    write_shard(incoming / "day-001.tar", [sample("other", None, seed=5)])
    second = purified(incoming, *BLUR, "--store", store)
    assert (second["computed"], second["samples"]) == (1, 7)
    assert second["version"] != first["version"]


def test_a_changed_setting_computes_all(staged: Path, prior: Path, tmp_path: Path):
    asked = (staged, "--prior", prior, "--split", "test", "--store", tmp_path / "pur", *STEPS)
    first = purified(*asked)
    second = purified(*asked, "--seed", 1)
    assert (second["computed"], second["reused"]) == (3, 0)
    assert second["version"] != first["version"]
    assert purified(*asked)["computed"] == 0, "what is in the store for the first setting was forgotten"


def test_a_dry_run_writes_nothing(staged: Path, prior: Path, tmp_path: Path):
    plan = purified(staged, "--prior", prior, "--store", tmp_path / "pur", *STEPS, "--dry-run")
    assert (plan["shards"], plan["reused"], plan["to_compute"], plan["parent"]) == (6, 0, 6, None)
    assert (plan["purifier"]["method"], plan["purifier"]["settings"]["steps"]) == ("zip", 3)
    assert list(tmp_path.iterdir()) == []


def test_two_attacks_share_their_clean_split(source: Path, staged: Path, tmp_path: Path, pur: StoragePath):
    other = tmp_path / "tiny-blended"
    ran = zipbatch("poison", source, "--attack", "blended", "--out", other, "--samples-per-shard", 4)
    assert ran.code == 0, ran.err
    store = pur
    assert purified(staged, *BLUR, "--store", store)["computed"] == 6
    second = purified(other, *BLUR, "--store", store)
    assert (second["computed"], second["reused"]) == (3, 3)
    assert outputs(store, "tiny-badnets")[:3] == outputs(store, "tiny-blended")[:3]


def test_one_bad_shard_stops_neither_the_others_nor_a_later_run(incoming: Path, pur: StoragePath):
    store = pur
    good = (incoming / "day-001.tar").read_bytes()
    (incoming / "day-001.tar").write_bytes(good[:2000])
    ran = zipbatch("purify", incoming, *BLUR, "--store", store)
    assert (ran.code, ran.out) == (1, "")
    assert "1 of 3 shards failed" in ran.err
    assert "day-001.tar" in ran.err
    assert len(files_below(store / "objects")) == len(files_below(store / "tasks")) == 2
    assert files_below(store / "versions") == files_below(store / "tags") == {}
    (incoming / "day-001.tar").write_bytes(good)
    assert purified(incoming, *BLUR, "--store", store)["computed"] == 1


def test_non_finite_pixels_fail_the_run_with_a_key(staged: Path, tmp_path: Path):
    broken = write_prior(tmp_path / "broken")
    (weights,) = broken.rglob("*.safetensors")
    tensors = load_file(weights)
    save_file({name: torch.full_like(value, 1e30) for name, value in tensors.items()}, weights)
    ran: Ran = zipbatch("purify", staged, "--prior", broken, "--store", tmp_path / "pur", "--split", "test", *STEPS)
    assert (ran.code, ran.out) == (1, "")
    assert "3 of 3 shards failed" in ran.err
    assert "purified pixels are not finite" in ran.err
    assert "key 'test_" in ran.err
    assert [name for name in files_below(tmp_path / "pur") if not name.startswith("inputs")] == []


def test_out_of_memory_halves_the_batch_and_goes_on(one_shard: PurifyTask, pur: StoragePath):
    def at_most_three(pixels: Tensor, _keys: Sequence[str]) -> None:
        if len(pixels) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")

    fake = Fake(at_most_three)
    result = worker_with(fake, pur, batch_size=8)(one_shard)
    assert (result.record.samples_in, result.record.samples_out) == (20, 20)
    assert max(fake.sizes) == 2
    assert sum(fake.sizes) == 20
    after = read_shard(Store(pur).objects.path(result.record.output_sha256))
    for old, new in zip(read_shard(one_shard.path), after, strict=True):
        assert (new.image() == 255 - old.image()).all()


def test_out_of_memory_with_a_single_row_is_an_error(one_shard: PurifyTask, pur: StoragePath):
    def never(_pixels: Tensor, _keys: Sequence[str]) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(WorkFailed, match="single row"):
        worker_with(Fake(never), pur)(one_shard)
    assert files_below(pur) == {}


def test_non_finite_output_publishes_nothing(one_shard: PurifyTask, pur: StoragePath):
    def broken_at(_pixels: Tensor, keys: Sequence[str]) -> None:
        if "k13" in keys:
            raise NonFiniteError("k13")

    with pytest.raises(DataError) as raised:
        worker_with(Fake(broken_at), pur)(one_shard)
    assert raised.value.key == "k13"
    assert files_below(pur) == {}


def test_a_lost_sample_is_never_published(one_shard: PurifyTask, pur: StoragePath, monkeypatch: pytest.MonkeyPatch):
    whole = computing.results

    def lossy(*arguments: Any) -> list[Sample]:
        return [item for item in whole(*arguments) if item.key != "k07"]

    monkeypatch.setattr(computing, "results", lossy)
    with pytest.raises(RuntimeError, match="20 samples in, 19 out"):
        worker_with(Fake(lambda _pixels, _keys: None), pur)(one_shard)
    assert files_below(pur) == {}


def test_a_cancelled_worker_stops_between_batches(one_shard: PurifyTask, pur: StoragePath):
    fake = Fake(lambda _pixels, _keys: None)

    def heartbeat() -> None:
        if len(fake.sizes) == 2:
            raise Cancelled("stop")

    worker = worker_with(fake, pur, batch_size=4, heartbeat=heartbeat)
    with pytest.raises(Cancelled):
        worker(one_shard)
    assert len(fake.sizes) == 2
    assert files_below(pur) == {}


def test_bytes_other_than_the_manifest_says_are_refused(one_shard: PurifyTask, pur: StoragePath):
    task = PurifyTask(one_shard.name, one_shard.path, "0" * 64)
    with pytest.raises(DataError, match="its bytes are not those the manifest lists"):
        worker_with(Fake(lambda _pixels, _keys: None), pur)(task)
    assert files_below(pur) == {}


def test_images_of_another_size_name_their_key(prior: Path, tmp_path: Path):
    source = write_source(tmp_path / "bare", counts={"test": 2}, shards=1, size=IMAGE_SIZE + 1)
    asked = ("purify", source, "--prior", prior, "--store", tmp_path / "pur", *STEPS)
    refused = zipbatch(*asked)
    assert refused.code in {1, 2}
    assert "test_0000" in refused.err
    assert zipbatch(*asked, "--resize", "stretch").code == 0


@pytest.mark.parametrize("method", ["shrinkpad", "jpeg", "median", "bitdepth"])
def test_without_a_prior_not_even_the_batch_size_matters(staged: Path, tmp_path: Path, method: str):
    found = []
    for size in (1, 3, 32):
        store = tmp_path / str(size)
        asked = ("purify", staged, "--purifier", method, "--store", store, "--batch-size", size, "--json")
        ran = zipbatch(*asked)
        assert ran.code == 0, ran.err
        found.append(ran.json["version"])
        urls = zipbatch("store", "urls", "tiny-badnets", "--store", store).out.splitlines()
        before, after = (next(read_shard(path)).image() for path in (staged / "test-000000.tar", Path(urls[0])))
        assert before.shape == after.shape
        assert np.abs(before.astype(int) - after).max() > 0
    assert len(set(found)) == 1
