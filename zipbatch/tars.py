"""The members of a tar from anywhere, one after another, within limits; nothing is unpacked.

``tarfile`` believes headers. It reads as much as an extended header says it has, calls itself once for each of them in
a row, and goes back where a size is negative. Here it sees the archive through a stream that moves forward only and
gives no more for one member's headers than ``MAX_HEADER_BYTES``.
"""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from zipbatch.kinds import HEAD_BYTES, instead

MAX_HEADER_BYTES = 1024**2
"""Of one member, with extended headers; access lists and attributes take a few KB."""
MAX_GLOBAL_HEADERS = 64
MAX_OFFSET = 1 << 43  # what file systems seek to without complaint
MAX_PADDING = 64 * 1024**2
"""Zeros after the end of an archive: tar pads to its block size, which some set to megabytes."""
_PIECE = 1 << 20
_GZIP_MAGIC = b"\x1f\x8b"


class DamagedTarError(ValueError):
    """Not a whole tar, or one that no program wrote in good faith."""


class _Forward:
    """What ``tarfile`` sees of a stream: it goes on, never back, and ``left`` bytes may be read for headers."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._at = stream, 0
        self.left, self.last = MAX_HEADER_BYTES, b""

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int) -> None:
        if not self._at <= offset < MAX_OFFSET:
            raise tarfile.ReadError("a member's size leads out of the archive")
        if offset != self._at:
            self._at = self._stream.seek(offset)

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self.left:
            raise tarfile.ReadError(f"a header asks for {size} bytes")
        self.left -= size
        self.last = self.content(size)
        return self.last

    def content(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._at += len(data)
        return data


@dataclass(frozen=True, kw_only=True)
class Member:
    """One member: ``plain`` are regular files with all their bytes, no links, devices or sparse ones."""

    name: str
    size: int
    folder: bool
    plain: bool
    _stream: _Forward
    _start: int

    def read(self) -> bytes:
        """Its bytes, fewer than ``size`` where the archive ends; before the next member is asked for, and once."""
        self._stream.seek(self._start)
        return self._stream.content(self.size)


class TarReader:
    """Iterates over the members of an open tar; ``check_end`` then tells whether it was whole."""

    def __init__(self, stream: IO[bytes], file: _Hashed) -> None:
        self._stream, self._forward, self._file = stream, _Forward(stream), file
        self._tar: tarfile.TarFile | None = None

    def __iter__(self) -> Iterator[Member]:
        """Raises ``DamagedTarError`` where a header cannot be."""
        while (found := self._next()) is not None:
            plain = found.isreg() and not found.issparse()
            yield Member(
                name=found.name,
                size=found.size,
                folder=found.isdir(),
                plain=plain,
                _stream=self._forward,
                _start=found.offset_data,
            )

    def check_end(self) -> None:
        """Where the members end there must be an end-of-archive block, then zeros only.

        Reading all of it also checks a gzip's checksum.

        Raises:
            DamagedTarError: cut short, or with something else after its end.
        """
        if self._forward.last != tarfile.NUL * tarfile.BLOCKSIZE:
            raise DamagedTarError("truncated tar or garbage in it: the end-of-archive block is missing")
        padding = 0
        while chunk := self._stream.read(_PIECE):
            padding += len(chunk)
            if chunk.strip(tarfile.NUL):
                raise DamagedTarError("data after the end of the archive (concatenated tars?); pack its samples anew")
            if padding > MAX_PADDING:
                raise DamagedTarError(f"over {MAX_PADDING} zeros after the end of the archive; pack its samples anew")

    def sha256(self) -> str:
        """Hex SHA-256 of the file that has just been read: of these very bytes, whatever lies at its name by now."""
        return self._file.sha256()

    def _next(self) -> tarfile.TarInfo | None:
        self._forward.left = MAX_HEADER_BYTES
        try:
            if self._tar is None:
                self._tar = tarfile.TarFile(fileobj=cast(IO[bytes], self._forward), mode="r")
            found = self._tar.next()
        except tarfile.TarError as error:
            raise DamagedTarError(f"not a readable tar: damaged or truncated ({error})") from error
        except RecursionError as error:
            raise DamagedTarError("not a readable tar: hundreds of extended headers in a row") from error
        except (ValueError, ArithmeticError, LookupError, TypeError, AttributeError) as error:
            raise DamagedTarError(f"not a readable tar: a damaged header ({error})") from error
        self._tar.members = []  # type: ignore[attr-defined]  # a million members must not pile up
        if found is not None and found.size < 0:
            raise DamagedTarError(f"member {found.name[:200]!r} has a size of {found.size}")
        if len(self._tar.pax_headers) > MAX_GLOBAL_HEADERS:
            raise DamagedTarError(f"over {MAX_GLOBAL_HEADERS} global headers; pack its samples anew")
        return found


class _Hashed:
    """A file that takes the digest of what is read of it, each byte once; what is skipped is read, too."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._at, self._digest, self._hashed = stream, 0, hashlib.sha256(), 0

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._digest.update(memoryview(data)[max(0, self._hashed - self._at) :])
        self._at += len(data)
        self._hashed = max(self._hashed, self._at)
        return data

    def seek(self, offset: int) -> int:
        if offset < self._at:
            self._at = self._stream.seek(offset)
        while self._at < offset and self.read(min(offset - self._at, _PIECE)):
            pass
        return self._at

    def sha256(self) -> str:
        """Of the whole file, whose rest is read for it."""
        self.seek(self._hashed)
        while self.read(_PIECE):
            pass
        return self._digest.hexdigest()


@contextmanager
def open_tar(path: Path) -> Iterator[TarReader]:
    """The tar at ``path``, plain or gzipped, whatever its name says.

    Raises:
        DamagedTarError: a file of another kind; in the block too, where a gzip cannot be decompressed.
    """
    try:
        with path.open("rb") as file:
            raw = _Hashed(file)
            magic = raw.read(2)
            raw.seek(0)
            if magic == _GZIP_MAGIC:
                with gzip.GzipFile(fileobj=cast(IO[bytes], raw)) as stream:
                    yield TarReader(_tar_in(cast(IO[bytes], stream)), raw)
            else:
                yield TarReader(_tar_in(cast(IO[bytes], raw)), raw)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DamagedTarError(f"not a readable tar: damaged or truncated ({error})") from error


def _tar_in(stream: IO[bytes]) -> IO[bytes]:
    """A stream from its start on, unless it surely is no tar. What is only damaged is for ``TarReader`` to tell."""
    head = stream.read(HEAD_BYTES)
    if told := instead(head, "a readable tar", fit={"tar"}):
        raise DamagedTarError(told)
    stream.seek(0)
    return stream
