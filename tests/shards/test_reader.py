"""The reader: takes every shard that webdataset writes, and names shard and key of what is wrong with one."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import webdataset as wds
from PIL import Image

from tests.making import picture, sample, write_shard, write_tar
from zipbatch import images
from zipbatch.errors import DataError
from zipbatch.shards import Limits, Sample, read_shard
from zipbatch.strays import Tally

PNG = images.encode_png(picture(0))
DEFAULT = Limits()


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(1)).save(buffer, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return buffer.getvalue()


def refused(path: Path, *parts: str, limits: Limits = DEFAULT) -> DataError:
    """The error of reading ``path``; its message names the shard and each of ``parts``."""
    with pytest.raises(DataError) as caught:
        list(read_shard(path, limits=limits))
    for part in (str(path), *parts):
        assert part in str(caught.value)
    return caught.value


def good_shard(folder: Path, count: int = 3) -> Path:
    return write_shard(folder / "good.tar", [sample(f"k{i}", i, seed=i) for i in range(count)])


def member(name: str, data: bytes = PNG, **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def tar_of(path: Path, *members: tuple[tarfile.TarInfo, bytes], kind: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=kind) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return path


# ---- what it accepts


@pytest.mark.parametrize(("extension", "kind"), [("png", "PNG"), ("jpg", "JPEG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
@pytest.mark.parametrize("label", ["cls", "json"])
def test_image_formats_and_labels(tmp_path: Path, extension: str, kind: str, label: str):
    data = encoded(kind)
    text = b"2" if label == "cls" else b'{"label": 2, "note": "x"}'
    (found,) = read_shard(write_tar(tmp_path / "s.tar", [(f"a/b.{extension}", data), (f"a/b.{label}", text)]))
    assert (found.key, found.members) == ("a/b", {extension: data, label: text})
    assert (found.image_extension, found.label(), found.original_label()) == (extension, 2, 2)
    pixels = found.image()
    assert (pixels.shape, pixels.dtype) == ((16, 16, 3), np.uint8)
    assert np.abs(pixels.astype(int) - picture(1)).max() <= (0 if kind != "JPEG" else 80)


def test_unlabelled(tmp_path: Path):
    found = list(read_shard(write_tar(tmp_path / "s.tar", [("a.png", PNG), ("b.PNG", PNG)])))
    assert [s.key for s in found] == ["a", "b"]
    assert [(s.label(), s.original_label(), s.metadata()) for s in found] == [(None, None, {})] * 2


def test_original_label_differs_from_label(tmp_path: Path):
    meta = json.dumps({"label": 1, "original_label": 7, "poisoned": True}).encode()
    (found,) = read_shard(write_tar(tmp_path / "s.tar", [("a.png", PNG), ("a.cls", b" 1\n"), ("a.json", meta)]))
    assert (found.label(), found.original_label(), found.metadata()["poisoned"]) == (1, 7, True)


@pytest.mark.parametrize("name", ["s.tar.gz", "s.tgz", "gzipped-without-saying-so.tar"])
def test_gzipped(tmp_path: Path, name: str):
    plain = good_shard(tmp_path)
    path = tmp_path / name
    path.write_bytes(gzip.compress(plain.read_bytes()))
    assert [s.members for s in read_shard(path)] == [s.members for s in read_shard(plain)]


def test_folders_and_shard_metadata_are_passed_over(tmp_path: Path):
    folder = member("a", b"", type=tarfile.DIRTYPE)
    found = list(read_shard(tar_of(tmp_path / "s.tar", folder, member("__meta__", b"x"), member("a/1.png"))))
    assert [s.key for s in found] == ["a/1"]


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names(tmp_path: Path, kind: int):
    key = "/".join(["päth" * 20, "b" * 120, "c" * 120])
    path = tar_of(tmp_path / "s.tar", member(f"{key}.png"), member(f"{key}.cls", b"1"), kind=kind)
    assert [(s.key, s.label()) for s in read_shard(path)] == [(key, 1)]


def test_unknown_members_come_along(tmp_path: Path):
    (found,) = read_shard(write_tar(tmp_path / "s.tar", [("a.png", PNG), ("a.seg.npy", b"\x93NUMPY"), ("a.txt", b"")]))
    assert list(found.members) == ["png", "seg.npy", "txt"]


@pytest.mark.parametrize("compress", [False, True])
def test_webdatasets_own_writer(tmp_path: Path, compress: bool):
    path = tmp_path / ("s.tar.gz" if compress else "s.tar")
    with wds.TarWriter(str(path), compress=compress) as writer:
        for i in range(3):
            writer.write({"__key__": f"n/{i}", "png": picture(i), "cls": i, "json": {"label": i}})
    found = list(read_shard(path))
    assert [(s.key, s.label(), s.metadata()) for s in found] == [(f"n/{i}", i, {"label": i}) for i in range(3)]


def test_read_write_read_is_the_identity(tmp_path: Path):
    first = list(read_shard(good_shard(tmp_path)))
    second = list(read_shard(write_shard(tmp_path / "again.tar", first)))
    assert [(s.key, s.members) for s in first] == [(s.key, s.members) for s in second]


KEYLESS = ["._{}.png", ".DS_Store", "__MACOSX/._{}.png", "__MACOSX/{}.png", "README", "LICENSE", ".{}.swp", "Thumbs.db"]


@pytest.mark.parametrize("folder", ["", "./", "sub/", "a/b.c/"])
@pytest.mark.parametrize("name", KEYLESS)
def test_members_that_are_no_samples_are_passed_over_and_counted(tmp_path: Path, folder: str, name: str):
    rows = [sample(f"{folder.removeprefix('./')}k{i}", i, seed=i) for i in range(3)]
    members = [(f"{row.key}.{kind}", data) for row in rows for kind, data in row.members.items()]
    clean = list(read_shard(write_tar(tmp_path / "clean.tar", members)))
    odd = folder + name.format("k1")
    for place in range(0, len(members) + 1, 2 if name == "Thumbs.db" else 1):  # within a sample, a key would part it
        path = write_tar(tmp_path / "s.tar", [*members[:place], (odd, b"\x00\x05\x16\x07"), *members[place:]])
        strays = Tally()
        assert [(s.key, s.members) for s in read_shard(path, strays=strays)] == [(s.key, s.members) for s in clean]
        assert strays.count == 1
        assert strays.examples[0] in odd


def test_what_stores_may_hold_is_read_as_it_was(tmp_path: Path):
    """A hidden folder's files are samples for every reader of shards."""
    members = [(".work/a.png", PNG), ("@eaDir/b.png", PNG), ("Thumbs.png", PNG), ("Thumbs.db", b"x")]
    strays = Tally()
    found = [(s.key, list(s.members)) for s in read_shard(write_tar(tmp_path / "s.tar", members), strays=strays)]
    assert found == [(".work/a", ["png"]), ("@eaDir/b", ["png"]), ("Thumbs", ["png", "db"])]
    assert strays.count == 0


