"""One sample of a shard and the names its members may have."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from zipbatch.errors import DataError
from zipbatch.images import EXTENSIONS, MAX_PIXELS, U8, decode

MAX_KEY_BYTES = 1024
_NAME = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]+)$", re.DOTALL)  # webdataset's own split: at the base name's first dot


def split_name(name: str) -> tuple[str, str]:
    """Tar member name -> (key, extension), at the first dot of the base name, as webdataset splits it.

    Raises:
        ValueError: there is no key or no extension, or the key could not be a path inside a folder.
    """
    match = _NAME.match(name)
    if not match:
        raise ValueError(f"member name {name!r} has no <key>.<extension>")
    key, extension = match.group(1), match.group(2).lower()
    check_key(key)
    if len(extension) > 64 or not extension.isprintable():
        raise ValueError(f"extension {extension[:64]!r} is over 64 characters or not printable")
    return key, extension


def check_key(key: str) -> None:
    """Refuse keys that would escape a folder or break a listing once they become paths or lines.

    Raises:
        ValueError: empty, absolute, with ``.``, ``..`` or empty parts, a backslash, unprintable characters, too long.
    """
    if len(key.encode(errors="surrogatepass")) > MAX_KEY_BYTES:
        raise ValueError(f"key {key[:40]!r}… is over {MAX_KEY_BYTES} bytes")
    if not key.isprintable() or "\\" in key:
        raise ValueError(f"key {key!r} has unprintable characters or a backslash")
    if any(part in {"", ".", ".."} for part in key.split("/")):
        raise ValueError(f"key {key!r} would escape its folder (absolute, empty, '.' or '..' part)")


@dataclass(frozen=True)
class Sample:
    """One image with its metadata, as bytes.

    Attributes:
        key: the webdataset ``__key__``.
        members: extension -> bytes, every member of the sample.
        shard: where it was read, for messages.
    """

    key: str
    members: dict[str, bytes]
    shard: str = ""

    @property
    def image_extension(self) -> str:
        """The one image member's extension.

        Raises:
            DataError: none, or more than one.
        """
        found = [extension for extension in self.members if extension in EXTENSIONS]
        if len(found) != 1:
            kinds = ", ".join(EXTENSIONS)
            have = ", ".join(self.members) or "nothing"
            raise DataError(self.shard, f"needs exactly one image member ({kinds}), has {have}", key=self.key)
        return found[0]

    def image(self, *, max_pixels: int = MAX_PIXELS) -> U8:
        """The decoded image, uint8 RGB [H, W, 3].

        Raises:
            DataError: it cannot be decoded.
        """
        extension = self.image_extension
        try:
            return decode(self.members[extension], extension, max_pixels=max_pixels)
        except ValueError as error:
            raise DataError(self.shard, str(error), key=self.key) from error

    def label(self) -> int | None:
        """The class from ``.cls``, else from ``label`` of ``.json``, else None.

        Raises:
            DataError: present but not an integer of 0 or more.
        """
        if "cls" in self.members:
            return self._integer(self.members["cls"].decode("ascii", "replace").strip(), "cls")
        return self._json_integer("label")

    def original_label(self) -> int | None:
        """The true class of a poisoned split (``original_label`` of ``.json``), else the label."""
        original = self._json_integer("original_label")
        return self.label() if original is None else original

    def metadata(self) -> dict[str, Any]:
        """The ``.json`` member as a dict, empty when there is none.

        Raises:
            DataError: it is not a JSON object.
        """
        if "json" not in self.members:
            return {}
        try:
            value = json.loads(self.members["json"])
        except (ValueError, RecursionError) as error:
            raise DataError(self.shard, f".json is not valid JSON ({error})", key=self.key) from error
        if not isinstance(value, dict):
            raise DataError(self.shard, ".json is not a JSON object", key=self.key)
        return value

    def _json_integer(self, field: str) -> int | None:
        value = self.metadata().get(field)
        return None if value is None else self._integer(value, f"json {field}")

    def _integer(self, value: object, what: str) -> int:
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
            return int(value)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        raise DataError(self.shard, f"{what} is not a class index: {str(value)[:40]!r}", key=self.key)
