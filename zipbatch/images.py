"""Decode and encode single images. Only still images of known formats, within limits, never code."""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image, UnidentifiedImageError, features

from zipbatch.kinds import HEAD_BYTES, kind_of

U8 = npt.NDArray[np.uint8]
Resize = Literal["stretch", "center-crop"]
"""How an image is made square: squeezed whole, or its middle square cut out."""

EXTENSIONS = {"png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "webp": "WEBP"}
SOURCE_EXTENSIONS = (*EXTENSIONS, "ppm")
"""What ``decode`` reads. Shards hold no .ppm images: few readers of shards know them."""
OTHER_EXTENSIONS = (*("gif", "bmp", "tif", "tiff", "avif", "heic", "heif", "jp2", "jxl", "ico"), "jfif", "jpe", "apng")
"""Images that ``decode`` does not read."""
MAX_PIXELS = 64_000_000
MAX_JPEG_SIDE = 65_500  # libjpeg's own limit
MAX_JPEG_BYTES = 64 * 1024**2
MAX_JPEG_SCANS = 500
"""A progressive JPEG has a dozen; each scan costs a pass over all pixels, however short it is."""
MAX_PNG_CHUNKS = 100_000
_JPEG_SCAN = b"\xff\xda"
_MAGIC = re.compile(
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|RIFF.{4}WEBP|II\*\0|MM\0\*|.{4}ftyp(?:avi[fs]|hei[cxs]|mif1)", re.DOTALL
)
_PNG_BIT_DEPTH = 24  # offset in the file: signature 8, chunk head 8, width 4, height 4
_PNG_BEGIN, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_PPM_GAP = rb"(?:\s|#[^\n]*\n)+"
_PPM_HEADER = re.compile(rb"P6" + _PPM_GAP + _PPM_GAP.join([rb"(\d{1,9})"] * 3) + rb"\s")

# Pillow warns on stderr of large images and damaged EXIF; our own limits and errors say what matters.
warnings.filterwarnings("ignore", module="PIL")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def decode(data: bytes, extension: str, *, max_pixels: int = MAX_PIXELS) -> U8:
    """Encoded image -> uint8 RGB [H, W, 3]. Grey and palette images become RGB; an opaque alpha is dropped.

    Pixels are taken as they are stored, as PIL, torchvision and webdataset give them to the classifiers that learn from
    them: an orientation in EXIF turns nothing, and an ICC profile changes no value.

    Args:
        data: the encoded bytes.
        extension: one of ``SOURCE_EXTENSIONS``; the bytes must be of that format.
        max_pixels: largest H * W accepted, checked before any pixel is decoded.

    Raises:
        ValueError: not that format, damaged, too large, animated, or of a mode that RGB cannot hold losslessly.
    """
    if extension == "ppm":
        return _decode_ppm(data, max_pixels)
    image = _opened(data, extension, max_pixels)
    with _damage_told(extension, data):
        image.load()
        opaque, rgb = _to_rgb(image)
    if not opaque:
        raise ValueError("image has transparent pixels; flatten it onto a background first")
    return np.array(rgb, dtype=np.uint8)


def decode_rgba(data: bytes, extension: str) -> U8:
    """Encoded image -> uint8 RGBA [H, W, 4], for a picture that may have transparent pixels.

    Args and errors as in ``decode``.
    """
    if extension == "ppm":
        return np.array(Image.fromarray(_decode_ppm(data, MAX_PIXELS)).convert("RGBA"))
    image = _opened(data, extension, MAX_PIXELS)
    with _damage_told(extension, data):
        image.load()
        return np.array(image.convert("RGBA"), dtype=np.uint8)


def _opened(data: bytes, extension: str, max_pixels: int) -> Image.Image:
    """Its header read and found fit, its pixels not yet."""
    if extension not in SOURCE_EXTENSIONS:
        raise ValueError(f"extension {extension!r} is none of {', '.join(SOURCE_EXTENSIONS)}")
    _check_effort(data, extension)
    with _damage_told(extension, data):
        image = Image.open(io.BytesIO(data), formats=[EXTENSIONS[extension]])
        pictures = getattr(image, "n_frames", 1)
    _check_header(image, pictures, max_pixels)
    if extension == "png" and data[_PNG_BIT_DEPTH] == 16:  # Pillow would drop the low byte without a word
        raise ValueError("16 bits a channel are not supported; convert the image to 8 bits first")
    return image


def decoded_bytes(data: bytes, extension: str) -> int:
    """What the pixels of an encoded image take, by its header; 0 where it has none that can be read, or asks for more
    than any image may have: ``decode`` says so.
    """
    if extension == "ppm":
        header = _PPM_HEADER.match(data)
        width, height = (0, 0) if header is None else (int(header[1]), int(header[2]))
    else:
        try:
            with _damage_told(extension, data):
                width, height = Image.open(io.BytesIO(data), formats=[EXTENSIONS[extension]]).size
        except ValueError:
            return 0
    return width * height * 3 if width * height <= MAX_PIXELS else 0


def is_image(data: bytes, name: str) -> bool:
    """Whether it is an image of any kind, readable or not, by the end of its name or by how it begins."""
    suffix = name.rpartition(".")[2].lower()
    return suffix in SOURCE_EXTENSIONS or suffix in OTHER_EXTENSIONS or _MAGIC.match(data) is not None


@contextmanager
def _damage_told(extension: str, data: bytes) -> Iterator[None]:
    """Whatever Pillow's readers, which trust what they read, make of a damaged file is a ``ValueError``.

    Too little memory is no fault of the file's.
    """
    try:
        yield
    except UnidentifiedImageError as error:
        kind = kind_of(data[:HEAD_BYTES])
        own = f"a {EXTENSIONS[extension]} image"
        told = f": it is {kind.what}" if kind is not None and kind.what != own else ""
        raise ValueError(f"is not a {extension} image{told}") from error
    except (
        *(OSError, SyntaxError, EOFError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError),
        *(RuntimeError, struct.error, zlib.error, Image.DecompressionBombError),
    ) as error:
        if "out of memory" in str(error):  # as Pillow's decoders call it
            raise MemoryError(str(error)) from error
        raise ValueError(f"unreadable {extension} image ({error})") from error


def _check_effort(data: bytes, extension: str) -> None:
    """Refuse, from a glance at the bytes, what would keep a decoder busy for minutes or days."""
    if extension == "png" and _chunks(data) > MAX_PNG_CHUNKS:
        raise ValueError(f"unreadable png image (over {MAX_PNG_CHUNKS} chunks)")
    if extension in {"jpg", "jpeg"}:
        if len(data) > MAX_JPEG_BYTES:
            raise ValueError(f"jpg image of {len(data)} bytes is over the limit of {MAX_JPEG_BYTES} bytes")
        if data.count(_JPEG_SCAN) > MAX_JPEG_SCANS:
            raise ValueError(f"unreadable jpg image (over {MAX_JPEG_SCANS} scans)")


def _chunks(data: bytes) -> int:
    """Chunks of a PNG, counted no further than is needed."""
    count, at = 0, 8
    while at + 12 <= len(data) and count <= MAX_PNG_CHUNKS:
        count, at = count + 1, at + 12 + int.from_bytes(data[at : at + 4], "big")
    return count


def _decode_ppm(data: bytes, max_pixels: int) -> U8:
    """Binary 8-bit PPM (netpbm's P6, largest value 255), exactly one picture and nothing after it."""
    header = _PPM_HEADER.match(data)
    if header is None:
        raise ValueError("is not a binary ppm image (P6)")
    width, height, largest = (int(text) for text in header.groups())
    _check_pixels(width, height, max_pixels)
    if largest != 255:
        raise ValueError(f"ppm values up to {largest} are not supported; convert the image to 8 bits (255) first")
    raster = memoryview(data)[header.end() :]
    if width * height == 0 or len(raster) != width * height * 3:
        raise ValueError(f"unreadable ppm image ({len(raster)} bytes of pixels for {width}x{height})")
    return np.frombuffer(raster, np.uint8).reshape(height, width, 3).copy()


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ValueError(f"image of {width}x{height} pixels is over the limit of {max_pixels} pixels")


def _check_header(image: Image.Image, pictures: int, max_pixels: int) -> None:
    _check_pixels(*image.size, max_pixels)
    if pictures != 1:
        raise ValueError("several pictures in one file (animated, or MPO); only single images are supported")
    if image.mode not in {"RGB", "L", "1", "P", "RGBA", "LA"}:
        raise ValueError(f"image mode {image.mode} is not supported; convert it to 8-bit RGB or grey first")


def _to_rgb(image: Image.Image) -> tuple[bool, Image.Image]:
    """Whether every pixel is opaque, and the image as RGB."""
    if image.mode in {"RGBA", "LA"} or "transparency" in image.info:
        rgba = image.convert("RGBA")
        low, _ = rgba.getchannel("A").getextrema()
        return low == 255, rgba.convert("RGB")
    return True, image.convert("RGB")


def encode_png(pixels: U8) -> bytes:
    """uint8 RGB [H, W, 3] or grey [H, W] -> PNG bytes, lossless and without metadata: equal pixels give equal bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def is_png(file: Path) -> bool:
    """Whether a file is a PNG with both its ends; nothing is decoded."""
    try:
        with file.open("rb") as stream:
            begin = stream.read(len(_PNG_BEGIN))
            stream.seek(-len(_PNG_END), io.SEEK_END)
            return (begin, stream.read()) == (_PNG_BEGIN, _PNG_END)
    except OSError:
        return False


def encode_jpeg(pixels: U8, *, quality: int) -> bytes:
    """uint8 RGB [H, W, 3] -> baseline JPEG bytes, chroma at half resolution; ``quality`` 1 to 100 as libjpeg counts."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return buffer.getvalue()


def jpeg_libraries() -> dict[str, str]:
    """Versions of what decides the pixels of a JPEG that is written and read here."""
    turbo = features.version_feature("libjpeg_turbo")
    libjpeg = f"turbo {turbo}" if turbo else str(features.version_codec("jpg"))
    return {"pillow": PIL.__version__, "libjpeg": libjpeg}


def resize(pixels: U8, size: int, *, policy: str = "stretch") -> U8:
    """Resize uint8 [H, W, 3] to [size, size, 3] with PIL's antialiased bilinear filter.

    ``stretch`` ignores the aspect ratio (the reference code's choice); ``center-crop`` cuts the largest
    square out of the middle and scales that. An image of that size already is returned unchanged.

    Raises:
        ValueError: unknown policy.
    """
    if policy not in {"stretch", "center-crop"}:
        raise ValueError(f"resize policy must be stretch or center-crop, got {policy!r}")
    height, width = pixels.shape[:2]
    if (height, width) == (size, size):
        return pixels
    if policy == "center-crop":
        side = min(height, width)
        left, top = (width - side) // 2, (height - side) // 2
        pixels = np.ascontiguousarray(pixels[top : top + side, left : left + side])
    return stretch(pixels, size, size)


def stretch(pixels: U8, height: int, width: int) -> U8:
    """Resize uint8 [H, W, 3] to [height, width, 3] as ``resize`` does; one of that size is returned unchanged."""
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR), dtype=np.uint8)


def stretch_nearest(mask: U8, height: int, width: int) -> U8:
    """Grey uint8 [h, w] -> [height, width], each pixel that of the nearest: no value between two appears."""
    if mask.shape == (height, width):
        return mask
    return np.array(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
