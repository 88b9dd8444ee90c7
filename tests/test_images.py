"""Images are decoded within limits or refused with a reason, and encoded without loss."""

from __future__ import annotations

import io
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from zipbatch import images


def noise(height: int = 9, width: int = 13, channels: int = 3) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def encoded(image: Image.Image, extension: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, images.EXTENSIONS.get(extension, extension.upper()), **options)
    return buffer.getvalue()


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_header(width: int, height: int) -> bytes:
    """A PNG without pixels: whoever decodes it fails."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"")


@pytest.mark.parametrize("extension", ["png", "webp"])
def test_lossless_formats_give_the_pixels(extension: str):
    pixels = noise()
    decoded = images.decode(encoded(Image.fromarray(pixels), extension, lossless=True), extension)
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, pixels)


@pytest.mark.parametrize("extension", ["jpg", "jpeg"])
def test_jpeg_is_close(extension: str):
    pixels = np.broadcast_to(np.linspace(0, 255, 32).astype(np.uint8)[:, None, None], (32, 32, 3)).copy()
    decoded = images.decode(encoded(Image.fromarray(pixels), extension, quality=95), extension)
    assert decoded.shape == (32, 32, 3)
    assert np.abs(decoded.astype(int) - pixels).max() < 8


def test_grey_becomes_rgb():
    grey = noise(channels=1)
    for extension in ("png", "jpg"):
        decoded = images.decode(encoded(Image.fromarray(grey), extension, quality=100), extension)
        assert (decoded == decoded[:, :, :1]).all()
        assert np.abs(decoded[:, :, 0].astype(int) - grey).max() <= (0 if extension == "png" else 4)


def test_one_bit_becomes_rgb():
    bits = noise(channels=1) > 127
    decoded = images.decode(encoded(Image.fromarray(bits), "png"), "png")
    assert np.array_equal(decoded, np.repeat(bits[:, :, None], 3, axis=2) * np.uint8(255))


def test_palette_becomes_rgb():
    indices = noise(channels=1) % 4
    palette = np.array([[1, 2, 3], [40, 50, 60], [255, 0, 128], [7, 7, 7]], np.uint8)
    paletted = Image.frombytes("P", indices.shape[::-1], indices.tobytes())
    paletted.putpalette(palette.ravel().tolist())
    data = encoded(paletted, "png")
    assert Image.open(io.BytesIO(data)).mode == "P"
    assert np.array_equal(images.decode(data, "png"), palette[indices])


@pytest.mark.parametrize("extension", ["png", "webp"])
def test_opaque_alpha_is_dropped(extension: str):
    pixels = noise()
    rgba = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    data = encoded(Image.fromarray(rgba), extension, lossless=True)
    assert np.array_equal(images.decode(data, extension), pixels)


def test_opaque_grey_alpha_is_dropped():
    grey = noise(channels=1)
    data = encoded(Image.merge("LA", [Image.fromarray(grey), Image.new("L", grey.shape[::-1], 255)]), "png")
    assert np.array_equal(images.decode(data, "png"), np.repeat(grey[:, :, None], 3, axis=2))


@pytest.mark.parametrize("extension", ["png", "webp"])
@pytest.mark.parametrize("alpha", [0, 128, 254])
def test_a_transparent_pixel_is_refused(extension: str, alpha: int):
    rgba = np.dstack([noise(), np.full((9, 13), 255, np.uint8)])
    rgba[4, 5, 3] = alpha
    with pytest.raises(ValueError, match="transparent pixels; flatten"):
        images.decode(encoded(Image.fromarray(rgba), extension, lossless=True), extension)


def test_a_transparent_colour_is_refused_where_it_is_used():
    """PNG's tRNS chunk, for palettes, grey and RGB alike."""
    for mode, used, unused in (("P", 0, 2), ("L", 0, 9), ("RGB", (0, 0, 0), (1, 2, 3))):
        image = Image.new(mode, (4, 4))
        if mode == "P":
            image.putpalette([0, 0, 0, 1, 1, 1, 2, 2, 2])
        with pytest.raises(ValueError, match="transparent pixels"):
            images.decode(encoded(image, "png", transparency=used), "png")
        assert not images.decode(encoded(image, "png", transparency=unused), "png").any()


def test_sixteen_bit_grey_is_refused():
    image = Image.fromarray(noise(channels=1).astype(np.uint16) * 257)
    with pytest.raises(ValueError, match="mode I;16 is not supported"):
        images.decode(encoded(image, "png"), "png")


