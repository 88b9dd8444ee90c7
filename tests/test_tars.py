"""Tars of bad faith are refused at once, whatever their headers say; nothing is read that they only claim."""

from __future__ import annotations

import gzip
import io
import resource
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.making import picture
from zipbatch import images, tars
from zipbatch.errors import DataError
from zipbatch.shards import read_shard
from zipbatch.tars import DamagedTarError, open_tar

PNG = images.encode_png(picture(0))
END = bytes(1024)
EXTENDED = [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK]


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def member(name: str = "a.png", data: bytes = PNG) -> bytes:
    return header(name, len(data)) + padded(data)


def pax(kind: bytes = tarfile.XHDTYPE, **records: str) -> bytes:
    body = b""
    for name, value in records.items():
        record = f" {name.replace('_', '.')}={value}\n".encode()
        length = len(record) + 1
        while len(str(length)) + len(record) != length:
            length += 1
        body += str(length).encode() + record
    return header("pax", len(body), kind) + padded(body)


def read(path: Path) -> list[str]:
    return [sample.key for sample in read_shard(path)]


def refused(folder: Path, content: bytes, words: str) -> None:
    """Plain and gzipped, by an error that names the file."""
    for name, data in (("x.tar", content), ("x.tar.gz", gzip.compress(content, 1))):
        (folder / name).write_bytes(data)
        with pytest.raises(DataError, match=words) as caught:
            read(folder / name)
        assert str(folder / name) in str(caught.value)


@pytest.mark.parametrize("kind", EXTENDED)
@pytest.mark.parametrize("size", [2 * tars.MAX_HEADER_BYTES, 8 << 30, 1 << 62, -512])
def test_an_extended_header_that_asks_for_too_much(tmp_path: Path, kind: bytes, size: int):
    refused(tmp_path, member("b.png") + header("p", size, kind) + member() + END, f"a header asks for {size} bytes")


def test_a_bomb_behind_an_extended_header_is_not_unpacked(tmp_path: Path):
    with gzip.open(tmp_path / "x.tar.gz", "wb", 1) as stream:
        stream.write(header("p", 1 << 30, tarfile.XHDTYPE))
        for _ in range(200):
            stream.write(bytes(1 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match="a header asks for"):
        read(tmp_path / "x.tar.gz")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024


@pytest.mark.parametrize("chain", [pax(path="a.png"), header("p", 4, tarfile.GNUTYPE_LONGNAME) + padded(b"abc\0")])
def test_hundreds_of_extended_headers_in_a_row(tmp_path: Path, chain: bytes):
    refused(tmp_path, chain * 900 + member() + END, "not a readable tar")


@pytest.mark.parametrize("size", [-1, -512, -1536])
@pytest.mark.parametrize(("name", "kind"), [("b.png", tarfile.REGTYPE), ("b", tarfile.DIRTYPE), ("__b__", b"0")])
def test_a_negative_size_leads_nowhere(tmp_path: Path, name: str, kind: bytes, size: int):
    refused(tmp_path, member() + header(name, size, kind) + END, f"has a size of {size}")


@pytest.mark.parametrize("size", ["-2048", "9" * 3000, "9" * 18])
def test_a_size_in_an_extended_header(tmp_path: Path, size: str):
    refused(
        tmp_path, member() + pax(size=size) + header("__b__", 0) + member("c.png") + END, r"size|not a readable tar"
    )


SPARSE: dict[str, bytes] = {
    "old": header("b.png", 512, tarfile.GNUTYPE_SPARSE) + bytes(512),
    "0.0": pax(GNU_sparse_size="9" * 15, GNU_sparse_numblocks="x") + header("b.png", 512) + bytes(512),
    "0.1": pax(GNU_sparse_size="9" * 15, GNU_sparse_map="0,512") + header("b.png", 512) + bytes(512),
    "0.1, damaged": pax(GNU_sparse_size="1", GNU_sparse_map="x,y") + header("b.png", 512) + bytes(512),
    "1.0": pax(GNU_sparse_major="1", GNU_sparse_minor="0", GNU_sparse_realsize="9" * 15)
    + header("b.png", 512)
    + padded(b"1\n0\n512\n"),
    "1.0, endless map": pax(GNU_sparse_major="1", GNU_sparse_minor="0", GNU_sparse_realsize="1")
    + header("b.png", 512)
    + padded(b"99999999\n" + b"0\n" * 200),
}


@pytest.mark.parametrize("case", SPARSE)
def test_sparse_members(tmp_path: Path, case: str):
    refused(tmp_path, member() + SPARSE[case] + END, r"sparse|not a readable tar")


def test_global_headers_must_not_pile_up(tmp_path: Path):
    many = b"".join(pax(tarfile.XGLTYPE, **{f"x{i}": "y"}) + member(f"{i}.png") for i in range(tars.MAX_GLOBAL_HEADERS))
    (tmp_path / "x.tar").write_bytes(many + END)
    assert len(read(tmp_path / "x.tar")) == tars.MAX_GLOBAL_HEADERS
    refused(tmp_path, many + pax(tarfile.XGLTYPE, one="more") + member() + END, "global headers")


def test_padding_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tars, "MAX_PADDING", 1 << 20)
    (tmp_path / "x.tar").write_bytes(member() + bytes(1 << 20))
    assert read(tmp_path / "x.tar") == ["a"]
    refused(tmp_path, member() + bytes(4 << 20), "zeros after the end")


@pytest.mark.parametrize("make", [lambda data: data, gzip.compress])
def test_members_are_what_tarfile_finds(tmp_path: Path, make: Callable[[bytes], bytes]):
    """Long names, global headers, folders, links and gaps between what is read and what is not."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "x"}) as tar:
        for number, (kind, size) in enumerate([(b"0", 5), (b"5", 0), (b"2", 0), (b"0", 512), (b"0", 0), (b"0", 1300)]):
            info = tarfile.TarInfo(f"{'ä' * 150}/{number}")
            info.type, info.size, info.linkname = kind, size, "t" if kind == b"2" else ""
            tar.addfile(info, io.BytesIO(bytes([number]) * size))
    (tmp_path / "x.tar").write_bytes(make(buffer.getvalue()))
    with tarfile.open(tmp_path / "x.tar") as theirs, open_tar(tmp_path / "x.tar") as ours:
        for wanted, found in zip(theirs, ours, strict=True):
            assert (found.name, found.size, found.folder) == (wanted.name, wanted.size, wanted.isdir())
            content = theirs.extractfile(wanted) if wanted.isreg() else None
            assert found.plain == wanted.isreg()
            if content is not None and not found.name.endswith("/3"):  # one is passed over
                assert found.read() == content.read()
        ours.check_end()


def test_an_empty_file_is_no_tar(tmp_path: Path):
    (tmp_path / "x.tar").write_bytes(b"")
    with pytest.raises(DamagedTarError, match="empty file"), open_tar(tmp_path / "x.tar") as tar:
        list(tar)
