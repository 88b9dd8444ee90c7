"""What a file or a folder is, whatever its name says: told from a file's first bytes, or from the names in a folder.

For the moment something is not what it was taken for: an error then says what it is instead, and what to do.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from zipbatch import storage
from zipbatch.storage import StoragePath

HEAD_BYTES = 512
"""As many first bytes as are looked at: a tar's header."""
_MAX_SAFETENSORS_HEADER = 100_000_000  # the format's own limit
_SHOWN = 5
_AGAIN = "download or copy it again"
_PAGE = "the download was answered with a page, often a login or an error: open it, then download the file itself"


@dataclass(frozen=True)
class Kind:
    """``name`` for code, ``what`` it is in words, and the ``remedy`` of who expected something else."""

    name: str
    what: str
    remedy: str = "name another file"


EMPTY = Kind("empty", "an empty file", _AGAIN)
TAR = Kind("tar", "a tar archive", "unpack it first")
SAFETENSORS = Kind("safetensors", "a safetensors file")
ONNX = Kind("onnx", "an ONNX model")
TEXT = Kind("text", "plain text", "look into it: it may be a message")
_TEXTS = {
    rb"version https://git-lfs\.github\.com/": Kind(
        "lfs", "a Git LFS pointer, which only names the file", "fetch the file itself: git lfs pull"
    ),
    rb"(?:\.\./)*(?:\.git)?/annex/objects/": Kind(
        "annex", "a git-annex pointer, which only names the file", "fetch the file itself: git annex get"
    ),
    rb"(?:<!--.*?-->\s*)?<(?:!doctype html|html|head|body)": Kind("html", "an HTML page", _PAGE),
    rb"<\?xml|<error>": Kind("xml", "an XML document", _PAGE),
    rb'\{\s*(?:"|\}|$)': Kind("json", "a JSON document"),
}
_MAGICS = {
    b"PK\x03\x04": Kind("zip", "a zip archive", "unpack it first"),
    b"PK\x05\x06": Kind("zip", "an empty zip archive", _AGAIN),
    b"\x1f\x8b": Kind("gzip", "gzipped", "unpack it first: gunzip"),
    b"BZh": Kind("bzip2", "compressed with bzip2", "unpack it first: bunzip2"),
    b"\xfd7zXZ\x00": Kind("xz", "compressed with xz", "unpack it first: unxz"),
    b"\x28\xb5\x2f\xfd": Kind("zstd", "compressed with zstd", "unpack it first: unzstd"),
    b"7z\xbc\xaf\x27\x1c": Kind("7z", "a 7z archive", "unpack it first"),
    b"Rar!\x1a\x07": Kind("rar", "a RAR archive", "unpack it first"),
    b"\x93NUMPY": Kind("npy", "a numpy array (.npy)"),
    b"\x89HDF\r\n\x1a\n": Kind("hdf5", "an HDF5 file, as Keras writes them", "export the network to ONNX"),
    b"GGUF": Kind("gguf", "a GGUF model"),
    b"\x89PNG\r\n\x1a\n": Kind("png", "a PNG image"),
    b"\xff\xd8\xff": Kind("jpeg", "a JPEG image"),
    b"GIF8": Kind("gif", "a GIF image", "convert it to PNG"),
    b"BM": Kind("bmp", "a BMP image", "convert it to PNG"),
    b"II*\x00": Kind("tiff", "a TIFF image", "convert it to PNG"),
    b"MM\x00*": Kind("tiff", "a TIFF image", "convert it to PNG"),
    b"%PDF-": Kind("pdf", "a PDF document"),
    b"\x7fELF": Kind("elf", "a program"),
    **{bytes([0x80, protocol]): Kind("pickle", "a pickle") for protocol in range(2, 6)},
}
_WEBP = re.compile(rb"RIFF....WEBP", re.DOTALL)
_ONNX = re.compile(rb"\x08[\x01-\x1f][\x12\x1a\x22\x28\x32\x3a\x42]")
"""Field 1 of the protobuf, the version, and after it one of the fields that exporters write next."""


