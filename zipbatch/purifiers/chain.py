"""Purifiers one after another, each of several draws if asked for, with settings that are drawn for each image.

What one takes away another leaves: a chain of weak steps may keep more of a picture than one strong step does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field, SerializeAsAny, ValidationError, model_serializer, model_validator
from torch import Tensor

from zipbatch.config import Settings, parse_transform, problems
from zipbatch.diffusion import derived_seed, noise_streams, uniform_integers
from zipbatch.purifiers.again import sure
from zipbatch.purifiers.base import Purifier, Resources
from zipbatch.purifiers.methods import METHODS

MAX_STEPS, MAX_DRAWS = 16, 64
_RANGE = re.compile(r"(-?\d+(?:\.\d+)?)\.\.(-?\d+(?:\.\d+)?)")
_PARTS = 1 << 30
"""Of a range of real numbers: so many values may be drawn of it."""


class Step(Settings):
    """One purifier of a chain, written as a mapping of ``method``, ``draws`` and the purifier's own settings.

    A setting of a purifier without a prior may be a range, ``40..80``: then each image gets a value of it, by its key.
    """

    method: str
    settings: SerializeAsAny[Settings]
    draws: int = Field(default=1, ge=1, le=MAX_DRAWS)
    drawn: dict[str, tuple[float, float]] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: object) -> object:
        if not isinstance(value, Mapping) or isinstance(value.get("settings"), Settings):
            return value
        own = dict(value)
        method, draws = own.pop("method", None), own.pop("draws", 1)
        if not isinstance(method, str) or method not in METHODS:
            raise ValueError(f"a step has a method out of {', '.join(METHODS)}, not {method!r}")
        kind = METHODS[method]
        ranges = {name: found for name, text in own.items() if (found := _RANGE.fullmatch(str(text)))}
        if ranges and kind.needs_prior:
            raise ValueError(f"{method}: a setting of a purifier with a prior is one value: images share its canvases")
        ends = [{**own, **{name: found[end] for name, found in ranges.items()}} for end in (1, 2)]
        try:
            low, high = (kind.settings_type.model_validate(each) for each in ends)
        except ValidationError as error:
            raise ValueError(f"{method}: unfit settings\n{problems(error)}") from error
        drawn = {name: (getattr(low, name), getattr(high, name)) for name in ranges}
        _check_whole(kind.settings_type, low, drawn)
        if odd := [name for name, (start, stop) in drawn.items() if not start < stop]:
            raise ValueError(f"{method}: the range of {odd[0]} goes from the lower to the higher value")
        if draws not in (1, "1") and not (kind.seeded or drawn or _is_keyed(low)):
            raise ValueError(f"{method}: all draws of it are the same; leave draws out")
        return {"method": method, "settings": low, "draws": draws, "drawn": drawn}

    @model_serializer
    def _written(self) -> dict[str, Any]:
        """As it is written in a preset."""
        draws = {} if self.draws == 1 else {"draws": self.draws}
        return {"method": self.method, **draws, **self._values}

    @property
    def _values(self) -> dict[str, Any]:
        ranges = {name: f"{low:g}..{high:g}" for name, (low, high) in self.drawn.items()}
        return self.settings.model_dump(mode="json") | ranges

    @property
    def kind(self) -> type[Purifier]:
        """Its purifier."""
        return METHODS[self.method]

    @property
    def seeded(self) -> bool:
        """Whether it draws anything, so that the seed matters."""
        return self.kind.seeded or bool(self.drawn) or _is_keyed(self.settings)

    @property
    def told(self) -> dict[str, Any]:
        """As the identity of what it purifies tells it."""
        told = {"method": self.method, "algorithm_version": self.kind.version, "settings": self._values}
        return told if self.draws == 1 else {**told, "draws": self.draws}


def _is_keyed(settings: Settings) -> bool:
    """Whether a transform has its place drawn by key."""
    return any(parse_transform(text).grid == "key" for text in getattr(settings, "transforms", ()))


def _check_whole(kind: type[Settings], low: Settings, drawn: Mapping[str, tuple[float, float]]) -> None:
    """Whatever whole number a range holds must do: a median's window, say, is odd."""
    for name, (start, stop) in drawn.items():
        if isinstance(start, int) and isinstance(stop, int):
            for value in range(start, min(stop, start + 1000) + 1):
                try:
                    kind.model_validate({**low.model_dump(), name: value})
                except ValidationError as error:
                    raise ValueError(f"{name} = {start}..{stop}: {value} does not do\n{problems(error)}") from error


