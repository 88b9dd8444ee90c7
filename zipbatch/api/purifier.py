"""A purifier in hand: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from zipbatch import images as pictures
from zipbatch.api.spelling import keyword
from zipbatch.cluster import pick_device
from zipbatch.cluster.device import cpu_cores
from zipbatch.config import validate
from zipbatch.errors import UsageError
from zipbatch.images import U8
from zipbatch.purifiers import Purifier
from zipbatch.spelling import readers_spell
from zipbatch.stages.assets import prior_path
from zipbatch.stages.purify.build import build_purifier
from zipbatch.stages.purify.halving import Halving
from zipbatch.stages.purify.precision import decided_on
from zipbatch.stages.purify.request import PurifierRequest
from zipbatch.stages.purify.resolve import purifier_spec
from zipbatch.stages.purify.spec import PurifierSpec
from zipbatch.stages.purify.threads import compute_pool, compute_threads

Images = TypeVar("Images", U8, Tensor)


class LoadedPurifier:
    """Purifies uint8 images as ``zipbatch purify`` does: the same pixels for the same settings, keys and batches.

    Attributes:
        spec: what it was built from; ``spec.identity`` is what a store knows it by.
    """

    def __init__(self, spec: PurifierSpec, purifier: Purifier, device: torch.device, *, batch_size: int) -> None:
        self.spec = spec
        self._purifier, self._rows = purifier, batch_size
        self._halving = Halving(batch_size)
        self._pool = compute_pool(device, compute_threads(device, cpu_cores()))

    @readers_spell(keyword)
    def __call__(self, images: Images, keys: Sequence[str] | None = None) -> Images:
        """Purify images.

        Args:
            images: uint8, as an array [N, H, W, 3] or [H, W, 3], or a tensor [N, 3, H, W] or [3, H, W].
            keys: of the images, N distinct names. The noise is drawn from them: under the same key an image has the
                same result wherever it is. Without keys they are named by their number.

        Returns:
            As ``images``: the same type, shape and order of axes; a tensor is on the CPU.

        Raises:
            TypeError: not uint8.
            ValueError: another shape, as many keys as there are not images, or a size that cannot be purified.
            NonFiniteError: a result is not finite.
        """
        if isinstance(images, Tensor):
            return self._purified(_batch(images, torch.uint8, axis=-3), keys).reshape(images.shape)
        array = _batch(images, np.dtype(np.uint8), axis=-1)
        pixels = torch.from_numpy(np.ascontiguousarray(array.transpose(0, 3, 1, 2)))
        purified = self._purified(pixels, keys).permute(0, 2, 3, 1).numpy()
        return np.ascontiguousarray(purified).reshape(images.shape)

    def _purified(self, pixels: Tensor, keys: Sequence[str] | None) -> Tensor:
        names = [str(number) for number in range(len(pixels))] if keys is None else list(keys)
        if len(names) != len(pixels) or len(set(names)) != len(names):
            raise ValueError(f"need {len(pixels)} keys, a different one for each image, got {len(set(names))}")
        if not names:
            return pixels
        asked, prior = self.spec.asked, self.spec.prior
        size = pixels.shape[-2:]
        if asked.resize is not None and prior is not None and size != (prior.image_size, prior.image_size):
            pixels = _each(pixels, lambda image: pictures.resize(image, prior.image_size, policy=str(asked.resize)))
        done = torch.cat(
            list(self._pool.map(lambda rows: self._piece(pixels[rows], names[rows]), self._slices(pixels)))
        )
        if done.shape[-2:] != size and self.spec.output_size == "input":
            done = _each(done, lambda image: pictures.stretch(image, *size))
        return done

    def _slices(self, pixels: Tensor) -> list[slice]:
        """Whole rows of a batch each."""
        step = self._rows * self.spec.images_per_row(*pixels.shape[-2:])
        return [slice(start, start + step) for start in range(0, len(pixels), step)]

    def _piece(self, pixels: Tensor, names: Sequence[str]) -> Tensor:
        per_row = self.spec.images_per_row(*pixels.shape[-2:])
        pieces = self._halving.pieces(
            len(names), lambda rows: self._purifier(pixels[rows], names[rows]), images_per_row=per_row
        )
        return torch.cat(list(pieces))


@readers_spell(keyword)
def load_purifier(
    preset: str | None = None, *, prior: str | None = None, device: str = "auto", batch_size: int = 32, **settings: Any
) -> LoadedPurifier:
    """Load a purifier.

    Args:
        preset: a name in ``configs/purifiers`` or a file; None for the default, or for ``purifier=``.
        prior: the diffusion model, where the purifier needs one: ``embedded``, a folder, a file, a URL, ``hub:NAME``.
        device: ``auto``, ``cpu`` or ``cuda``.
        batch_size: images (canvases, where images are tiled) that go through the network at once.
        settings: other fields of ``PurifierRequest``, those of ``zipbatch purify``: ``purifier``, ``set``,
            ``chain``, ``seed``, ``precision``, ``resize``, …

    Raises:
        UsageError: no such preset, settings that do not fit, no prior where one is needed.
    """
    if batch_size < 1:
        raise UsageError(f"batch_size must be 1 or more, got {batch_size}")
    asked = validate(PurifierRequest, {"preset": preset, **settings}, where="load_purifier")
    if asked.keep_masks:
        raise UsageError("keep_masks is for zipbatch.purify, which has a place to keep them")
    if asked.resize == "center-crop":
        raise UsageError("resize='center-crop' gives other shapes; crop the images first, or take resize='stretch'")
    on = pick_device(device)
    spec = decided_on(purifier_spec(asked, None if prior is None else prior_path(prior)), on)
    return LoadedPurifier(spec, build_purifier(spec, on), on, batch_size=batch_size)


def _batch(images: Any, dtype: Any, *, axis: int) -> Any:
    """Images [N, …], whose colours lie along ``axis``."""
    if images.dtype != dtype:
        raise TypeError(f"images must be uint8, 0 to 255, got {images.dtype}")
    if images.ndim not in {3, 4} or images.shape[axis] != 3:
        kinds = "[N, 3, H, W] or [3, H, W]" if axis == -3 else "[N, H, W, 3] or [H, W, 3]"
        raise ValueError(f"images must be {kinds}, got {list(images.shape)}")
    return images[None] if images.ndim == 3 else images


def _each(pixels: Tensor, change: Callable[[U8], U8]) -> Tensor:
    """Change images [N, 3, H, W] one by one, as [H, W, 3]."""
    changed = [change(np.ascontiguousarray(image.permute(1, 2, 0).numpy())) for image in pixels.cpu()]
    return torch.from_numpy(np.stack(changed).transpose(0, 3, 1, 2).copy())
