"""Files and folders are told by what they hold, and whoever opens one that is something else hears what it is."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save as safetensors

from tests.foreign import weights
from tests.making import files_below, picture, write_prior, write_tar, write_victim, zipbatch
from zipbatch import images
from zipbatch.checkpoints.tensors import read_checkpoint, read_json
from zipbatch.datasets import SOURCES
from zipbatch.datasets.source import open_source
from zipbatch.errors import DataError, UsageError
from zipbatch.kinds import HEAD_BYTES, a_few, folder_kind, kind_of, taken_by
from zipbatch.shards import read_shard


def zipped(name: str = "a.txt") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, b"hello")
    return stream.getvalue()


def tarred(form: int = tarfile.PAX_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as tar:
        info = tarfile.TarInfo("PK\x03\x04.png")  # a name that looks like another kind's first bytes
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    return stream.getvalue()


def npy(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays) if arrays else np.save(stream, np.zeros(3))
    return stream.getvalue()


def torch_saved() -> bytes:
    stream = io.BytesIO()
    torch.save({"a": torch.ones(2)}, stream)
    return stream.getvalue()


def painted(form: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture(0)).save(stream, form)
    return stream.getvalue()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123456\n"
ODD = {
    "lfs": POINTER,
    "annex": b"/annex/objects/SHA256E-s123--0123.pt\n",
    "html": b"\n<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>",
    "xml": b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>",
    "json": b'{"error": "not found"}',
    "text": "Die Datei wurde nicht gefunden: \N{LATIN SMALL LETTER U WITH DIAERESIS}\n".encode(),
    "empty": b"",
    "bzip2": bz2.compress(tarred()),
    "xz": lzma.compress(tarred()),
    "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(600),
    "npy": npy(),
    "pdf": b"%PDF-1.7\n",
    "png": painted("PNG"),
    "jpeg": painted("JPEG"),
    "webp": painted("WEBP"),
    "gif": painted("GIF"),
    "bmp": painted("BMP"),
    "tiff": painted("TIFF"),
    "onnx": b"\x08\x09\x12\x07pytorch\x1a\x052.5.0",
}
"""What is neither a tar nor a checkpoint."""
FIT = {
    "zip": zipped(),
    "gzip": gzip.compress(b"hello", mtime=0),
    "pickle": pickle.dumps({"a": 1}, protocol=2),
    "safetensors": safetensors({"a": torch.ones(2)}),
    "tar": tarred(),
}


@pytest.mark.parametrize(("name", "data"), [*ODD.items(), *FIT.items()])
def test_kinds_are_told_by_their_first_bytes(name: str, data: bytes):
    kind = kind_of(data[:HEAD_BYTES])
    assert kind is not None
    assert kind.name == name
    assert kind.remedy


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_is_one_by_its_checksum_whatever_its_first_name(form: int):
    data = bytearray(tarred(form))
    assert kind_of(bytes(data[:HEAD_BYTES])).name == "tar"  # type: ignore[union-attr]
    data[257:265] = bytes(8)  # as tars from before POSIX, without its word
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:HEAD_BYTES])
    assert kind_of(bytes(data[:HEAD_BYTES])).name == "tar"  # type: ignore[union-attr]


@pytest.mark.parametrize("data", [bytes(1024), b"\x00\x01\x02" * 300, b"\xc3\x28" * 9 + b"\x00"])
def test_what_is_not_known_is_not_guessed(data: bytes):
    assert kind_of(data[:HEAD_BYTES]) is None


def test_text_that_is_cut_within_a_letter_is_text():
    text = ("x" + "\N{EURO SIGN}" * 400).encode()
    assert kind_of(text[:HEAD_BYTES]).name == "text"  # type: ignore[union-attr]


# ---- where files are opened


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".safetensors"])
@pytest.mark.parametrize("name", list(ODD))
def test_checkpoints(tmp_path: Path, name: str, suffix: str):
    file = tmp_path / f"weights{suffix}"
    file.write_bytes(ODD[name])
    kind = kind_of(ODD[name][:HEAD_BYTES])
    assert kind is not None
    with pytest.raises(UsageError) as caught:
        read_checkpoint(file)
    wanted = "a safetensors file" if suffix == ".safetensors" else "a checkpoint"
    assert str(caught.value) == f"{file}: is {kind.what}, not {wanted}; {kind.remedy}"


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".ckpt", ".safetensors"])
def test_safetensors_are_read_whatever_their_name(tmp_path: Path, suffix: str):
    (tmp_path / f"x{suffix}").write_bytes(FIT["safetensors"])
    state = read_checkpoint(tmp_path / f"x{suffix}")
    assert isinstance(state, dict)
    assert torch.equal(state["a"], torch.ones(2))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: zipped("notes.txt"), "is a zip archive of notes.txt, not a checkpoint of torch.save"),
        (lambda: npy(a=np.zeros(2), b=np.ones(3)), "is a numpy archive (.npz) of a.npy, b.npy"),
    ],
)
def test_zips_that_torch_did_not_write(tmp_path: Path, make: Callable[[], bytes], words: str):
    (tmp_path / "x.pth").write_bytes(make())
    with pytest.raises(UsageError) as caught:
        read_checkpoint(tmp_path / "x.pth")
    assert words in str(caught.value)


def test_torchscript_is_named(tmp_path: Path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "x.pt")
    with pytest.raises(UsageError, match="is a TorchScript archive, which holds code; export the network to ONNX"):
        read_checkpoint(tmp_path / "x.pt")


@pytest.mark.parametrize("name", ["lfs", "html", "png", "empty"])
def test_configs(tmp_path: Path, name: str):
    (tmp_path / "config.json").write_bytes(ODD[name])
    kind = kind_of(ODD[name][:HEAD_BYTES])
    assert kind is not None
    with pytest.raises(UsageError) as caught:
        read_json(tmp_path / "config.json")
    assert f"config.json: is {kind.what}, not JSON; {kind.remedy}" in str(caught.value)


@pytest.mark.parametrize("squeeze", [bytes, gzip.compress])
@pytest.mark.parametrize("name", [*ODD, "zip", "safetensors"])
def test_shards(tmp_path: Path, name: str, squeeze: Callable[[bytes], bytes]):
    data = {**ODD, **FIT}[name]
    (tmp_path / "a.tar").write_bytes(squeeze(data))
    kind = kind_of(data[:HEAD_BYTES])
    assert kind is not None
    with pytest.raises(DataError) as caught:
        list(read_shard(tmp_path / "a.tar"))
    assert f"is {kind.what}, not a readable tar; {kind.remedy}" in str(caught.value)


@pytest.mark.parametrize("name", ["lfs", "html", "bzip2", "xz"])
@pytest.mark.parametrize("prefix", ["", f"{SOURCES[0].name}:"])
def test_archives_of_images(tmp_path: Path, name: str, prefix: str):
    (tmp_path / "archive.tar.gz").write_bytes(ODD[name])
    kind = kind_of(ODD[name])
    assert kind is not None
    with pytest.raises(UsageError) as caught:
        open_source(f"{prefix}{tmp_path / 'archive.tar.gz'}", ["train"])
    assert f"is {kind.what}, not an archive of images; {kind.remedy}" in str(caught.value)


@pytest.mark.parametrize("extension", ["png", "jpg", "webp"])
@pytest.mark.parametrize("name", ["lfs", "html", "gif", "png", "jpeg"])
def test_images(name: str, extension: str):
    if name == {"jpg": "jpeg"}.get(extension, extension):
        assert images.decode(ODD[name], extension).shape == picture(0).shape
        return
    kind = kind_of(ODD[name][:HEAD_BYTES])
    assert kind is not None
    with pytest.raises(ValueError, match=f"^is not a {extension} image: it is {kind.what}$"):
        images.decode(ODD[name], extension)


@pytest.mark.parametrize("name", ["lfs", "annex", "html", "empty"])
def test_folders_without_their_large_files(tmp_path: Path, staged: Path, name: str):
    """A repository that was cloned without Git LFS: told while planning, not by a worker."""
    prior, victim = write_prior(tmp_path / "p"), write_victim(tmp_path / "v")
    for file in (prior / "unet" / "diffusion_pytorch_model.safetensors", victim / "model.safetensors"):
        file.write_bytes(ODD[name])
    kind = kind_of(ODD[name])
    assert kind is not None
    for command in (
        ("purify", staged, "--prior", prior, "--store", tmp_path / "pur", "--dry-run"),
        ("evaluate", victim, "--data", staged),
    ):
        ran = zipbatch(*command)
        assert ran.code == 2, ran.err
        assert f"is {kind.what}, not a checkpoint; {kind.remedy}" in ran.err


# ---- folders, and things in the way


def test_folders(tmp_path: Path, staged: Path, source: Path):
    assert folder_kind(staged) == "a staged dataset"
    assert folder_kind(source) == "a folder of shards"
    assert folder_kind(write_prior(tmp_path / "p")) == folder_kind(write_prior(tmp_path / "q", flat=True)) == "a prior"
    assert folder_kind(write_victim(tmp_path / "v")) == "a victim"
    (tmp_path / "empty").mkdir()
    assert folder_kind(tmp_path / "empty") == "an empty folder"
    assert zipbatch("purify", source, "--purifier", "blur", "--store", tmp_path / "pur").code == 0
    assert folder_kind(tmp_path / "pur") == "a store of purified shards"
    for number in range(8):
        (tmp_path / "empty" / f"n{number}").touch()
    assert folder_kind(tmp_path / "empty") == "a folder of n0, n1, n2, n3, n4 and 3 more"


def test_what_is_in_the_way(tmp_path: Path):
    write_tar(tmp_path / "a", [("a.png", b"x")])
    assert taken_by(tmp_path / "a") == "a tar archive"
    assert taken_by(tmp_path / "a" / "b" / "c") == f"{tmp_path / 'a'}, a tar archive"


@pytest.mark.parametrize("count", [1, 5, 6, 102])
def test_many_names_are_counted(count: int):
    names = [f"n{number}" for number in range(count)]
    told = a_few(names)
    assert told.split(" and ")[0].split(", ") == names[:5]
    assert told.endswith(f" and {count - 5} more") == (count > 5)


@pytest.fixture
def everything(tmp_path: Path, staged: Path, source: Path) -> dict[str, Path]:
    """One of each folder."""
    assert zipbatch("purify", source, "--purifier", "blur", "--store", tmp_path / "pur").code == 0
    return {
        "a staged dataset": staged,
        "a store of purified shards": tmp_path / "pur",
        "a prior": write_prior(tmp_path / "p"),
        "a victim": write_victim(tmp_path / "v"),
    }


def test_one_folder_where_another_is_wanted(everything: dict[str, Path], tmp_path: Path, staged: Path):
    for kind, folder in everything.items():
        if kind != "a prior":
            ran = zipbatch("purify", staged, "--prior", folder, "--store", tmp_path / "out", "--dry-run")
            assert ran.code == 2, ran.err
            assert kind in ran.err, ran.err
            assert "a prior is a folder in diffusers' format" in ran.err
        if kind != "a victim":
            ran = zipbatch("evaluate", folder, "--data", staged)
            assert ran.code == 2, ran.err
            assert f"{folder} is {kind}" in ran.err, ran.err


@pytest.mark.parametrize("name", ["rn18.pth", "net.safetensors", "model.onnx"])
def test_a_checkpoint_where_a_victim_is_wanted(tmp_path: Path, staged: Path, prior: Path, name: str):
    (tmp_path / name).write_bytes(torch_saved())
    tune = ("tune", tmp_path / name, "--data", staged, "--prior", prior, "--store", tmp_path / "pur", "--out", "x.yaml")
    for command in (("evaluate", tmp_path / name, "--data", staged), tune):
        ran = zipbatch(*command)
        assert ran.code == 2
        assert f"{name}: is a file; 'zipbatch import victim {tmp_path / name} --out DIR' makes" in ran.err


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".bin"])
def test_a_networks_weights_where_a_prior_is_wanted(tmp_path: Path, prior: Path, staged: Path, suffix: str):
    weights = prior / "unet" / "diffusion_pytorch_model.safetensors"
    (tmp_path / f"alone{suffix}").write_bytes(weights.read_bytes())
    ran = zipbatch("purify", staged, "--prior", tmp_path / f"alone{suffix}", "--store", tmp_path / "pur")
    assert ran.code == 2
    assert f"alone{suffix}: holds the weights of a network in diffusers' format" in ran.err
    assert "name its folder" in ran.err


def test_an_output_that_is_taken_says_by_what(everything: dict[str, Path], tmp_path: Path, source: Path):
    (tmp_path / "file").write_bytes(ODD["png"])
    for kind, folder in {**everything, "a PNG image": tmp_path / "file"}.items():
        ran = zipbatch("poison", source, "--attack", "badnets", "--seed", 77, "--out", folder)
        assert ran.code == 2, ran.err
        assert f"--out {folder}: taken by {kind}" in ran.err, ran.err


def test_no_model_goes_into_a_folder_of_shards(everything: dict[str, Path], tmp_path: Path):
    torch.save(weights("resnet20", 3), tmp_path / "net.pth")
    for kind in ("a staged dataset", "a store of purified shards"):
        before = files_below(everything[kind])
        ran = zipbatch("import", "victim", tmp_path / "net.pth", "--image-size", 16, "--out", everything[kind])
        assert ran.code == 2
        assert f"--out {everything[kind]}: taken by {kind}" in ran.err
        assert files_below(everything[kind]) == before
