"""What ships inside the package: sample images, a prior and two victims."""

from __future__ import annotations

from pathlib import Path

EMBEDDED = "embedded"
_FOLDER = Path(__file__).resolve().parent.parent / "assets"


def sample_source() -> Path:
    """About 1,000 CIFAR-10 test images as shards."""
    return _FOLDER / "cifar10-sample"


def embedded_prior() -> Path:
    """A small prior for 32 px images."""
    return _FOLDER / "prior"


def embedded_victim(attack: str) -> Path:
    """The victim trained on data poisoned with that attack."""
    return _FOLDER / "victims" / attack
