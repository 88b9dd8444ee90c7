"""Damage bytes in the ways that break parsers; the same seed gives the same damage."""

from __future__ import annotations

import gzip
import io
import json
import random
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence

NUMBERS = [0, 1, -1, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63, 2**64 - 1]
TOKENS = [
    *(b"", b"\0", b"\xff" * 8, b"../../evil", b"/etc/passwd", b"a" * 5000, b"[" * 3000, b"{" * 3000, b'{"a":' * 500),
    *(b"9" * 5000, b"-1", b"1e999", b"NaN", b"null", b"true", b'""', b"[]", b"{}", b"\n", b"\r", b",", b";", b'"'),
    *(b"\xc3\xa9", b"e\xcc\x81", b"\xed\xa0\x80", b"\xc3\x28", b"\xe2\x80\xae", b"\x1b[2J", b"&a [*a]", b"*a"),
    *(b"<<: *a", b"!!python/object:os.system x", b"!!bool x", b"1:1:1:1:1", b"${vars}", b"cos\nsystem\n", b"\x80\x02"),
    *(b"IDAT", b"IEND", b"acTL", b"iCCP", b"zTXt", b"eXIf", b"\xff\xda", b"\xff\xd8", b"VP8X", b"ANMF"),
    *(b"GNU.sparse.map=", b"GNU.sparse.size=9", b"GNU.sparse.major=1", b"size=-512", b"path=../x.png"),
]
Codec = tuple[Callable[[bytes], list[bytes]], Callable[[list[bytes]], bytes]]
"""Take a file apart into pieces that may be damaged, and put it together so that what surrounds them fits."""


_NO_SUCH = (ValueError, OSError, EOFError, LookupError, OverflowError, struct.error, zlib.error, zipfile.BadZipFile)


def mutated(rng: random.Random, seeds: Sequence[bytes], codecs: Sequence[Codec]) -> bytes:
    """One of the seeds, damaged: as bytes, or within its structure, whose checksums and lengths then still fit."""
    data = rng.choice(seeds)
    if codecs and rng.random() < 0.6:
        take, put = rng.choice(codecs)
        try:
            pieces = take(data)
            for _ in range(rng.choice((1, 1, 2, 4))):
                _damage_piece(rng, pieces)
            return put(pieces)
        except _NO_SUCH:
            pass  # this seed has another structure
    return damaged(rng, data, seeds)


def _damage_piece(rng: random.Random, pieces: list[bytes]) -> None:
    at = rng.randrange(len(pieces))
    what = rng.random()
    if what < 0.08:
        pieces.insert(at, pieces[rng.randrange(len(pieces))])
    elif what < 0.14 and len(pieces) > 1:
        del pieces[at]
    elif what < 0.2:
        other = rng.randrange(len(pieces))
        pieces[at], pieces[other] = pieces[other], pieces[at]
    else:
        pieces[at] = damaged(rng, pieces[at], pieces)


def damaged(rng: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Bytes with one to eight things wrong with them."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        rng.choice(_DAMAGE)(rng, out, others)
    return bytes(out[: 4 * len(data) + 100_000])


def _at(rng: random.Random, out: bytearray) -> int:
    return rng.randrange(len(out) + 1) if rng.random() < 0.7 else rng.randrange(min(len(out), 64) + 1)


def _flip(rng: random.Random, out: bytearray, _: Sequence[bytes]) -> None:
    if out:
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)


def _set(rng: random.Random, out: bytearray, _: Sequence[bytes]) -> None:
    if out:
        out[min(_at(rng, out), len(out) - 1)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, 0x20, 0x30, rng.randrange(256)))


def _cut(rng: random.Random, out: bytearray, _: Sequence[bytes]) -> None:
    del out[_at(rng, out) :]


def _drop(rng: random.Random, out: bytearray, _: Sequence[bytes]) -> None:
    start = _at(rng, out)
    del out[start : start + rng.choice((1, 2, 4, 16, 512, rng.randrange(1, 2000)))]


def _repeat(rng: random.Random, out: bytearray, _: Sequence[bytes]) -> None:
    start, size = _at(rng, out), rng.choice((1, 4, 16, 512, rng.randrange(1, 2000)))
    out[start:start] = out[start : start + size] * rng.choice((1, 2, 20))


def _splice(rng: random.Random, out: bytearray, others: Sequence[bytes]) -> None:
    other = rng.choice(others)
    out[_at(rng, out) :] = other[rng.randrange(len(other) + 1) :]


def _token(rng: random.Random, out: bytearray, _: Sequence[bytes]) -> None:
    start, token = _at(rng, out), rng.choice(TOKENS)
    out[start : start + rng.choice((0, len(token), 1))] = token


def _number(rng: random.Random, out: bytearray, _: Sequence[bytes]) -> None:
    """A length field: two, four or eight bytes of either order."""
    size, start = rng.choice((2, 4, 8)), _at(rng, out)
    value = rng.choice(NUMBERS) % 2 ** (8 * size)
    out[start : start + size] = value.to_bytes(size, rng.choice(("little", "big")))


