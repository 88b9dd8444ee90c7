"""JPEG against Pillow called plainly, and against what the standard says of quality 50."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from tests.making import picture
from zipbatch import images
from zipbatch.purifiers import Resources
from zipbatch.purifiers.jpeg import Jpeg
from zipbatch.purifiers.settings import JpegSettings

PICTURES = np.stack([picture(seed, 24) for seed in range(3)])


def coded(pixels: np.ndarray, **settings: int) -> np.ndarray:
    """uint8 [N, H, W, 3] through the purifier."""
    given = torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2)
    before = given.clone()
    purified = Jpeg(JpegSettings(**settings), Resources(device=torch.device("cpu")))(given, ["a"] * len(pixels))
    assert purified.dtype == torch.uint8
    assert purified.is_contiguous()
    assert torch.equal(given, before)
    return purified.permute(0, 2, 3, 1).numpy()


def coded_by_pillow(pixels: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.array(Image.open(buffer))


@pytest.mark.parametrize("quality", [1, 50, 75, 100])
def test_it_is_pillows_own(quality: int):
    got = coded(PICTURES, quality=quality)
    assert all((one == coded_by_pillow(pixels, quality)).all() for one, pixels in zip(got, PICTURES, strict=True))
    assert (got != PICTURES).any()


def test_the_default_is_quality_50():
    """At which the quantisation tables are those of the standard, Annex K: 16, 11, 10, 16 and 17, 18, 24, 47."""
    assert (coded(PICTURES) == coded(PICTURES, quality=50)).all()
    with Image.open(io.BytesIO(images.encode_jpeg(PICTURES[0], quality=50))) as image:
        tables, layers = image.quantization, image.layer  # type: ignore[attr-defined]
    assert [list(tables[i][:4]) for i in (0, 1)] == [[16, 11, 10, 16], [17, 18, 24, 47]]
    assert [layer[1:3] for layer in layers] == [(2, 2), (1, 1), (1, 1)]  # colour at half resolution


def test_lower_quality_is_further_from_the_image():
    far = [np.abs(coded(PICTURES, quality=q).astype(int) - PICTURES).mean() for q in (5, 50, 95)]
    assert far[0] > far[1] > far[2] > 0


def test_any_size_and_flat_images():
    odd = np.full((1, 13, 7, 3), 128, np.uint8)
    assert (coded(odd) == odd).all()


def test_sides_that_jpeg_cannot_hold():
    settings = JpegSettings()
    assert Jpeg.images_per_row(settings, 65_500, 8, prior_size=None) == 1
    with pytest.raises(ValueError, match="65501x8 pixels are more than 65500 a side"):
        Jpeg.images_per_row(settings, 8, 65_501, prior_size=None)


@pytest.mark.parametrize("quality", [0, 101, 50.5, "high"])
def test_wrong_qualities(quality: object):
    with pytest.raises(ValueError, match="validation error"):
        JpegSettings(quality=quality)  # type: ignore[arg-type]


def test_the_codec_is_named():
    assert set(Jpeg.libraries) == {"pillow", "libjpeg"}
    assert all(version[-1].isalnum() for version in Jpeg.libraries.values())
