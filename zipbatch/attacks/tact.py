"""TaCT: a patch that works on images of one class alone (Tang et al. 2021, arXiv 1908.00686)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from zipbatch.attacks.badnets import BadNets, BadNetsSettings
from zipbatch.config import ClassGiven, class_number, listed, validate


def _different(classes: tuple[int | str, ...]) -> tuple[int | str, ...]:
    if len(set(classes)) != len(classes):
        raise ValueError("must be different classes, such as 5,7 or cat,dog")
    return classes


Classes = Annotated[tuple[ClassGiven, ...], BeforeValidator(listed), Field(min_length=1), AfterValidator(_different)]


class TaCTSettings(BadNetsSettings):
    """Settings of ``tact``."""

    source_classes: Classes = Field(
        default=(1,), description="classes whose images are poisoned, and stamped for the test, by number or name"
    )
    cover_classes: Classes = Field(
        default=(5, 7), description="classes whose images carry the patch with their true label"
    )

    @model_validator(mode="after")
    def _are_apart(self) -> TaCTSettings:
        if both := set(self.source_classes) & set(self.cover_classes):
            raise ValueError(f"class {min(both)} cannot be both a source class and a cover class")
        return self


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

    settings: TaCTSettings = TaCTSettings()

    def numbered(self, names: Sequence[str]) -> TaCT:
        """As ``Attack.numbered``."""
        given = {field: getattr(self.settings, field) for field in ("source_classes", "cover_classes")}
        numbers = {
            field: [
                one if isinstance(one, int) else class_number(one, names, where=f"attack {self.name}: {field} {one}")
                for one in classes
            ]
            for field, classes in given.items()
        }
        values = {**self.settings.model_dump(), **numbers}
        return replace(self, settings=validate(TaCTSettings, values, where=f"attack {self.name}"))

    @property
    def source_classes(self) -> tuple[int, ...]:
        """As the settings number them."""
        return _numbers(self.settings.source_classes)

    @property
    def cover_classes(self) -> tuple[int, ...]:
        """As the settings number them."""
        return _numbers(self.settings.cover_classes)


def _numbers(classes: tuple[int | str, ...]) -> tuple[int, ...]:
    numbers = tuple(one for one in classes if isinstance(one, int))
    assert len(numbers) == len(classes)  # who asks has the attack numbered before
    return numbers
