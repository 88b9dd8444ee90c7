"""Sizes and names of bad faith, wherever something is read: an error that names the file, before memory is taken."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.archives import write_gtsrb
from tests.making import files_below, picture, sample, write_prior, write_shard, write_tar, write_victim, zipbatch
from zipbatch import images
from zipbatch.checkpoints import open_prior, open_victim
from zipbatch.checkpoints.prior import load_prior
from zipbatch.datasets import open_dataset
from zipbatch.datasets.base import read_classes
from zipbatch.datasets.gtsrb import find_gtsrb
from zipbatch.datasets.image_folder import find_image_folder
from zipbatch.datasets.shards import find_shards
from zipbatch.errors import DataError, UsageError, ZipbatchError
from zipbatch.shards import Sample, read_shard
from zipbatch.shards.sample import MAX_JSON_BYTES

PNG = images.encode_png(picture(0))
TERABYTE = 1 << 40


def vast(file: Path) -> Path:
    """A terabyte that takes no room: a hole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("r+b" if file.exists() else "wb") as stream:
        stream.truncate(TERABYTE)
    return file


def refused(file: Path, error: type[ZipbatchError], read: Callable[[], object], words: str = "limit|over") -> None:
    with pytest.raises(error, match=words) as caught:
        read()
    assert file.name in str(caught.value)
    assert len(str(caught.value)) < 1000


# ---- sizes


def test_images_of_a_terabyte(tmp_path: Path):
    file = vast(tmp_path / "images" / "test" / "ant" / "a.png")
    refused(
        file, DataError, lambda: [image.check() for image in find_image_folder(str(tmp_path / "images")).images("test")]
    )
    root = write_gtsrb(tmp_path)
    file = vast(root / "Final_Test" / "Images" / "00000.ppm")
    refused(file, DataError, lambda: [image.check() for image in find_gtsrb(str(root)).images("test")])


def test_lists_of_a_terabyte(tmp_path: Path, staged: Path):
    refused(tmp_path / "c.txt", DataError, lambda: read_classes(vast(tmp_path / "c.txt")))
    for name in ("manifest.json", "shards.jsonl"):
        folder = tmp_path / name
        for path, data in files_below(staged).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        vast(folder / name)
        refused(folder / name, UsageError, lambda folder=folder: open_dataset([str(folder)]))


def test_checkpoints_of_a_terabyte(tmp_path: Path):
    prior = write_prior(tmp_path / "prior", binary=True)
    weights = vast(prior / "unet" / "diffusion_pytorch_model.bin")
    refused(weights, UsageError, lambda: load_prior(open_prior(prior)))
    config = vast(prior / "unet" / "config.json")
    refused(config, UsageError, lambda: open_prior(prior))
    config = vast(write_victim(tmp_path / "victim") / "config.json")
    refused(config, UsageError, lambda: open_victim(tmp_path / "victim"))