@pytest.mark.parametrize(
    ("name", "data", "other"),
    [
        ("a.5.jpg", b"x", True),
        ("a.mask.png", PNG, True),
        ("a.tif", b"x", True),
        ("a.thumb", PNG, True),
        ("a.old", encoded("WEBP"), True),
        ("a.npy", b"\x93NUMPY", False),
        ("a.png.txt", b"x", False),
        ("a.jpg.json", b"{}", False),
    ],
)
def test_other_images_of_a_sample(tmp_path: Path, name: str, data: bytes, other: bool):
    (found,) = read_shard(write_tar(tmp_path / "s.tar", [("a.png", PNG), (name, data)]))
    assert found.other_images == ((name.removeprefix("a."),) if other else ())


# ---- broken archives


@pytest.mark.parametrize("content", [b"", b"hello\n", b"not a tar " * 500, b"\x1f\x8bnot gzip either"])
def test_no_tar_at_all(tmp_path: Path, content: bytes):
    path = tmp_path / "s.tar"
    path.write_bytes(content)
    refused(path)


def test_truncated_in_a_member(tmp_path: Path):
    path = good_shard(tmp_path)
    with tarfile.open(path) as tar:
        last = tar.getmembers()[-1]
    path.write_bytes(path.read_bytes()[: last.offset_data + 100])
    refused(path)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_truncated_at_a_member_boundary(tmp_path: Path, number: int):
    path = good_shard(tmp_path)
    with tarfile.open(path) as tar:
        start = tar.getmembers()[number].offset
    path.write_bytes(path.read_bytes()[:start])
    refused(path)


def test_truncated_within_a_header(tmp_path: Path):
    path = good_shard(tmp_path)
    with tarfile.open(path) as tar:
        start = tar.getmembers()[2].offset
    path.write_bytes(path.read_bytes()[: start + 200])
    refused(path)


def test_garbage_after_a_member(tmp_path: Path):
    path = good_shard(tmp_path)
    with tarfile.open(path) as tar:
        start = tar.getmembers()[2].offset
    data = path.read_bytes()
    path.write_bytes(data[:start] + b"garbage!" * 64 + data[start:])
    refused(path, "garbage")


