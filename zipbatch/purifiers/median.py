"""Median smoothing (Xu et al. 2017, "Feature squeezing", arXiv 1704.01155)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from zipbatch.config import Settings
from zipbatch.purifiers.base import Purifier, Resources
from zipbatch.purifiers.settings import MedianSettings

_STRIP_VALUES = 1 << 24
"""In the windows of a strip, channel by channel: about a second's work on a core."""


class Median(Purifier):
    """Each pixel becomes the median of the window around it, channel by channel.

    Beyond an edge the image is mirrored with the edge pixel repeated (c b a | a b c), which is what scipy, and so
    the toolbox, calls "reflect".
    """

    settings_type: ClassVar[type[Settings]] = MedianSettings
    working_bytes: ClassVar[int] = 6
    source: ClassVar[str] = "Xu et al. 2017, arXiv 1704.01155; window and edges as in ART 23539e2"

    def __init__(self, settings: MedianSettings, resources: Resources) -> None:
        self._window, self._device, self._heartbeat = settings.window, resources.device, resources.heartbeat

    def __call__(self, images: Tensor, keys: Sequence[str]) -> Tensor:  # noqa: ARG002 (deterministic)
        """Purify uint8 images [N, 3, H, W]; same shape and dtype, on the CPU."""
        return torch.stack([self._smooth(image.to(self._device)).cpu() for image in images])

    def _smooth(self, image: Tensor) -> Tensor:
        """One image [3, H, W] at a time, strip by strip: windows take window² times the memory, and their time."""
        rows, columns = (_mirrored(side, self._window // 2, image.device) for side in image.shape[-2:])
        height, width = image.shape[-2:]
        strip = max(1, _STRIP_VALUES // (width * self._window**2))
        return torch.cat(
            [self._strip(image, rows[i : i + strip + self._window - 1], columns) for i in range(0, height, strip)],
            dim=1,
        )

    def _strip(self, image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """The medians whose windows lie in these rows and columns of an image."""
        self._heartbeat()
        windows = image[:, rows][:, :, columns].unfold(1, self._window, 1).unfold(2, self._window, 1)
        return windows.flatten(-2).median(dim=-1).values


def _mirrored(side: int, border: int, device: torch.device) -> Tensor:
    """Indices of a side with its mirrored borders: int64 [side + 2 border]."""
    place = torch.arange(-border, side + border, device=device) % (2 * side)
    return torch.minimum(place, 2 * side - 1 - place)
