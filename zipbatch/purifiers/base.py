"""What a purifier is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from zipbatch.config import Settings
from zipbatch.diffusion import Prior
from zipbatch.purifiers.settings import Precision


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a purifier may draw on beside its settings.

    Attributes:
        device: where images are moved for purification.
        prior: the diffusion model in float32, wherever it is; None for purifiers that need none.
        restorer: the same network with its restorer's weights, for ``restore`` alone.
        seed: the run's seed.
        precision: of the network's forward pass; states stay float32.
        tick: called before each forward pass, or each image where one takes long; what it raises ends the work.
        begin_pass: called before each forward pass.
        keep_masks: called with keys and what of their images was repainted, bool [N, H, W], on the CPU.
        compiled: whether the network is compiled before it is first called.
        done_again: called with how many images were done again in float32, because they were not finite in less.
    """

    device: torch.device
    prior: Prior | None = None
    seed: int = 0
    precision: Precision = "float32"
    heartbeat: Callable[[], None] = lambda: None
    begin_pass: Callable[[], None] = lambda: None
    keep_masks: Callable[[Sequence[str], Tensor], None] = lambda _keys, _masks: None
    restorer: Prior | None = None
    done_again: Callable[[int], None] = lambda _images: None
    compiled: bool = False

    def with_seed(self, seed: int) -> Resources:
        """The same, with another seed."""
        return replace(self, seed=seed)


class Purifier(Protocol):
    """A way to clean images; each inherits from this and states what differs from it.

    Attributes:
        settings_type: its settings, validated.
        source: paper and reference implementation whose behaviour is reproduced.
        needs_prior: whether a diffusion model is needed; then precision matters too.
        seeded: whether it draws random numbers, so that the seed matters.
        libraries: versions of those whose own arithmetic decides pixels, such as a codec's.
        version: raised whenever the same settings come to give other pixels.
        masks: whether it finds out what of an image is not to be trusted, and tells ``keep_masks``.
        working_bytes: about what it takes in memory for each value of an image while it works, without a prior.
    """

    settings_type: ClassVar[type[Settings]]
    source: ClassVar[str]
    needs_prior: ClassVar[bool] = False
    seeded: ClassVar[bool] = False
    libraries: ClassVar[Mapping[str, str]] = {}
    version: ClassVar[int] = 1
    masks: ClassVar[bool] = False
    working_bytes: ClassVar[int] = 24

    def __init__(self, settings: Any, resources: Resources) -> None: ...

    @classmethod
    def images_per_row(cls, settings: Any, height: int, width: int, *, prior_size: int | None) -> int:  # noqa: ARG003
        """Images of that size that share one row of a batch: 1, or more where small ones are tiled.

        Raises:
            ValueError: images of that size cannot be purified with these settings, and why.
        """
        return 1

    def __call__(self, images: Tensor, keys: Sequence[str]) -> Tensor:
        """Purify uint8 images [N, 3, H, W] named by their sample keys; same shape and dtype, on the CPU.

        Raises:
            NonFiniteError: a result is not finite.
        """
        ...


class NonFiniteError(ValueError):
    """Purified pixels are NaN or infinite. Carries the key of the first such image, and the rows of all, if known."""

    def __init__(self, key: str, rows: Sequence[int] = ()) -> None:
        super().__init__("purified pixels are not finite")
        self.key, self.rows = key, tuple(rows)


def check_finite(pixels: Tensor, keys: Sequence[str]) -> None:
    """Raises ``NonFiniteError`` for rows of [N, ...] that are not finite."""
    finite = torch.isfinite(pixels).flatten(1).all(dim=1)
    if not bool(finite.all()):
        rows = (~finite).nonzero()[:, 0].tolist()
        raise NonFiniteError(keys[rows[0]], rows)