def test_a_header_with_a_wrong_checksum(tmp_path: Path):
    path = good_shard(tmp_path)
    with tarfile.open(path) as tar:
        start = tar.getmembers()[2].offset
    data = bytearray(path.read_bytes())
    data[start] ^= 1
    path.write_bytes(data)
    refused(path)


@pytest.mark.parametrize("keep", [0.3, 0.9, -4])
def test_truncated_gzip(tmp_path: Path, keep: float):
    data = gzip.compress(good_shard(tmp_path).read_bytes())
    path = tmp_path / "s.tar.gz"
    path.write_bytes(data[: int(len(data) * keep) if keep > 0 else int(keep)])
    refused(path)


def test_gzip_with_a_wrong_checksum(tmp_path: Path):
    data = bytearray(gzip.compress(good_shard(tmp_path).read_bytes()))
    data[-6] ^= 1
    path = tmp_path / "s.tar.gz"
    path.write_bytes(data)
    refused(path)


def test_samples_before_the_damage_are_given(tmp_path: Path):
    path = good_shard(tmp_path)
    with tarfile.open(path) as tar:
        last = tar.getmembers()[-1]
    path.write_bytes(path.read_bytes()[: last.offset_data + 10])
    found = []
    with pytest.raises(DataError):
        found.extend(s.key for s in read_shard(path))
    stream = read_shard(path)
    assert [next(stream).key, next(stream).key] == ["k0", "k1"]


# ---- whole archives with the wrong things in them

WRONG: dict[str, tuple[list[tuple[str, bytes]], str]] = {
    "interleaved": ([("a.png", PNG), ("b.png", PNG), ("a.cls", b"1"), ("b.cls", b"1")], "'a'"),
    "duplicate key": ([("a.png", PNG), ("b.png", PNG), ("a.png", PNG)], "'a'"),
    "duplicate member": ([("a.png", PNG), ("a.cls", b"1"), ("a.cls", b"2")], "'a'"),
    "duplicate member by case": ([("a.png", PNG), ("a.PNG", PNG)], "'a'"),
    "no image": ([("a.cls", b"1")], "'a'"),
    "no image in the second": ([("a.png", PNG), ("b.cls", b"1"), ("c.png", PNG)], "'b'"),
    "two images": ([("a.png", PNG), ("a.jpg", b"x")], "'a'"),
    "absolute": ([("/etc/a.png", PNG)], "/etc/a"),
    "parent": ([("../a.png", PNG)], "../a"),
    "parent inside": ([("x/../../a.png", PNG)], "x/../../a"),
    "current inside": ([("a/./b.png", PNG)], "a/./b"),
    "empty part": ([("x//a.png", PNG)], "x//a"),
    "backslash": ([("x\\a.png", PNG)], r"x\\a"),
    "newline": ([("x\na.png", PNG)], r"x\na"),
    "control character": ([("x\x1b[2Ja.png", PNG)], r"\x1b"),
    "5 KB key": ([("k" * 5000 + ".png", PNG)], "kkkk"),
    "no extension": ([("a", PNG)], "'a'"),
    "an image without an extension": ([("x/a", PNG), ("b.png", PNG)], "'x/a' has no extension but is an image"),
    "nothing but strays": ([("x/.png", PNG)], "holds no sample, only what every reader passes over: 1 (x/.png)"),
    "odd extension": ([("a.p\nng", PNG)], r"p\nng"),
    "long extension": ([("a." + "x" * 100, PNG)], "xxxx"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_members(tmp_path: Path, case: str):
    members, named = WRONG[case]
    refused(write_tar(tmp_path / "s.tar", members), named)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices(tmp_path: Path, kind: bytes):
    bad = member("b.png", b"", type=kind, linkname="/etc/passwd")
    refused(tar_of(tmp_path / "s.tar", member("a.png"), bad), "b.png")


def test_a_member_over_the_limit(tmp_path: Path):
    path = write_tar(tmp_path / "s.tar", [("a.png", PNG), ("b.png", PNG + bytes(4000))])
    error = refused(path, "'b'", "4000", limits=Limits(max_member_bytes=4000))
    assert error.key == "b"
    assert len(list(read_shard(path))) == 2


def test_a_sample_over_the_limit(tmp_path: Path):
    """Each member is small enough, but there are many."""
    path = write_tar(tmp_path / "s.tar", [("a.png", PNG), *((f"a.x{i}", bytes(1000)) for i in range(10))])
    refused(path, "'a'", "over 9000 bytes together", limits=Limits(max_sample_bytes=9000))
    assert len(next(read_shard(path)).members) == 11


def test_a_claimed_size_is_refused_before_it_is_read(tmp_path: Path):
    info, _ = member("a.png")
    info.size = 1 << 40
    path = tmp_path / "s.tar"
    path.write_bytes(info.tobuf() + bytes(1024))
    refused(path, "'a'", str(1 << 40))


# ---- what shows only when a sample is decoded


def broken(make: Callable[[], object], *parts: str) -> None:
    with pytest.raises(DataError) as caught:
        make()
    for part in ("shard-7.tar", "'a'", *parts):
        assert part in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", PNG[:-60], encoded("JPEG"), b"GIF89a" + bytes(20)])
def test_unreadable_image(data: bytes):
    broken(Sample("a", {"png": data}, "shard-7.tar").image, "png")


def test_pixel_limit():
    broken(lambda: Sample("a", {"png": PNG}, "shard-7.tar").image(max_pixels=255), "16x16", "255")
    assert Sample("a", {"png": PNG}).image(max_pixels=256).shape == (16, 16, 3)


def test_a_bomb_is_refused_from_its_header():
    data = bytearray(PNG)
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    broken(Sample("a", {"png": bytes(data)}, "shard-7.tar").image)


def test_animation_and_transparency_are_refused():
    buffer = io.BytesIO()
    frames = [Image.fromarray(picture(i)) for i in range(2)]
    frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:])
    broken(Sample("a", {"png": buffer.getvalue()}, "shard-7.tar").image, "animated")
    buffer = io.BytesIO()
    Image.new("RGBA", (4, 4), (1, 2, 3, 4)).save(buffer, "PNG")
    broken(Sample("a", {"png": buffer.getvalue()}, "shard-7.tar").image, "transparent")


