"""A place is where a file or folder lies: a local path, or the URL of an object store. Both speak pathlib's words.

Local places are ``Path`` itself, so nothing changes for them. ``Url`` has the same words for what code asks of a place,
and the functions here have the ones that pathlib lacks. Nothing else needs to know which of the two it holds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from zipbatch.errors import UsageError
from zipbatch.storage.remote import Client, client_for

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)


@dataclass(frozen=True)
class Url:
    """An object, or what lies below a prefix; small and picklable, its client is found where it is used."""

    text: str
    scheme: str = field(repr=False)
    parts: tuple[str, ...] = field(repr=False)

    def __str__(self) -> str:
        return self.text

    def __truediv__(self, name: str) -> Url:
        return Url(f"{self.text}/{name}", self.scheme, (*self.parts, *name.split("/")))

    @property
    def name(self) -> str:
        """The last part."""
        return self.parts[-1]

    @property
    def suffix(self) -> str:
        """As pathlib's."""
        return Path(self.name).suffix

    @property
    def stem(self) -> str:
        """As pathlib's."""
        return Path(self.name).stem

    @property
    def parent(self) -> Url:
        """The folder that it is in; a bucket is its own."""
        if len(self.parts) == 1:
            return self
        return Url(self.text[: -len(self.name) - 1], self.scheme, self.parts[:-1])

    def with_name(self, name: str) -> Url:
        """Another name in the same folder."""
        return self.parent / name

    def with_suffix(self, suffix: str) -> Url:
        """As pathlib's."""
        return self.with_name(self.stem + suffix)

    def absolute(self) -> Url:
        """Itself."""
        return self

    def resolve(self) -> Url:
        """Itself."""
        return self

    def is_file(self) -> bool:
        """Whether there is an object of that very name."""
        try:
            self.client.info(self.text)
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        """Whether any object's name begins with it, as with a folder's. This lists the store."""
        return self.client.is_folder(self.text)

    def exists(self) -> bool:
        """Whether it is either."""
        return self.is_file() or self.is_dir()

    def read_bytes(self, limit: int | None = None) -> bytes:
        """The object's bytes, with ``limit`` no more than that from its beginning; raises ``FileNotFoundError``."""
        return self.client.read(self.text, limit)

    def read_text(self, encoding: str = "utf-8") -> str:
        """The object's text; raises ``FileNotFoundError``."""
        return self.read_bytes().decode(encoding)

    def unlink(self, missing_ok: bool = False) -> None:  # noqa: FBT001, FBT002, RUF100 - pathlib's own signature
        """Remove the object."""
        if missing_ok:
            try:
                self.client.remove(self.text)
            except FileNotFoundError:
                pass
        else:
            self.client.remove(self.text)

    @property
    def client(self) -> Client:
        """Who speaks to the store, in this process."""
        return client_for(self.scheme, self.parts[0])


StoragePath: TypeAlias = Path | Url


def storage_path(text: str | Path) -> StoragePath:
    """What the user names: a path, ``file://`` and a path, or the URL of an object store.

    Raises:
        UsageError: a URL with credentials or a query in it, or one that names nothing.
    """
    match = _SCHEME.fullmatch(str(text)) if isinstance(text, str) else None
    if match is None:
        return Path(text)
    scheme, rest = match[1].lower(), match[2]
    head = rest.partition("/")[0]
    if "@" in head:
        shown = f"{scheme}://…@{head.rpartition('@')[2]}/…"
        raise UsageError(f"{shown}: credentials do not belong in a URL; put them into the environment")
    if "?" in rest or "::" in rest:
        shown = re.split(r"[?]|::", str(text))[0]
        raise UsageError(f"{shown}…: a URL of a bucket and a key is needed, without '?' and '::'")
    if scheme in {"file", "local"}:
        if not rest.startswith("/"):
            raise UsageError(f"{text}: name a whole path after file://, as in file:///data/shards")
        return Path(rest)
    parts = tuple(rest.strip("/").split("/"))
    if any(part in {"", ".", ".."} for part in parts):
        raise UsageError(f"{text}: names no place; a URL is {scheme}://BUCKET/KEY without empty, '.' or '..' parts")
    return Url(f"{scheme}://{'/'.join(parts)}", scheme, parts)
