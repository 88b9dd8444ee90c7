"""What ships inside the package, and where a prior is that a user names."""

from __future__ import annotations

from pathlib import Path

from zipbatch.errors import UsageError

EMBEDDED = "embedded"
_FOLDER = Path(__file__).resolve().parent.parent / "assets"


def sample_source() -> Path:
    """About 1,000 CIFAR-10 test images as shards."""
    return _FOLDER / "cifar10-sample"


def prior_path(name: str) -> Path:
    """Where a prior is: 'embedded', 'hub:NAME[@REVISION]' (fetched when it is not in the hub's cache), or a path.

    Raises:
        UsageError: the hub does not give it.
    """
    from zipbatch.checkpoints.hub import HUB, fetch_prior

    if name == EMBEDDED:
        return embedded_prior()
    return fetch_prior(name) if name.startswith(HUB) else Path(name)


def embedded_prior() -> Path:
    """A small prior for 32 px images."""
    return _FOLDER / "prior"


def embedded_victim(attack: str) -> Path:
    """The victim trained on data poisoned with that attack."""
    return _FOLDER / "victims" / attack


def embedded_path(what: str, text: str) -> str:
    """What ``text`` stands for where a ``source``, ``prior`` or ``victim`` is asked for.

    ``embedded`` is the shipped source or prior, ``embedded:badnets`` a shipped victim; any other text stays as it is.

    Raises:
        UsageError: no victim of that name is embedded.
    """
    name, _, attack = text.partition(":")
    if name != EMBEDDED:
        return text
    if what == "victim":
        if not (embedded_victim(attack) / "config.json").is_file():
            there = ", ".join(sorted(f"{EMBEDDED}:{folder.name}" for folder in (_FOLDER / "victims").iterdir()))
            raise UsageError(f"{text}: no such victim; there are {there}")
        return str(embedded_victim(attack))
    return str({"source": sample_source, "prior": embedded_prior}[what]())
