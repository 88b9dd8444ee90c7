"""Write shards so that the same samples give the same bytes, published only by an explicit commit."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from zipbatch import atomic, filesystem, storage
from zipbatch.keys import check_key
from zipbatch.shards.sample import Sample


@dataclass(frozen=True)
class ShardInfo:
    """A finished shard: ``sha256`` and ``size`` of its bytes, ``samples`` in it."""

    sha256: str
    size: int
    samples: int


class ShardWriter:
    """A shard under a temp name in ``folder``; ``finish`` closes it and says what it is, ``publish`` names it.

    Leaving the ``with`` block removes whatever was not published, after an exception as without one. Members are
    sorted within a sample; mtime, uid and gid are 0 and there are no user names.
    """

    def __init__(self, folder: Path) -> None:
        import webdataset as wds  # it imports torch, which those who only look into a store do without

        self.temp = atomic.temp_path(folder)
        self._stream: BinaryIO = self.temp.open("xb")
        atomic.hold(self._stream)
        self._written = _Hashed(self._stream)
        self._tar = wds.TarWriter(self._written, user="", group="", mode=0o644, mtime=0, encoder=False, keep_meta=True)
        self._keys: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._tar.close()  # even when all is lost: tarfile would complain on stderr while it is collected
            self._stream.close()
        except (OSError, ValueError):
            pass  # a full disk, or a stream that finish() closed: nothing of this file is kept
        finally:
            self.temp.unlink(missing_ok=True)

    def write(self, sample: Sample) -> None:
        """Append a sample.

        Raises:
            ValueError: its key is unfit for a path or was written before.
        """
        check_key(sample.key)
        if sample.key in self._keys:
            raise ValueError(f"key {sample.key!r} occurs twice in one shard")
        self._keys.add(sample.key)
        self._tar.write({"__key__": sample.key, **sample.members})

    def finish(self) -> ShardInfo:
        """Close the tar with its end-of-archive blocks; nothing is published yet. Its digest is of what was written,
        whatever can be read of it.
        """
        self._tar.close()
        self._stream.close()
        return ShardInfo(self._written.digest.hexdigest(), self._written.size, len(self._keys))

    def publish(self, final: storage.StoragePath, *, read_only: bool = False) -> None:
        """Move the finished shard to its final place, atomically."""
        if not self._stream.closed:
            raise RuntimeError("publish() before finish()")
        if read_only:
            filesystem.make_read_only(self.temp)
        storage.put_file(self.temp, final)


class _Hashed:
    """A stream that takes the digest of what is written to it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self.digest, self.size = stream, hashlib.sha256(), 0
        self.flush, self.close = stream.flush, stream.close

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.size += len(data)
        return self._stream.write(data)
