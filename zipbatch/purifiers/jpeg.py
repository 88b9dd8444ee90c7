"""JPEG compression: what an eye does not see is thrown away (Dziugaite et al. 2016, arXiv 1608.00853)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from zipbatch import images as pictures
from zipbatch.config import Settings
from zipbatch.purifiers.base import Purifier, Resources


class JpegSettings(Settings):
    """Settings of ``jpeg``; the default is that of Trusted-AI/adversarial-robustness-toolbox."""

    quality: int = Field(50, ge=1, le=100, description="libjpeg's quality, 1 to 100")


class Jpeg(Purifier):
    """The image as JPEG with half the colour resolution, decoded again."""

    settings_type: ClassVar[type[Settings]] = JpegSettings
    source: ClassVar[str] = "Dziugaite et al. 2016, arXiv 1608.00853; quality as in ART 23539e2"
    libraries: ClassVar[Mapping[str, str]] = pictures.jpeg_libraries()
    working_bytes: ClassVar[int] = 6

    def __init__(self, settings: JpegSettings, resources: Resources) -> None:
        self._quality, self._heartbeat = settings.quality, resources.heartbeat

    @classmethod
    def images_per_row(cls, settings: JpegSettings, height: int, width: int, *, prior_size: int | None) -> int:  # noqa: ARG003
        """Always 1; raises ``ValueError`` for sides that JPEG cannot hold."""
        if max(height, width) > pictures.MAX_JPEG_SIDE:
            raise ValueError(f"jpeg: {width}x{height} pixels are more than {pictures.MAX_JPEG_SIDE} a side")
        return 1

    def __call__(self, images: Tensor, keys: Sequence[str]) -> Tensor:  # noqa: ARG002 (deterministic)
        """Purify uint8 images [N, 3, H, W]; same shape and dtype, on the CPU."""
        decoded = [self._through_codec(image) for image in images.cpu().permute(0, 2, 3, 1).numpy()]
        return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).contiguous()

    def _through_codec(self, image: pictures.U8) -> pictures.U8:
        self._heartbeat()
        return pictures.decode(pictures.encode_jpeg(np.ascontiguousarray(image), quality=self._quality), "jpg")