def kind_of(head: bytes) -> Kind | None:
    """What begins with these bytes (``HEAD_BYTES`` of them, or all there are); None for what is not known."""
    if not head:
        return EMPTY
    if _is_tar(head):
        return TAR
    if len(head) > 8 and head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= _MAX_SAFETENSORS_HEADER:
        return SAFETENSORS
    for magic, kind in _MAGICS.items():
        if head.startswith(magic) and (kind.name != "bmp" or b"\x00" in head[:16]):
            return kind
    if _WEBP.match(head):
        return Kind("webp", "a WEBP image")
    return ONNX if _ONNX.match(head) else _text_kind(head)


def _is_tar(head: bytes) -> bool:
    """Whether it is a tar's first header, of any age: its checksum is right."""
    digits = head[148:156].strip(b" \0")
    if len(head) < HEAD_BYTES or not re.fullmatch(rb"[0-7]{1,7}", digits):
        return False
    return sum(head[:148]) + sum(b" " * 8) + sum(head[156:HEAD_BYTES]) == int(digits, 8)


def _text_kind(head: bytes) -> Kind | None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for pattern, kind in _TEXTS.items():
        if re.match(pattern, text, re.IGNORECASE | re.DOTALL):
            return kind
    plain = text and not re.search(rb"[^\t\n\r\x20-\x7e\x80-\xff]", text)
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.end < len(text):  # not the last character, cut in two
            return None
    return TEXT if plain else None


def head_of(file: Path) -> bytes:
    """The first ``HEAD_BYTES`` of a local file. Raises ``OSError``, ``DataError`` for a pipe, a device or the like."""
    storage.plain(file)
    with file.open("rb") as stream:
        return stream.read(HEAD_BYTES)


def instead(head: bytes, wanted: str, *, fit: Collection[str] = ()) -> str | None:
    """What a file with these first bytes is, where that is surely not ``wanted``: "is …, not …; what to do".

    Args:
        head: as for ``kind_of``.
        wanted: what it was taken for, with its article.
        fit: names of the kinds that it may be; what is not known fits too.
    """
    kind = kind_of(head)
    if kind is None or kind.name in fit:
        return None
    return f"is {kind.what}, not {wanted}; {kind.remedy}"


_MARKS: Mapping[str, tuple[Collection[str], ...]] = {
    "a store of purified shards": ({"objects", "tasks"}, {"objects", "versions"}, {"versions", "tags"}),
    "a staged dataset": ({"manifest.json", "shards.jsonl"},),
    "a prior": ({"model_index.json"}, {"unet"}, {"config.json", "scheduler_config.json"}),
    "a victim": ({"config.json", "model.safetensors"}, {"config.json", "model.onnx"}),
    "a record of BackdoorBench": ({"attack_result.pt"},),
}


def folder_kind(folder: StoragePath) -> str:
    """What a folder is, in words and with an article: by what it holds; "a folder of …" where that is all one can say.

    On an object store this lists.
    """
    names = storage.names_in(folder)
    for kind, marks in _MARKS.items():
        if any(set(mark) <= set(names) for mark in marks):
            return kind
    if any(name.endswith((".tar", ".tar.gz", ".tgz")) for name in names):
        return "a folder of shards"
    return f"a folder of {a_few(names)}" if names else "an empty folder"


def taken_by(path: Path) -> str:
    """What is at a path, or stands in its way, in words: for errors of outputs that have no place there."""
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    if there != path:
        return f"{there}, {taken_by(there)}"
    if path.is_dir():
        return folder_kind(path)
    kind = kind_of(head_of(path)) if path.is_file() else None
    return kind.what if kind else "a file"


def a_few(names: Sequence[str]) -> str:
    """The first few of many names, and how many more there are: "a, b, c and 99 more"."""
    shown = ", ".join(name[:80] for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