@pytest.mark.parametrize("text", [b"x", b"-1", b"", b"1.0", b"0x1", "٣".encode(), b"9" * 1_000_000, b"\xff"])
def test_bad_cls(text: bytes):
    broken(Sample("a", {"png": PNG, "cls": text}, "shard-7.tar").label, "cls")


@pytest.mark.parametrize(
    "text", [b"[1]", b"3", b"", b"{", b"\xff\xfe", b"[" * 10_000 + b"]" * 10_000, b'{"label": ' + b"9" * 10_000 + b"}"]
)
def test_bad_json(text: bytes):
    broken(Sample("a", {"png": PNG, "json": text}, "shard-7.tar").label, "json")


@pytest.mark.parametrize("value", ["true", "-1", "1.5", '"x"', "[1]", "{}"])
@pytest.mark.parametrize("field", ["label", "original_label"])
def test_bad_json_label(field: str, value: str):
    text = f'{{"{field}": {value}}}'.encode()
    broken(Sample("a", {"png": PNG, "json": text}, "shard-7.tar").original_label, field)


def test_concatenated_tars_lose_no_sample_in_silence(tmp_path: Path):
    first = write_shard(tmp_path / "a.tar", [sample("a", 0, seed=1)]).read_bytes()
    second = write_shard(tmp_path / "b.tar", [sample("b", 0, seed=2)]).read_bytes()
    (tmp_path / "both.tar").write_bytes(first + second)
    refused(tmp_path / "both.tar", "data after the end")
    (tmp_path / "both.tar.gz").write_bytes(gzip.compress(first) + gzip.compress(second))
    refused(tmp_path / "both.tar.gz", "data after the end")
    (tmp_path / "padded.tar").write_bytes(first + bytes(20 * 512))
    assert [s.key for s in read_shard(tmp_path / "padded.tar")] == ["a"]


def test_a_member_cannot_pose_as_the_key(tmp_path: Path):
    refused(write_tar(tmp_path / "t.tar", [("a.__key__", b"evil"), ("a.png", PNG)]), "reserved")


@pytest.mark.parametrize("label", [b"1000001", b"999999999"])
def test_a_label_cannot_ask_for_memory(tmp_path: Path, label: bytes):
    path = write_tar(tmp_path / "t.tar", [("a.png", PNG), ("a.cls", label)])
    with pytest.raises(DataError, match="class index"):
        next(iter(read_shard(path))).label()
    path = write_tar(tmp_path / "j.tar", [("a.png", PNG), ("a.json", b'{"label": 1%s}' % (b"0" * 30))])
    with pytest.raises(DataError, match="class index"):
        next(iter(read_shard(path))).label()


def test_a_tar_of_a_folder_is_read(tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(PNG)
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        tar.add(tmp_path / "in", arcname=".")
    assert [s.key for s in read_shard(tmp_path / "t.tar")] == ["a"]
