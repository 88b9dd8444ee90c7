"""Memory follows a limit, not the size of images, configs or archives; a lack of it is an error with a next step."""

from __future__ import annotations

import gzip
import json
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.making import files_below, sample, write_prior, write_shard, write_tar, write_victim, zipbatch
from zipbatch import images, memory
from zipbatch.checkpoints import open_prior, open_victim
from zipbatch.checkpoints.prior import load_prior
from zipbatch.errors import UsageError
from zipbatch.memory import Room, in_batches, is_lacking
from zipbatch.purifiers.jpeg import Jpeg
from zipbatch.shards import Sample, read_shard

MB = 1024**2


def peak_mb(*arguments: object, code: int = 0) -> float:
    """The most memory that a command takes, in a process of its own."""
    script = (
        "import resource, subprocess, sys; ran = subprocess.run([sys.executable, '-m', 'zipbatch', *sys.argv[1:]], "
        "capture_output=True, text=True); print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, "
        "ran.returncode, ran.stderr)"
    )
    command = [sys.executable, "-c", script, *map(str, arguments)]
    peak, ended, told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split(" ", 2)
    assert int(ended) == code, told
    return float(peak)


def photos(path: Path, count: int, *, width: int, height: int) -> Path:
    """A shard of JPEGs of that size, all the same."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (30, 40, 3)).astype(np.uint8))
    data = images.encode_jpeg(np.asarray(coarse.resize((width, height))), quality=90)
    return write_shard(path, [Sample(f"p{i:03d}", {"jpg": data}) for i in range(count)])


def test_images_in_hand_are_bounded_by_bytes(tmp_path: Path):
    """A batch of 24 photos of 4 MP takes 300 MB as pixels alone, and several times that while it is worked on."""
    source = photos(tmp_path / "in" / "a.tar", 24, width=2400, height=1600)
    write_shard(tmp_path / "tiny" / "a.tar", [sample("one", None, seed=1)])
    purify = ("--purifier", "bitdepth", "--store", tmp_path / "pur")
    base = peak_mb("purify", tmp_path / "tiny", *purify)
    assert peak_mb("purify", source.parent, *purify, "--memory-gb", 0.1) - base < 420


def test_the_limit_changes_no_byte(tmp_path: Path, prior: Path):
    """Batches are smaller, canvases the same: tiles of 8 px, four to a canvas, the last one not full."""
    write_shard(tmp_path / "in" / "a.tar", [sample(f"k{i}", None, seed=i, size=8) for i in range(23)])
    purify = ("purify", tmp_path / "in", "--prior", prior, "--preset", "fast-v1", "--transform", "blur:2", "--store")
    assert zipbatch(*purify, tmp_path / "a").code == zipbatch(*purify, tmp_path / "b", "--memory-gb", 1e-6).code == 0
    assert files_below(tmp_path / "a" / "objects") == files_below(tmp_path / "b" / "objects")


def test_members_of_a_small_archive_are_bounded(tmp_path: Path):
    """A megabyte of gzip may hold a gigabyte of zeros."""
    png = images.encode_png(np.zeros((8, 8, 3), np.uint8))
    zeros = bytes(200 * MB)
    file = write_tar(tmp_path / "a.tar", [("a.png", png), ("a.x", zeros), ("a.y", zeros)])
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tar.gz").write_bytes(gzip.compress(file.read_bytes(), 1))
    ran = zipbatch("purify", tmp_path / "in", "--purifier", "blur", "--store", tmp_path / "pur")
    assert (ran.code, "bytes together" in ran.err) == (1, True), ran.err
    with pytest.raises(Exception, match="key 'a': its members have over"):
        list(read_shard(file))


def test_a_config_alone_builds_no_network(tmp_path: Path):
    """Constants that no checkpoint brings were had by building the whole network, before its weights were looked at."""
    prior = write_prior(tmp_path / "prior")
    file = prior / "unet" / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"block_out_channels": [8192, 8192], "time_embedding_type": "fourier"}))
    victim = write_victim(tmp_path / "victim")
    file = victim / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"num_classes": 1_000_000, "classes": []}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UsageError, match="does not fit its config"):
        load_prior(open_prior(prior))
    with pytest.raises(UsageError, match="does not fit its config"):
        open_victim(victim).load(torch.device("cpu"))
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 100


def test_a_network_with_constants_is_loaded(tmp_path: Path):
    """Once its weights fit, it is built as it is."""
    from diffusers import UNet2DModel

    prior = write_prior(tmp_path / "prior")
    file = prior / "unet" / "config.json"
    config = json.loads(file.read_text()) | {"time_embedding_type": "fourier"}
    file.write_text(json.dumps(config))
    network = UNet2DModel(**{name: value for name, value in config.items() if not name.startswith("_")})
    network.save_pretrained(prior / "unet")
    x, t = torch.zeros(1, 3, 16, 16), torch.tensor([3])
    ours = load_prior(open_prior(prior))
    assert torch.isfinite(ours(x, 3)).all()
    assert torch.equal(ours.unet.time_proj.weight, network.time_proj.weight), t


def test_too_little_memory_is_an_error_with_a_next_step(tmp_path: Path, staged: Path, monkeypatch: pytest.MonkeyPatch):
    def lacking(*_: object) -> torch.Tensor:
        return torch.empty(1 << 60)

    monkeypatch.setattr(Jpeg, "__call__", lacking)
    ran = zipbatch("purify", staged, "--purifier", "jpeg", "--store", tmp_path / "pur")
    assert (ran.code, "internal error" in ran.err) == (1, False)
    assert "out of memory" in ran.err and "--memory-gb" in ran.err
    monkeypatch.setattr(images, "encode_png", lambda _pixels: bytes(1 << 62))
    ran = zipbatch("poison", staged, "--attack", "sig", "--out", tmp_path / "out")
    assert (ran.code, "out of memory" in ran.err, (tmp_path / "out").exists()) == (1, True, False)


def test_an_image_is_not_to_blame_for_too_little_memory(monkeypatch: pytest.MonkeyPatch):
    """It would be set aside as damaged."""
    data = images.encode_png(np.zeros((8, 8, 3), np.uint8))

    def lacking(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(images, "_to_rgb", lacking)
    with pytest.raises(MemoryError):
        images.decode(data, "png")


def test_training_in_more_memory_than_there_is(staged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "total", lambda: 10_000)
    ran = zipbatch("train", "victim", staged, "--out", tmp_path / "v")
    assert (ran.code, "--image-size" in ran.err) == (2, True), ran.err
    assert not (tmp_path / "v").exists()


def test_which_errors_say_that_memory_is_lacking():
    with pytest.raises(RuntimeError) as found:
        torch.empty(1 << 60)
    assert is_lacking(found.value) and is_lacking(MemoryError())
    with pytest.raises(MemoryError) as of_numpy:
        np.empty(1 << 55)
    assert is_lacking(of_numpy.value)
    assert not is_lacking(RuntimeError("CUDA error")) and not is_lacking(torch.OutOfMemoryError("CUDA out of memory."))


def test_room_is_shared():
    room, held, most = Room(10), 0, 0
    lock = threading.Lock()

    def work(size: int) -> None:
        nonlocal held, most
        for _ in range(20):
            with room.take(size):
                with lock:
                    held += size
                    most = max(most, held if held != size else min(held, 10))  # alone, one may be larger
                time.sleep(0.0005)
                with lock:
                    held -= size

    threads = [threading.Thread(target=work, args=(size,)) for size in (3, 4, 5, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert most <= 10


def test_batches_by_count_and_by_size():
    assert list(in_batches([1, 1, 1, 1, 1], count=2, size=99, of=int)) == [[1, 1], [1, 1], [1]]
    assert list(in_batches([5, 5, 30, 1, 1], count=9, size=10, of=int)) == [[5, 5], [30], [1, 1]]
    assert list(in_batches([], count=2, size=9, of=int)) == []


@pytest.mark.parametrize("extension", images.SOURCE_EXTENSIONS)
def test_the_size_of_an_image_by_its_header(extension: str):
    pixels = np.zeros((7, 5, 3), np.uint8)
    if extension == "ppm":
        data = b"P6 5 7 255\n" + pixels.tobytes()
    else:
        import io

        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, images.EXTENSIONS[extension])
        data = stream.getvalue()
    assert images.decoded_bytes(data, extension) == images.decode(data, extension).nbytes == 105
    assert images.decoded_bytes(data[:3], extension) == 0


@pytest.mark.slow
def test_photos_of_12_megapixels_take_less_than_2_gb(tmp_path: Path, prior: Path):
    """Every command that reads images, at its default settings."""
    photos(tmp_path / "in" / "test-000000.tar", 8, width=4000, height=3000)
    photos(tmp_path / "in" / "test-000001.tar", 8, width=4000, height=3000)
    mine, store = tmp_path / "mine.py", tmp_path / "pur"
    mine.write_text("import numpy as np\ndef ask(images):\n    return np.eye(3)[images[:, 0, 0, 0] % 3]\n")
    ask, data = f"python:{mine}:ask", ("--data", tmp_path / "in")
    commands = [
        *(("purify", tmp_path / "in", "--purifier", name, "--store", store) for name in ("jpeg", "blur", "median")),
        *(("purify", tmp_path / "in", "--purifier", name, "--store", store) for name in ("shrinkpad", "bitdepth")),
        ("purify", tmp_path / "in", "--prior", prior, "--preset", "fast", "--resize", "stretch", "--store", store),
        ("evaluate", ask, *data, "--purified", "in", "--store", store, "--sheet", tmp_path / "s.png"),
        ("store", "export", "in", tmp_path / "out", "--as", "images", "--store", store),
        ("store", "import", tmp_path / "out", *data, "--store", store, "--name", "b"),
        ("store", "verify", "--store", store),
        (
            "poison",
            "folder:" + str(tmp_path / "tree"),
            "--attack",
            "badnets",
            "--image-size",
            64,
            "--out",
            tmp_path / "st",
        ),
    ]
    for label in ("a", "b"):
        for i, found in enumerate(read_shard(tmp_path / "in" / "test-000000.tar")):
            file = tmp_path / "tree" / "test" / label / f"{i}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(found.members["jpg"])
    for command in commands:
        assert peak_mb(*command) < 2000, command