def test_json_of_a_sample_is_bounded_where_it_is_read(tmp_path: Path):
    """Purification does not look into it, and passes it on as it is."""
    text = b'{"label": 1, "x": [' + b"[]," * (MAX_JSON_BYTES // 3) + b"0]}"
    (tmp_path / "in").mkdir()
    path = write_tar(tmp_path / "in" / "s.tar", [("a.png", PNG), ("a.json", text)])
    (found,) = read_shard(path)
    with pytest.raises(DataError, match=r"key 'a': .json has \d+ bytes, over the limit"):
        found.label()
    assert Sample("a", {"png": PNG, "json": b'{"label": 1}' + b" " * (MAX_JSON_BYTES - 12)}).label() == 1
    assert zipbatch("purify", tmp_path / "in", "--purifier", "blur", "--store", tmp_path / "pur").code == 0
    (output,) = (tmp_path / "pur" / "objects").rglob("*.tar")
    assert next(read_shard(output)).members["json"] == text


@pytest.mark.parametrize("pattern", ["x-{0..99999999}.tar", "{0..9999}-{0..9999}.tar", "test-{0..-99999999}.tar"])
def test_patterns_that_stand_for_too_much(pattern: str):
    for read in (
        lambda: open_dataset([pattern]),
        lambda: open_dataset([f"s3://bucket/{pattern}"]),
        lambda: find_shards(pattern),
    ):
        with pytest.raises(UsageError, match="stands for over 10000000 shards"):
            read()


# ---- names


def test_twins_in_unicode_stay_two(tmp_path: Path):
    """Composed and decomposed, the same to the eye and on some file systems: two keys, two samples, in and out."""
    twins = [unicodedata.normalize(form, "café/ö") for form in ("NFC", "NFD")]
    assert twins[0] != twins[1]
    data = write_shard(tmp_path / "in" / "s.tar", [sample(key, 1, seed=i) for i, key in enumerate(twins)])
    ran = zipbatch("purify", data, "--purifier", "blur", "--store", tmp_path / "pur", "--json")
    assert (ran.code, ran.json["samples"]) == (0, 2)
    (output,) = (tmp_path / "pur" / "objects").rglob("*.tar")
    assert [each.key for each in read_shard(output)] == twins


@pytest.mark.parametrize(
    "key", ["../x", "/x", "a/../x", "x\ny", "x\u202ey", "x\x7fy", "k" * 5000, "x\\y", "\udcff", ".", "a/./b"]
)
def test_keys_that_would_lead_elsewhere(tmp_path: Path, key: str):
    """With quarantine too: such a key cannot be that of a sample anywhere."""
    (tmp_path / "in").mkdir()
    data = write_tar(tmp_path / "in" / "s.tar", [("good.png", PNG), (f"{key}.png", PNG)])
    before = files_below(tmp_path)
    for flags in ([], ["--quarantine"]):
        ran = zipbatch("purify", data, "--purifier", "blur", "--store", tmp_path / "pur", *flags)
        assert ran.code == 1
        assert "s.tar" in ran.err
        assert "Traceback" not in ran.err
        assert "internal" not in ran.err
    assert files_below(tmp_path) == before


# ---- configs of networks


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("layers_per_block", 10**7),
        ("block_out_channels", [10**9, 10**9]),
        ("block_out_channels", [8] * 40),
        ("sample_size", 10**12),
        ("norm_num_groups", -1),
        ("norm_num_groups", 0),
        ("attention_head_dim", 0),
        ("norm_eps", "x"),
        ("freq_shift", "x"),
        ("flip_sin_to_cos", "x"),
        ("center_input_sample", 1),
        ("mid_block_scale_factor", 0),
        ("dropout", True),
        ("time_embedding_dim", 10**12),
    ],
)
def test_networks_that_cannot_be(tmp_path: Path, field: str, value: object):
    file = write_prior(tmp_path / "prior") / "unet" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), field: value}))
    with pytest.raises(UsageError, match=field) as caught:
        load_prior(open_prior(tmp_path / "prior"))
    assert str(tmp_path / "prior") in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [("beta_end", 10**400), ("trained_betas", [[0.1]]), ("trained_betas", [0.1] * 7), ("trained_betas", {"a": 1})],
)
def test_schedules_that_cannot_be(tmp_path: Path, field: str, value: object):
    file = write_prior(tmp_path / "prior") / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), field: value}))
    with pytest.raises(UsageError, match=r"scheduler_config.json"):
        load_prior(open_prior(tmp_path / "prior"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_classes", 10**12),
        ("image_size", 10**12),
        ("network_size", 10**9),
        ("mean", [1e400, 0, 0]),
        ("std", ["nan"] * 3),
    ],
)
def test_victims_that_cannot_be(tmp_path: Path, field: str, value: object):
    file = write_victim(tmp_path / "victim") / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), field: value}))
    with pytest.raises(UsageError, match=rf"config.json[^§]*{field}"):
        open_victim(tmp_path / "victim")
