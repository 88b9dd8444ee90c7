"""What commands print can be looked at: names in data move no cursor, and settings are named by their flags."""

from __future__ import annotations

import io
import re
from typing import TextIO

from zipbatch.errors import printable
from zipbatch.spelling import as_read

_COLOUR = re.compile(r"(\x1b\[[0-9;]*m)")


class Printable(io.TextIOBase):
    """A text stream that writes control characters as escapes. Colours pass where ``inner`` is a terminal."""

    def __init__(self, inner: TextIO) -> None:
        self._inner = inner

    def write(self, text: str) -> int:
        """Write it as it may be shown; how much of ``text`` was taken, which is all."""
        parts = _COLOUR.split(text) if self._inner.isatty() else [text]
        self._inner.write("".join(part if i % 2 else printable(as_read(part)) for i, part in enumerate(parts)))
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        self._inner.flush()

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        return self._inner.isatty()

    def fileno(self) -> int:
        """The stream's."""
        return self._inner.fileno()

    def writable(self) -> bool:
        """True."""
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The stream's."""
        return self._inner.encoding or "utf-8"

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """The stream's."""
        return self._inner.errors