def test_cmyk_is_refused():
    with pytest.raises(ValueError, match="mode CMYK is not supported"):
        images.decode(encoded(Image.fromarray(noise()).convert("CMYK"), "jpg"), "jpg")


@pytest.mark.parametrize("extension", ["png", "webp"])
def test_animation_is_refused(extension: str):
    frames = [Image.new("RGB", (8, 8), (60 * i, 0, 0)) for i in range(3)]
    data = encoded(frames[0], extension, save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match="several pictures"):
        images.decode(data, extension)


def test_animated_gif_is_no_png():
    frames = [Image.new("P", (8, 8), i) for i in range(3)]
    data = encoded(frames[0], "gif", save_all=True, append_images=frames[1:])
    assert "gif" not in images.EXTENSIONS
    for extension in images.EXTENSIONS:
        with pytest.raises(ValueError, match=f"is not a {extension} image"):
            images.decode(data, extension)


@pytest.mark.parametrize("actual", ["png", "jpg", "webp"])
@pytest.mark.parametrize("claimed", ["png", "jpg", "webp"])
def test_bytes_must_be_of_the_claimed_format(actual: str, claimed: str):
    data = encoded(Image.fromarray(noise()), actual)
    if actual == claimed:
        assert images.decode(data, claimed).shape == (9, 13, 3)
    else:
        with pytest.raises(ValueError, match=f"is not a {claimed} image"):
            images.decode(data, claimed)


@pytest.mark.parametrize("extension", ["png", "jpg", "webp"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9])
def test_truncated_files(extension: str, share: float):
    data = encoded(Image.fromarray(noise(64, 64)), extension)
    with pytest.raises(ValueError, match=rf"(unreadable|is not a) {extension} image"):
        images.decode(data[: int(len(data) * share)], extension)


def test_wrong_checksum():
    data = bytearray(images.encode_png(noise(64, 64)))
    data[len(data) // 2] ^= 1
    with pytest.raises(ValueError, match="unreadable png image"):
        images.decode(bytes(data), "png")


@pytest.mark.parametrize(("width", "height"), [(100_000, 641), (641, 100_000), (2**31 - 1, 2**31 - 1)])
def test_pixels_are_counted_before_they_are_decoded(width: int, height: int):
    """The file holds no pixels, so only a check made before decoding can say more than that it is damaged."""
    with pytest.raises(ValueError, match=r"over the limit|decompression bomb"):
        images.decode(png_header(width, height), "png")


def test_limit_can_be_lowered():
    data = images.encode_png(noise(9, 13))
    assert images.decode(data, "png", max_pixels=9 * 13).shape == (9, 13, 3)
    with pytest.raises(ValueError, match="image of 13x9 pixels is over the limit of 116 pixels"):
        images.decode(data, "png", max_pixels=9 * 13 - 1)


def test_large_images_within_the_limit_give_no_warning(tmp_path: Path):
    """In a process of its own: pytest has warning filters of its own."""
    path = tmp_path / "large.png"
    path.write_bytes(images.encode_png(noise()))
    code = (
        "import sys, pathlib; from PIL import Image; from zipbatch import images; Image.MAX_IMAGE_PIXELS = 100; "
        "print(images.decode(pathlib.Path(sys.argv[1]).read_bytes(), 'png').shape)"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("(9, 13, 3)\n", "")


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["png", "jpg", "webp"]), st.sampled_from(["RGB", "L", "P"]), st.integers(0, 2**32))
def test_damaged_bytes_are_an_image_or_a_value_error(extension: str, mode: str, seed: int):
    if extension == "jpg" and mode == "P":
        mode = "L"
    rng, data = random.Random(seed), bytearray(encoded(Image.fromarray(noise()).convert(mode), extension))
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    try:
        decoded = images.decode(bytes(data), extension, max_pixels=10_000)
    except ValueError:
        return
    assert decoded.dtype == np.uint8
    assert decoded.shape[2] == 3


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 99))
def test_encoding_is_lossless(height: int, width: int, seed: int):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    assert np.array_equal(images.decode(images.encode_png(pixels), "png"), pixels)