class ChainSettings(Settings):
    """Settings of ``chain``: its steps, the first first."""

    DEFAULT_STEPS: ClassVar[tuple[dict[str, Any], ...]] = (
        {"method": "jpeg", "quality": 60},
        {"method": "zip", "guidance_exponent": 40, "start_step": 60},
    )

    steps: tuple[Step, ...] = Field(
        DEFAULT_STEPS,
        min_length=1,
        max_length=MAX_STEPS,
        validate_default=True,
        description="purifiers with their settings, and draws: K for the mean of K",
    )

    def with_each(self, change: Callable[[Settings], Settings]) -> ChainSettings:
        """The same steps, the settings of each changed."""
        steps = [step.model_copy(update={"settings": change(step.settings)}) for step in self.steps]
        return self.model_copy(update={"steps": tuple(steps)})


class Chain(Purifier):
    """The purifiers of its steps, one after another; of a step with draws, the mean of them."""

    settings_type: ClassVar[type[Settings]] = ChainSettings
    source: ClassVar[str] = "of this project; a step has its own, as jpeg (arXiv 1608.00853), zip (arXiv 2303.12175)"
    needs_prior: ClassVar[bool] = True  # by default: a spec asks its steps
    seeded: ClassVar[bool] = True

    def __init__(self, settings: ChainSettings, resources: Resources) -> None:
        self._steps = [
            [_Draw(step, resources.with_seed(derived_seed(resources.seed, number, draw))) for draw in range(step.draws)]
            for number, step in enumerate(settings.steps)
        ]

    @classmethod
    def images_per_row(cls, settings: ChainSettings, height: int, width: int, *, prior_size: int | None) -> int:
        """Tiles of a canvas where a step has a prior; raises ``ValueError`` where images do not fit a step."""
        return max(
            step.kind.images_per_row(step.settings, height, width, prior_size=prior_size) for step in settings.steps
        )

    def __call__(self, images: Tensor, keys: Sequence[str]) -> Tensor:
        """Purify uint8 images [N, 3, H, W] named by ``keys``; same shape and dtype, on the CPU."""
        for draws in self._steps:
            images = _mean([draw(images, keys) for draw in draws])
        return images


class _Draw:
    """One draw of a step, with a seed of its own."""

    def __init__(self, step: Step, resources: Resources) -> None:
        self._step, self._resources = step, resources
        self._purifier = None if step.drawn else sure(step.kind, step.settings, resources)

    def __call__(self, images: Tensor, keys: Sequence[str]) -> Tensor:
        if self._purifier is not None:
            return self._purifier(images, keys)
        purified = torch.empty_like(images, device="cpu")
        chosen: dict[tuple[float, ...], list[int]] = {}
        for number, values in enumerate(self._values(keys)):
            chosen.setdefault(values, []).append(number)
        for values, rows in chosen.items():
            settings = self._step.settings.model_copy(update=dict(zip(self._step.drawn, values, strict=True)))
            purifier = self._step.kind(settings, self._resources)
            purified[rows] = purifier(images[rows], [keys[row] for row in rows])
        return purified

    def _values(self, keys: Sequence[str]) -> list[tuple[float, ...]]:
        """The drawn settings of each image, in the order of ``drawn``."""
        streams = noise_streams(self._resources.seed, keys)
        columns = []
        for number, (low, high) in enumerate(self._step.drawn.values()):
            whole = all(float(end).is_integer() for end in (low, high)) and not _is_real(self._step, number)
            bound = int(high - low) + 1 if whole else _PARTS
            words = uniform_integers(streams, bound=bound, count=number + 1)[:, number].tolist()
            columns.append([int(low) + word if whole else low + (high - low) * word / _PARTS for word in words])
        return list(zip(*columns, strict=True))


def _is_real(step: Step, number: int) -> bool:
    """Whether the setting may be other than a whole number."""
    name = list(step.drawn)[number]
    return type(getattr(step.settings, name)) is float


def _mean(draws: list[Tensor]) -> Tensor:
    """Of uint8 images, rounded half to even; sums of so few are exact in float32."""
    if len(draws) == 1:
        return draws[0]
    return torch.stack(draws).to(torch.float32).mean(dim=0).round().to(torch.uint8)
