"""TaCT: a patch that works on images of one class alone (Tang et al. 2021, arXiv 1908.00686)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from zipbatch.attacks.badnets import BadNets


@dataclass(frozen=True)
class TaCT(BadNets):
    """BadNets' patch. Images of ``source_classes`` are poisoned, and images of ``cover_classes`` carry the patch with
    their true label, so that a victim learns to heed it on the source classes alone. The test stamps those alone, too.
    """

    name: ClassVar[str] = "tact"
    source: ClassVar[str] = "Tang et al. 2021, arXiv 1908.00686; classes and rates as in vtu81/backdoor-toolbox"
    default_target: ClassVar[int] = 0
    default_poison_rate: ClassVar[float] = 0.003
    default_cover_rate: ClassVar[float] = 0.003

    source_classes: tuple[int, ...] = (1,)
    cover_classes: tuple[int, ...] = (5, 7)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, classes in (("source_classes", self.source_classes), ("cover_classes", self.cover_classes)):
            if not classes or min(classes) < 0 or len(set(classes)) != len(classes):
                raise ValueError(f"{name} must be different class numbers, such as 5,7, got {classes}")
        if both := set(self.source_classes) & set(self.cover_classes):
            raise ValueError(f"class {min(both)} cannot be both a source class and a cover class")
