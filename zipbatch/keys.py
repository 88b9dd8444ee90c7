"""Sample keys and the names of a sample's members in a shard."""

from __future__ import annotations

import re

MAX_KEY_BYTES = 1024
_NAME = re.compile(r"^((?:.*/|)[^./]+)[.]([^/]+)$", re.DOTALL)  # webdataset's own split: at the base name's first dot


def split_name(name: str) -> tuple[str, str]:
    """Tar member name -> (key, extension), at the first dot of the base name, as webdataset splits it.

    Raises:
        ValueError: there is no key or no extension, or the key could not be a path inside a folder.
    """
    while name.startswith("./"):  # as tar writes them when it is given a folder
        name = name[2:]
    match = _NAME.match(name)
    if not match:
        raise ValueError(f"member name {name!r} has no <key>.<extension>")
    key, extension = match.group(1), match.group(2).lower()
    check_key(key)
    if len(extension) > 64 or not extension.isprintable() or extension.startswith("__"):
        raise ValueError(f"extension {extension[:64]!r} is over 64 characters, not printable, or reserved (__…)")
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
