"""What overflows in few bits is done again in float32."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from zipbatch.config import Settings
from zipbatch.purifiers.base import NonFiniteError, Purifier, Resources
from zipbatch.purifiers.settings import Precision

_FEW_BITS: tuple[Precision, ...] = ("float16", "bfloat16")


def sure(kind: type[Purifier], settings: Any, resources: Resources) -> Purifier:
    """A purifier of one step. In float16 and bfloat16 it does images that do not come out finite again in float32."""
    if not kind.needs_prior or resources.precision not in _FEW_BITS:
        return kind(settings, resources)
    return _Again(kind, settings, resources)


class _Again(Purifier):
    """Only images that are not finite are done again, with those that share their canvas: so what becomes of an image
    still depends on that image, or canvas, alone.
    """

    settings_type: ClassVar[type[Settings]] = Settings
    source: ClassVar[str] = "of this project; what it does is its step's"

    def __init__(self, kind: type[Purifier], settings: Any, resources: Resources) -> None:
        self._kind, self._settings, self._resources = kind, settings, resources
        self._quick = kind(settings, resources)
        self._exact: Purifier | None = None
        self._lock = threading.Lock()

    def __call__(self, images: Tensor, keys: Sequence[str]) -> Tensor:
        """Purify uint8 images [N, 3, H, W] named by ``keys``; same shape and dtype, on the CPU."""
        try:
            return self._quick(images, keys)
        except NonFiniteError as error:
            rows = error.rows or range(len(images))
        wrong = self._with_neighbours(rows, images)
        purified = torch.empty_like(images, device="cpu")
        purified[wrong] = self._in_float32()(images[wrong], _those(keys, wrong))
        self._resources.done_again(int(wrong.sum()))
        if not bool(wrong.all()):
            purified[~wrong] = self(images[~wrong], _those(keys, ~wrong))
        return purified

    def _with_neighbours(self, rows: Sequence[int], images: Tensor) -> Tensor:
        """Those rows, and all others on their canvases: bool [N]."""
        prior = self._resources.prior or self._resources.restorer
        size = None if prior is None else prior.image_size
        slots = self._kind.images_per_row(self._settings, images.shape[-2], images.shape[-1], prior_size=size)
        wrong = torch.zeros(len(images), dtype=torch.bool)
        for canvas in {row // slots for row in rows}:
            wrong[canvas * slots : (canvas + 1) * slots] = True
        return wrong

    def _in_float32(self) -> Purifier:
        with self._lock:
            if self._exact is None:
                self._exact = self._kind(self._settings, replace(self._resources, precision="float32", compiled=False))
            return self._exact


def _those(keys: Sequence[str], rows: Tensor) -> list[str]:
    return [key for key, chosen in zip(keys, rows.tolist(), strict=True) if chosen]