def _digits(rng: random.Random, out: bytearray, _: Sequence[bytes]) -> None:
    """A number in text."""
    found = list(re.finditer(rb"-?\d+", bytes(out[:100_000])))
    if found:
        one = rng.choice(found)
        value = rng.choice([*map(str, NUMBERS), "1e5", "-0.5", "9" * 400, "007", "0x10", "true"])
        text = value.rjust(len(one[0]), "0") if rng.random() < 0.5 else value
        out[one.start() : one.end()] = text.encode()


_DAMAGE = (_flip, _set, _cut, _drop, _repeat, _splice, _token, _number, _digits)


# ---- structure


def _tar_blocks(data: bytes) -> list[bytes]:
    if len(data) % 512 or not data:
        raise ValueError("no tar")
    return [data[i : i + 512] for i in range(0, len(data), 512)]


def _tar(blocks: list[bytes]) -> bytes:
    """Headers get the checksum that belongs to them."""
    out = []
    for block in blocks:
        padded = block[:512].ljust(512, b"\0")
        if padded[257:262] == b"ustar":
            blank = padded[:148] + b" " * 8 + padded[156:]
            padded = padded[:148] + b"%06o\0 " % sum(blank) + padded[156:]
        out.append(padded)
    return b"".join(out)


def _gunzip(data: bytes) -> list[bytes]:
    return _tar_blocks(gzip.decompress(data))


def _lines_of_gzip(data: bytes) -> list[bytes]:
    return gzip.decompress(data).splitlines(keepends=True)


def _png_chunks(data: bytes) -> list[bytes]:
    if data[:4] != b"\x89PNG":
        raise ValueError("no png")
    chunks, at = [], 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        chunks.append(data[at + 4 : at + 8 + length])
        at += 12 + length
    return chunks


def _png(chunks: list[bytes]) -> bytes:
    body = (struct.pack(">I", max(0, len(c) - 4)) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def _riff_chunks(data: bytes) -> list[bytes]:
    if data[8:12] != b"WEBP":
        raise ValueError("no webp")
    chunks, at = [], 12
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        chunks.append(data[at : at + 4] + data[at + 8 : at + 8 + length])
        at += 8 + length + length % 2
    return chunks


def _riff(chunks: list[bytes]) -> bytes:
    body = b"WEBP"
    for c in chunks:
        body += c[:4].ljust(4) + struct.pack("<I", len(c[4:])) + c[4:] + bytes(len(c[4:]) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _jpeg_segments(data: bytes) -> list[bytes]:
    if data[:2] != b"\xff\xd8":
        raise ValueError("no jpeg")
    segments, at = [], 2
    while data[at + 1] != 0xDA:
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        segments.append(data[at + 1 : at + 2] + data[at + 4 : at + 2 + length])
        at += 2 + length
    return [*segments, b"\0" + data[at:]]


def _jpeg(segments: list[bytes]) -> bytes:
    out = b"\xff\xd8"
    for segment in segments:
        if segment[:1] == b"\0":
            out += segment[1:]
        elif segment:
            out += b"\xff" + segment[:1] + struct.pack(">H", len(segment) + 1) + segment[1:]
    return out


def _zip_members(data: bytes) -> list[bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [name.encode() + b"\n" + archive.read(name) for name in archive.namelist()]


def _zip(members: list[bytes]) -> bytes:
    """Stored, as ``torch.save`` stores them."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name that occurs twice
        for member in members:
            name, _, content = member.partition(b"\n")
            archive.writestr(name.decode("latin-1") or "x", content)
    return buffer.getvalue()


def _safetensors(data: bytes) -> list[bytes]:
    size = int.from_bytes(data[:8], "little")
    return [data[8 : 8 + size], data[8 + size :]]


def _json_values(data: bytes) -> list[bytes]:
    """Each value of an object, as text; keys stay."""
    value = json.loads(data)
    if not isinstance(value, dict) or not value:
        raise ValueError("no object")
    return [json.dumps([key, item]).encode() for key, item in value.items()]


def _json_object(values: list[bytes]) -> bytes:
    return b"{" + b",".join(value[1:-1].replace(b", ", b": ", 1) for value in values) + b"}"


TAR: Codec = (_tar_blocks, _tar)
TAR_GZ: Codec = (_gunzip, lambda blocks: gzip.compress(_tar(blocks), 1))
LINES_GZ: Codec = (_lines_of_gzip, lambda lines: gzip.compress(b"".join(lines), 1))
LINES: Codec = (lambda data: data.splitlines(keepends=True) or [b""], b"".join)
PNG: Codec = (_png_chunks, _png)
WEBP: Codec = (_riff_chunks, _riff)
JPEG: Codec = (_jpeg_segments, _jpeg)
ZIP: Codec = (_zip_members, _zip)
SAFETENSORS: Codec = (_safetensors, lambda p: len(p[0]).to_bytes(8, "little") + b"".join(p))
JSON: Codec = (_json_values, _json_object)
JSON_GZ: Codec = (lambda data: _json_values(gzip.decompress(data)), lambda p: gzip.compress(_json_object(p), 1))
