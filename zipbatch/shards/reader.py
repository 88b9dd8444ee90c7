"""Read any webdataset tar, strictly: what common readers split or lose in silence is an error here.

What is nobody's sample is passed over, as they do, but counted: strays, and files without an extension.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from zipbatch.errors import DataError
from zipbatch.images import MAX_PIXELS, is_image
from zipbatch.keys import split_name
from zipbatch.shards.sample import Sample
from zipbatch.storage import CHANGED, StoragePath, local_copy
from zipbatch.strays import Tally, has_stray, is_keyless, quoted
from zipbatch.tars import DamagedTarError, Member, TarReader, open_tar


@dataclass(frozen=True)
class Limits:
    """What one sample may cost before any of it is decoded."""

    max_member_bytes: int = 256 * 1024**2
    max_sample_bytes: int = 256 * 1024**2
    max_pixels: int = MAX_PIXELS


def read_shard(
    path: StoragePath,
    *,
    sha256: str | None = None,
    limits: Limits = Limits(),
    imageless: bool = False,
    strays: Tally | None = None,
) -> Iterator[Sample]:
    """Samples of a shard in order, each with every member it has. Plain or gzipped tar.

    Args:
        path: the shard.
        sha256: the digest of its bytes, where that is known: what has been read is held against it in the end.
        limits: what a sample may cost.
        imageless: also give samples without exactly one image, which are errors otherwise.
        strays: gains the members that are passed over: ``._0001.jpg``, ``__MACOSX/…``, what has no extension and is no
            image (``README``), and other strays without an image (``Thumbs.db``) unless ``imageless``.

    Raises:
        DataError: not a tar, truncated, a link or device, an image without a key, a key that would escape a folder,
            members of one key that are not contiguous, a member twice, a sample without exactly one image, nothing
            but what is passed over; or its bytes are not those of ``sha256``.
    """
    strays = Tally() if strays is None else strays
    before, empty = strays.count, True
    try:
        with local_copy(path) as file, open_tar(file) as tar:
            for sample in _samples(path, tar, limits, strays, imageless=imageless):
                empty = False
                yield sample
            if sha256 is not None and tar.sha256() != sha256:
                raise DataError(path, CHANGED)
    except DamagedTarError as error:
        raise DataError(path, str(error)) from error
    if empty and strays.count > before:
        raise DataError(path, f"holds no sample, only what every reader passes over: {strays}; pack it anew")


def _samples(path: StoragePath, tar: TarReader, limits: Limits, strays: Tally, *, imageless: bool) -> Iterator[Sample]:
    for sample in _grouped(path, tar, limits, strays):
        if not imageless and _is_stray(sample):
            strays.add(sample.key)
            continue
        if not imageless:
            _ = sample.image_extension
        yield sample


def _is_stray(sample: Sample) -> bool:
    """Whether it is what a file manager left."""
    names = (f"{sample.key}.{extension}" for extension in sample.members)
    return not sample.image_extensions and all(map(has_stray, names))


def _grouped(path: StoragePath, tar: TarReader, limits: Limits, strays: Tally) -> Iterator[Sample]:
    seen: set[str] = set()
    key: str | None = None
    members: dict[str, bytes] = {}
    for name, extension, data in _members(path, tar, limits, strays):
        if name != key:
            if key is not None:
                yield Sample(key, members, str(path))
            if name in seen:
                raise DataError(path, "its members are not contiguous, or the key occurs twice", key=name)
            seen.add(name)
            key, members = name, {}
        held = sum(map(len, members.values())) + len(data)
        if held > limits.max_sample_bytes:
            raise DataError(path, f"its members have over {limits.max_sample_bytes} bytes together", key=name)
        if extension in members:
            raise DataError(path, f"member .{extension} occurs twice (duplicate key?)", key=name)
        members[extension] = data
    if key is not None:
        yield Sample(key, members, str(path))


def _members(path: StoragePath, tar: TarReader, limits: Limits, strays: Tally) -> Iterator[tuple[str, str, bytes]]:
    """(key, extension, bytes) of each regular member; checks that the archive ends with its end-of-archive block."""
    for member in tar:
        if member.folder:
            continue
        if is_keyless(member.name):
            strays.add(member.name)
            continue
        if not member.plain:
            raise DataError(path, f"member {member.name[:200]!r} is not a regular file (link, device or sparse)")
        if member.name.startswith("__") and member.name.endswith("__"):
            continue  # webdataset's own shard-level metadata
        if "." not in member.name.rpartition("/")[2]:
            _check_no_image(path, member, limits)
            strays.add(member.name)
            continue
        try:
            key, extension = split_name(member.name)
        except ValueError as error:
            raise DataError(path, str(error)) from error
        if member.size > limits.max_member_bytes:
            raise DataError(
                path, f".{extension} has {member.size} bytes, over the limit of {limits.max_member_bytes}", key=key
            )
        data = member.read()
        if len(data) != member.size:
            raise DataError(path, f".{extension} is truncated: {len(data)} of {member.size} bytes", key=key)
        yield key, extension, data
    tar.check_end()


def _check_no_image(path: StoragePath, member: Member, limits: Limits) -> None:
    """A member without an extension may be left out, unless a picture would be lost with it."""
    if member.size > limits.max_member_bytes or is_image(member.read(), ""):
        name = member.name[:200]
        raise DataError(
            path,
            f"member {name!r} has no extension but is an image; name it {quoted(name)}.jpg or what it is, or "
            "pack the shard without it",
        )
