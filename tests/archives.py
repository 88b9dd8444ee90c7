"""Official archives in small, byte by byte as their authors wrote them."""

from __future__ import annotations

import io
import struct
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tests.making import picture
from zipbatch.datasets.cifar10 import BATCHES
from zipbatch.datasets.gtsrb import CLASS_NAMES
from zipbatch.datasets.imagenette import NAMES

LABEL_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
GTSRB_HEADER = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"


class Python2Pickler:
    """Writes what Python 2's cPickle wrote at protocol 2: byte strings as ``U`` and ``T``, a memo from 1 on."""

    def __init__(self) -> None:
        self._memo = 0

    def dump(self, value: dict[bytes, object]) -> bytes:
        return b"\x80\x02" + self._write(value) + b"."

    def _put(self) -> bytes:
        self._memo += 1
        return b"q" + bytes([self._memo]) if self._memo < 256 else b"r" + struct.pack("<I", self._memo)

    def _write(self, value: object) -> bytes:
        if isinstance(value, dict):
            start = b"}" + self._put() + b"("
            return start + b"".join(self._write(key) + self._write(item) for key, item in value.items()) + b"u"
        if isinstance(value, list):
            start = b"]" + self._put()
            batches = [value[i : i + 1000] for i in range(0, len(value), 1000)]
            return start + b"".join(b"(" + b"".join(self._write(item) for item in batch) + b"e" for batch in batches)
        if isinstance(value, np.ndarray):
            return self._array(value)
        if isinstance(value, int):
            return b"K" + bytes([value]) if value < 256 else b"M" + struct.pack("<H", value)
        assert isinstance(value, bytes)
        head = b"U" + bytes([len(value)]) if len(value) < 256 else b"T" + struct.pack("<i", len(value))
        return head + value + self._put()

    def _array(self, value: np.ndarray) -> bytes:
        start = b"cnumpy.core.multiarray\n_reconstruct\n" + self._put() + b"cnumpy\nndarray\n" + self._put()
        blank = b"K\x00\x85U\x01b\x87R" + self._put()
        shape = b"".join(self._write(n) for n in value.shape) + b"\x86"
        dtype = b"cnumpy\ndtype\n" + self._put() + b"U\x02u1K\x00K\x01\x87R" + self._put()
        dtype += b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        return start + blank + b"(K\x01" + shape + dtype + b"\x89" + self._write(value.tobytes()) + b"tb"


def planes(count: int, seed: int) -> np.ndarray:
    """Pixels as CIFAR-10 has them, uint8 [count, 3072]."""
    return np.random.default_rng(seed).integers(0, 256, (count, 3072)).astype(np.uint8)


def cifar10_files(count: int = 4) -> dict[str, bytes]:
    """The seven files of the python version with ``count`` images a batch; labels go round the ten classes."""
    meta = {b"num_cases_per_batch": 10000, b"label_names": [n.encode() for n in LABEL_NAMES], b"num_vis": 3072}
    files = {"batches.meta": Python2Pickler().dump(meta)}
    for number, name in enumerate([*BATCHES["train"], *BATCHES["test"]]):
        batch = {
            b"batch_label": f"training batch {number + 1} of 5".encode() if number < 5 else b"testing batch 1 of 1",
            b"labels": [(number * count + i) % 10 for i in range(count)],
            b"data": planes(count, number),
            b"filenames": [f"leptodactylus_pentadactylus_s_{i:06d}.png".encode() for i in range(count)],
        }
        files[name] = Python2Pickler().dump(batch)
    return files


def write_cifar10(folder: Path, count: int = 4) -> Path:
    """``cifar-10-batches-py`` in ``folder``."""
    root = folder / "cifar-10-batches-py"
    root.mkdir(parents=True)
    for name, data in cifar10_files(count).items():
        (root / name).write_bytes(data)
    (root / "readme.html").write_text("<meta>")
    return root


def write_cifar10_tar(path: Path, extra: Sequence[tuple[tarfile.TarInfo, bytes]] = (), count: int = 4) -> Path:
    """``cifar-10-python.tar.gz`` in the official order of its members, then ``extra`` ones."""
    files = {**cifar10_files(count), "readme.html": b"<meta>"}
    order = ["data_batch_4", "readme.html", "test_batch", "data_batch_3", "batches.meta"]
    order += ["data_batch_2", "data_batch_5", "data_batch_1"]
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        folder = tarfile.TarInfo("cifar-10-batches-py")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name in order:
            tar.addfile(member(f"cifar-10-batches-py/{name}", len(files[name])), io.BytesIO(files[name]))
        for info, data in extra:
            tar.addfile(info, io.BytesIO(data))
    return path


def member(name: str, size: int = 0, *, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    """A tar member's header."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, target
    return info


def ppm(height: int, width: int, seed: int) -> bytes:
    """An image as GTSRB has them."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return b"P6\n%d %d\n255\n" % (width, height) + pixels.tobytes()


def write_gtsrb(folder: Path, *, test_table: str | None = "GT-final_test.csv") -> Path:
    """``GTSRB`` in ``folder``: two images of each class, five to test; sizes differ. ``test_table``: where it lies."""
    train, test = folder / "GTSRB/Final_Training/Images", folder / "GTSRB/Final_Test/Images"
    for label, name in enumerate(CLASS_NAMES):
        (train / name).mkdir(parents=True)
        rows = []
        for i in range(2):
            height, width = 15 + label % 5, 15 + i
            (train / name / f"00000_{i:05d}.ppm").write_bytes(ppm(height, width, 2 * label + i))
            rows.append(f"00000_{i:05d}.ppm;{width};{height};5;5;10;10;{label}")
        write_table(train / name / f"GT-{name}.csv", rows)
    test.mkdir(parents=True)
    labels = [16, 1, 38, 33, 11]
    for i in range(5):
        (test / f"{i:05d}.ppm").write_bytes(ppm(20, 18, 100 + i))
    (test / "GT-final_test.test.csv").write_text("Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2\r\n")
    if test_table is not None:
        write_table(folder / test_table, [f"{i:05d}.ppm;18;20;5;5;13;15;{label}" for i, label in enumerate(labels)])
    return folder / "GTSRB"


def write_table(path: Path, rows: Sequence[str]) -> None:
    """A table with CRLF line ends, as the official ones have."""
    path.write_bytes("".join(f"{line}\r\n" for line in [GTSRB_HEADER, *rows]).encode())


def write_imagenette(folder: Path, name: str = "imagenette2-160") -> Path:
    """An Imagenette with one image a class to train on and one to validate on."""
    for split in ("train", "val"):
        for number, wnid in enumerate(NAMES):
            file = folder / name / split / wnid / f"{wnid if split == 'train' else 'ILSVRC2012_val'}_{number:08d}.JPEG"
            file.parent.mkdir(parents=True)
            Image.fromarray(picture(number, 20)[:, :16]).save(file, "JPEG")
    (folder / name / "noisy_imagenette.csv").write_text("path,noisy_labels_0\n")
    return folder / name