def test_equal_pixels_give_equal_bytes():
    pixels = noise(32, 32)
    data = images.encode_png(pixels)
    assert data == images.encode_png(pixels.copy())
    assert data == images.encode_png(np.asfortranarray(pixels))
    assert data == images.encode_png(np.repeat(pixels, 2, axis=0)[::2])
    chunks, at = [], 8
    while at < len(data):
        length = struct.unpack(">I", data[at : at + 4])[0]
        chunks.append(data[at + 4 : at + 8])
        at += 12 + length
    assert set(chunks) == {b"IHDR", b"IDAT", b"IEND"}  # no text, time or profile


def test_resize_of_the_right_size_changes_nothing():
    pixels = noise(16, 16)
    for policy in ("stretch", "center-crop"):
        assert np.array_equal(images.resize(pixels, 16, policy=policy), pixels)


def test_stretch_shows_the_whole_image():
    """Halves of one colour each stay halves, whatever the aspect."""
    pixels = np.zeros((32, 96, 3), np.uint8)
    pixels[:, 48:] = 200
    small = images.resize(pixels, 16, policy="stretch")
    assert small.shape == (16, 16, 3)
    assert (small[:, :7] == 0).all()
    assert (small[:, 9:] == 200).all()


@pytest.mark.parametrize("turned", [False, True])
def test_center_crop_shows_the_middle(turned: bool):
    pixels = np.zeros((32, 96, 3), np.uint8)
    pixels[:, 32:64] = 200
    if turned:
        pixels = pixels.transpose(1, 0, 2).copy()
    assert (images.resize(pixels, 16, policy="center-crop") == 200).all()
    assert not (images.resize(pixels, 16, policy="stretch") == 200).all()


def test_resize_averages_when_it_shrinks():
    """Antialiased: a checkerboard of single pixels becomes grey."""
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    small = images.resize(np.repeat(board[:, :, None], 3, axis=2), 16)
    assert np.abs(small[2:-2, 2:-2].astype(int) - 127).max() <= 2


def test_unknown_resize_policy():
    with pytest.raises(ValueError, match="stretch or center-crop, got 'pad'"):
        images.resize(noise(), 16, policy="pad")


def test_16_bit_colour_is_refused_and_not_cut_to_8():
    rows = b"".join(b"\0" + struct.pack(">3H", 0x070A, 0x1234, 0xFFFF) * 2 for _ in range(2))

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    with pytest.raises(ValueError, match="16 bits"):
        images.decode(png, "png")


def test_an_unknown_extension_is_a_value_error():
    with pytest.raises(ValueError, match="gif"):
        images.decode(b"GIF89a", "gif")


PIXELS = noise(9, 13)
RASTER = PIXELS.tobytes()


@pytest.mark.parametrize(
    "header", [b"P6\n13 9\n255\n", b"P6 13 9 255 ", b"P6\n# by a camera\n13 # wide\n9\t255\n", b"P6\r\n13 9 255\n"]
)
def test_ppm(header: bytes):
    assert np.array_equal(images.decode(header + RASTER, "ppm"), PIXELS)
    with Image.open(io.BytesIO(header + RASTER)) as theirs:
        assert np.array_equal(np.asarray(theirs), PIXELS)


def test_ppm_as_pillow_writes_it():
    assert np.array_equal(images.decode(encoded(Image.fromarray(PIXELS), "ppm"), "ppm"), PIXELS)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is not a binary ppm"),
        (b"P5\n13 9\n255\n" + RASTER[:117], "is not a binary ppm"),
        (b"P3\n1 1\n255\n1 2 3\n", "is not a binary ppm"),
        (b"P613 9 255\n" + RASTER, "is not a binary ppm"),
        (b"P6\n-13 9\n255\n" + RASTER, "is not a binary ppm"),
        (b"P6\n13 9\n255", "is not a binary ppm"),
        (b"P6\n#" + b"#" * 100_000, "is not a binary ppm"),
        (b"P6\n13 9\n65535\n" + RASTER * 2, "values up to 65535"),
        (b"P6\n13 9\n15\n" + RASTER, "values up to 15"),
        (b"P6\n13 9\n255\n" + RASTER[:-1], "unreadable ppm image"),
        (b"P6\n13 9\n255\n" + RASTER + b"P6", "unreadable ppm image"),
        (b"P6\n0 9\n255\n", "unreadable ppm image"),
        (b"P6\n100000 641\n255\n", "over the limit"),
        (b"P6\n999999999 999999999\n255\n", "over the limit"),
        (b"P6\n9999999999 1\n255\n", "is not a binary ppm"),
    ],
)
def test_ppm_is_decoded_strictly(data: bytes, words: str):
    with pytest.raises(ValueError, match=words):
        images.decode(data, "ppm")


