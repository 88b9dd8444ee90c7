"""What ships inside the package, and where a prior is that a user names."""

from __future__ import annotations

from pathlib import Path

from zipbatch.errors import UsageError
from zipbatch.storage import StoragePath, storage_path

EMBEDDED = "embedded"
_FOLDER = Path(__file__).resolve().parent.parent / "assets"


def sample_source() -> Path:
    """About 1,000 CIFAR-10 test images as shards."""
    return _FOLDER / "cifar10-sample"


def prior_path(name: str) -> StoragePath:
    """Where a prior is: 'embedded', 'hub:NAME[@REVISION]' (fetched when it is not in the hub's cache), a path or a URL.

    Raises:
        UsageError: the hub does not give it, or a URL that is none.
    """
    from zipbatch.checkpoints.hub import HUB, fetch_prior

    if name == EMBEDDED:
        return embedded_prior()
    return fetch_prior(name) if name.startswith(HUB) else storage_path(name)


def embedded_prior() -> Path:
    """A small prior for 32 px images."""
    return _FOLDER / "prior"


def embedded_victim(attack: str) -> Path:
    """The victim trained on data poisoned with that attack."""
    return _FOLDER / "victims" / attack


def source_place(text: str) -> str:
    """What ``open_source`` takes for ``text``: 'embedded' is the shipped sample, any other text stays as it is."""
    return str(sample_source()) if text == EMBEDDED else text


def victim_path(text: str) -> StoragePath:
    """Where a victim is: 'embedded:ATTACK' for one that ships with the tool, a path or a URL.

    Raises:
        UsageError: none of that name ships.
    """
    name, _, attack = text.partition(":")
    if name != EMBEDDED:
        return storage_path(text)
    known = sorted(folder.name for folder in (_FOLDER / "victims").iterdir())
    if attack not in known:
        there = ", ".join(f"{EMBEDDED}:{victim}" for victim in known)
        raise UsageError(f"{text}: no such victim; there are {there}")
    return embedded_victim(attack)
