"""One sample of a shard."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from zipbatch.errors import DataError
from zipbatch.images import EXTENSIONS, MAX_PIXELS, U8, decode, encode_png, is_image

MAX_LABEL = 1_000_000
MAX_JSON_BYTES = 4 * 1024**2
"""Of a ``.json`` that is read; as Python objects it may take twenty times as much. Purification reads none."""


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
    def size(self) -> int:
        """Bytes of its members together."""
        return sum(map(len, self.members.values()))

    @property
    def image_extensions(self) -> list[str]:
        """Those of its members that may be its image."""
        return [extension for extension in self.members if extension in EXTENSIONS]

    @property
    def image_extension(self) -> str:
        """The one image member's extension.

        Raises:
            DataError: none, or more than one.
        """
        found = self.image_extensions
        if len(found) != 1:
            kinds = ", ".join(EXTENSIONS)
            have = ", ".join(list(self.members)[:12]) or "nothing"
            reason = f"needs exactly one image member ({kinds}), has {have}"
            hint = (
                ""
                if found
                else "; if it is no sample, pack the shard without it ('zipbatch purify --quarantine' sets it aside)"
            )
            raise DataError(self.shard, reason + hint, key=self.key)
        return found[0]

    @property
    def other_images(self) -> tuple[str, ...]:
        """The extensions of members that are images, too: a mask, or ``5.jpg`` of a second picture ``1.5.jpg``.

        Raises:
            DataError: as ``image_extension``.
        """
        own = self.image_extension
        return tuple(name for name, data in self.members.items() if name != own and is_image(data, name))

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

    def with_image(self, pixels: U8) -> Sample:
        """This sample with ``pixels``, uint8 RGB [H, W, 3], as its PNG image; every other member as it is."""
        rest = self.without_image()
        return Sample(self.key, {**rest.members, "png": encode_png(pixels)}, self.shard)

    def with_member(self, extension: str, data: bytes) -> Sample:
        """This sample with one more member."""
        return Sample(self.key, {**self.members, extension: data}, self.shard)

    def without_image(self) -> Sample:
        """This sample without its image, which may be had no more: to be carried along until it has another one."""
        return Sample(
            self.key, {name: data for name, data in self.members.items() if name not in EXTENSIONS}, self.shard
        )

    def label(self, classes: Sequence[str] = ()) -> int | None:
        """The class from ``.cls``, else from ``label`` of ``.json``, else None; by its number, or its name in
        ``classes``.

        Raises:
            DataError: present but neither an integer of 0 or more nor one of the names.
        """
        if "cls" in self.members:
            return self._integer(self.members["cls"].decode("utf-8", "replace").strip(), "cls", classes)
        return self._json_integer("label", classes)

    def original_label(self, classes: Sequence[str] = ()) -> int | None:
        """The true class of a poisoned split (``original_label`` of ``.json``), else the label."""
        original = self._json_integer("original_label", classes)
        return self.label(classes) if original is None else original

    def stamped(self) -> bool:
        """Whether ``.json`` says that it carries a trigger: ``poisoned``, or ``cover``, which keeps its true label."""
        return any(self.metadata().get(name) is True for name in ("poisoned", "cover"))

    def metadata(self) -> dict[str, Any]:
        """The ``.json`` member as a dict, empty when there is none.

        Raises:
            DataError: it is too large, or not a JSON object.
        """
        if "json" not in self.members:
            return {}
        if (size := len(self.members["json"])) > MAX_JSON_BYTES:
            raise DataError(self.shard, f".json has {size} bytes, over the limit of {MAX_JSON_BYTES}", key=self.key)
        try:
            value = json.loads(self.members["json"])
        except (ValueError, RecursionError) as error:
            raise DataError(self.shard, f".json is not valid JSON ({error})", key=self.key) from error
        if not isinstance(value, dict):
            raise DataError(self.shard, ".json is not a JSON object", key=self.key)
        return value

    def _json_integer(self, field: str, classes: Sequence[str]) -> int | None:
        value = self.metadata().get(field)
        return None if value is None else self._integer(value, f"json {field}", classes)

    def _integer(self, value: object, what: str, classes: Sequence[str]) -> int:
        if isinstance(value, str) and value in classes:
            return classes.index(value)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_LABEL:
            return value
        names = " and no name of classes.txt" if classes else ""
        reason = f"{what} is not a class index of 0 to {MAX_LABEL}{names}: {str(value)[:40]!r}"
        raise DataError(self.shard, reason, key=self.key)
