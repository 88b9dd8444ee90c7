"""PhysicalBA: BadNets' patch, trained through random physical transforms (Li et al. 2021, arXiv 2104.02361)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from zipbatch.attacks.badnets import BadNets


@dataclass(frozen=True)
class PhysicalBA(BadNets):
    """The stamped image is BadNets'; what differs is training, where every image, clean or not, is transformed anew
    each epoch (flip, colour jitter, affine). So the stamp is staged and the transform stays in the training loader.
    """

    name: ClassVar[str] = "physicalba"
    source: ClassVar[str] = "Li et al. 2021, arXiv 2104.02361; as in sycny/ZIP 3778253"
    train_transform: ClassVar[str | None] = "physicalba"
    shuffles: ClassVar[tuple[str, ...]] = ("train", "test", "train")
    version: ClassVar[int] = 2  # 1 did not shuffle a held-out split named val