@pytest.mark.parametrize("shape", [(300, 400), (400, 300), (20, 24)])
def test_stretch_is_torchvisions_resize(shape: tuple[int, int]):
    """What the reference code does to every image: ``Resize((S, S))`` of a PIL image, antialiased, aspect not kept."""
    from torchvision.transforms import Resize

    pixels = noise(*shape)
    theirs = Resize((32, 32))(Image.fromarray(pixels))
    assert np.array_equal(images.resize(pixels, 32, policy="stretch"), np.asarray(theirs))


# ---- pictures of bad faith


def with_chunks(*chunks: bytes) -> bytes:
    """A small PNG with more chunks after its header."""
    png = images.encode_png(noise())
    return png[:33] + b"".join(chunks) + png[33:]


BOMB = zlib.compress(bytes(100 << 20), 9)


@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"zTXt", b"k\0\0" + BOMB),
        png_chunk(b"iTXt", b"k\0\1\0\0\0" + BOMB),
        png_chunk(b"iCCP", b"k\0\0" + BOMB),
    ],
    ids=["zTXt", "iTXt", "iCCP"],
)
def test_compressed_text_and_profiles_are_bounded(chunk: bytes):
    with pytest.raises(ValueError, match="unreadable png image"):
        images.decode(with_chunks(chunk), "png")


def test_a_flood_of_chunks_is_not_walked_through():
    with pytest.raises(ValueError, match="over 100000 chunks"):
        images.decode(with_chunks(png_chunk(b"teSt", b"") * 100_001), "png")


@pytest.mark.parametrize("name", [b"pHYs", b"tRNS", b"gAMA", b"cHRM", b"acTL", b"iCCP", b"sRGB"])
def test_a_chunk_cut_short(name: bytes):
    with pytest.raises(ValueError, match=r"unreadable png image|is not a png image"):
        images.decode(with_chunks(png_chunk(name, b"")), "png")


def test_a_wrong_checksum_of_any_chunk_that_matters():
    chunk = bytearray(png_chunk(b"PLTE", bytes(6)))
    chunk[-1] ^= 1
    with pytest.raises(ValueError, match="png image"):
        images.decode(with_chunks(bytes(chunk)), "png")


def test_a_progressive_jpeg_of_endless_scans():
    """Each takes a few bytes and costs a pass over all pixels: with 64 million of those, 1 MB of scans take minutes."""
    data = encoded(Image.fromarray(noise(64, 64)), "jpg", progressive=True)
    assert images.decode(data, "jpg").shape == (64, 64, 3)
    scan = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(ValueError, match="over 500 scans"):
        images.decode(data[:-2] + scan * 500 + data[-2:], "jpg")


def test_a_jpeg_of_too_many_bytes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(images, "MAX_JPEG_BYTES", 1000)
    with pytest.raises(ValueError, match="over the limit of 1000 bytes"):
        images.decode(encoded(Image.fromarray(noise(64, 64)), "jpg") + bytes(1000), "jpg")


@pytest.mark.parametrize("extension", ["png", "jpg", "webp"])
@pytest.mark.parametrize("orientation", [3, 6, 0, 77])
def test_an_orientation_turns_nothing(extension: str, orientation: int):
    """Pixels as they are stored, as classifiers get them from PIL, torchvision and webdataset."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(noise(9, 13))
    options = {"lossless": True} if extension == "webp" else {}
    plain = images.decode(encoded(image, extension, **options), extension)
    assert np.array_equal(images.decode(encoded(image, extension, exif=exif, **options), extension), plain)


@pytest.mark.parametrize("profile", [b"", b"x", bytes(128) + b"junk" * 20])
@pytest.mark.parametrize("extension", ["png", "jpg", "webp"])
def test_a_colour_profile_changes_no_value(extension: str, profile: bytes):
    image = Image.fromarray(noise(9, 13))
    options = {"lossless": True} if extension == "webp" else {}
    plain = images.decode(encoded(image, extension, **options), extension)
    assert np.array_equal(images.decode(encoded(image, extension, icc_profile=profile, **options), extension), plain)


def test_damaged_exif_is_passed_over():
    data = encoded(Image.fromarray(noise()), "jpg")
    body = b"Exif\0\0MM\0*\xff\xff\xff\xff"
    segment = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
    assert images.decode(data[:2] + segment + data[2:], "jpg").shape == (9, 13, 3)
