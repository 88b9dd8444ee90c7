"""Images of a source that cannot be read: all of them at once, so that one look at them is enough."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice

from zipbatch.datasets import SourceImage
from zipbatch.datasets.base import UnreadableImageError
from zipbatch.datasets.source import Source
from zipbatch.errors import DataError

_CHUNK = 256
_SHOWN = 20


class Unreadable(tuple[tuple[str, str, str], ...]):
    """(origin, key, message) of each, in the source's order."""

    __slots__ = ()

    @property
    def skip(self) -> frozenset[tuple[str, str]]:
        """What ``Source.skip`` takes."""
        return frozenset((origin, key) for origin, key, _ in self)

    def error(self, place: str) -> DataError:
        """What there is to say of them, but for the last of very many."""
        lines = [message for _, _, message in self[:_SHOWN]]
        lines += [f"… and {len(self) - _SHOWN} more"] if len(self) > _SHOWN else []
        images = "1 image" if len(self) == 1 else f"{len(self)} images"
        head = f"{images} cannot be read; mend or remove them, or say ‹skip_unreadable=True› to stage the others"
        return DataError(place, "\n  ".join([head, *lines]))


def find_unreadable(source: Source, splits: Sequence[str]) -> Unreadable:
    """Decode the images of these splits, in each as many as it takes to find ``source.limit`` that can be read."""
    found: list[tuple[str, str, str]] = []
    whole = replace(source, limit=None)
    with ThreadPoolExecutor() as pool:
        for split in splits:
            images, readable = whole.images(split), 0
            while readable < (source.limit or readable + 1) and (chunk := list(islice(images, _CHUNK))):
                faults = [fault for fault in pool.map(_fault, chunk) if fault is not None]
                readable += len(chunk) - len(faults)
                found += faults
    return Unreadable(found)


def _fault(image: SourceImage) -> tuple[str, str, str] | None:
    try:
        image.pixels()
    except UnreadableImageError as error:
        return image.origin, image.key, str(error)
    return None
