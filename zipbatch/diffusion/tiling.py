"""Small images on a large prior's canvas, each in a slot that is remembered by its place in the order."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


class DoesNotTileError(ValueError):
    """The image is neither of the canvas's size nor a whole fraction of it."""


@dataclass(frozen=True)
class Tiling:
    """``rows`` x ``columns`` images a canvas; image i of a shard is in slot i % slots of canvas i // slots."""

    rows: int
    columns: int

    @classmethod
    def fit(cls, height: int, width: int, canvas: int) -> Tiling:
        """The tiling of H x W images on a square canvas.

        Raises:
            DoesNotTileError: the image neither equals nor tiles the canvas.
        """
        if height > canvas or width > canvas or canvas % height or canvas % width:
            raise DoesNotTileError(
                f"image of {width}x{height} pixels neither equals nor tiles the prior's {canvas}x{canvas}; take a "
                "prior of the images' size ('zipbatch train prior' makes one), stage the images at the prior's "
                f"('zipbatch poison --image-size {canvas}'), or purify with ‹resize='stretch'› (images come out in "
                "their own size again) or ‹resize='center-crop'› (the middle square, in the prior's size)"
            )
        return cls(canvas // height, canvas // width)

    @property
    def slots(self) -> int:
        """Images a canvas."""
        return self.rows * self.columns

    def pack(self, images: Tensor) -> Tensor:
        """Images [N, C, H, W] -> canvases [ceil(N / slots), C, rows H, columns W].

        The slots left over on the last canvas repeat its own images in order: no black border that the prior would
        paint into its neighbours, and nothing that could be counted as an image, since ``unpack`` takes N.
        """
        if self.slots == 1:
            return images
        count, channels, height, width = images.shape
        last = count - count % self.slots
        if last < count:
            fill = torch.arange(self.slots - (count - last), device=images.device) % (count - last) + last
            images = torch.cat([images, images[fill]])
        grid = images.view(-1, self.rows, self.columns, channels, height, width)
        return grid.permute(0, 3, 1, 4, 2, 5).reshape(-1, channels, self.rows * height, self.columns * width)

    def unpack(self, canvases: Tensor, count: int) -> Tensor:
        """The first ``count`` images of canvases, in slot order; the inverse of ``pack``."""
        if self.slots == 1:
            return canvases[:count]
        number, channels, tall, wide = canvases.shape
        height, width = tall // self.rows, wide // self.columns
        grid = canvases.view(number, channels, self.rows, height, self.columns, width)
        return grid.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, height, width)[:count]
