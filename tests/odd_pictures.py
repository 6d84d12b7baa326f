"""Pictures of every kind found in real catalogues, as the bytes of their files."""

import functools
import io
import struct
import zlib

import cv2
import numpy as np
from PIL import Image, PngImagePlugin, features

RAMP = np.stack(
    [
        np.tile(np.arange(48, dtype=np.uint8) * 5, (32, 1)),
        np.tile(np.arange(32, dtype=np.uint8)[:, None] * 7, (1, 48)),
        np.full((32, 48), 90, np.uint8),
    ],
    axis=-1,
)
PICTURE = Image.fromarray(RAMP)
_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"


def saved(image: Image.Image, kind: str, **options) -> bytes:
    """Returns an image file as written by Pillow."""
    content = io.BytesIO()
    if "append_images" in options:
        options["append_images"] = [further.copy() for further in options["append_images"]]
    image.copy().save(content, kind, **options)  # a copy, since saving modifies an image
    return content.getvalue()


def turned(orientation: int) -> Image.Exif:
    """Returns EXIF data with an orientation, 1 to 8."""
    exif = Image.Exif()
    exif[274] = orientation
    return exif


def chunk(name: bytes, content: bytes) -> bytes:
    """Returns a PNG chunk with its checksum."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def interlaced(gray: np.ndarray) -> bytes:
    """Returns uint8 [h, w] as an interlaced PNG, with the seven passes of Adam7."""
    lines = b""
    for top, left, down, right in (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    ):
        lines += b"".join(b"\0" + line.tobytes() for line in gray[top::down, left::right] if line.size)
    header = struct.pack(">IIBBBBB", gray.shape[1], gray.shape[0], 8, 0, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + _END


def _with_alpha() -> Image.Image:
    alpha = np.zeros((32, 48), np.uint8)
    alpha[:, 24:] = 255
    return Image.fromarray(np.dstack([RAMP, alpha]))


def _see_through() -> Image.Image:
    palette = PICTURE.quantize(16)
    palette.info["transparency"] = 0
    return palette


def _png_info() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add(b"gAMA", struct.pack(">I", 100_000))
    info.add_text("Comment", "gamma 1")
    return info


def _jpeg_of_size(width: int, height: int) -> bytes:
    """Returns a JPEG of 48 x 32 pixels whose header gives a different size."""
    data = saved(PICTURE, "JPEG", quality=95)
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def _png_of_size(width: int, height: int) -> bytes:
    data = saved(PICTURE, "PNG")
    return data[:8] + chunk(b"IHDR", struct.pack(">II", width, height) + data[24:29]) + data[33:]


def _bomb(width: int, height: int) -> bytes:
    """Returns a valid all-black PNG with one bit per pixel: a few KB."""
    packing, line = zlib.compressobj(), b"\0" * (1 + width // 8)
    packed = b"".join([packing.compress(line) for _ in range(height)] + [packing.flush()])
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + _END


@functools.cache
def good() -> dict[str, bytes]:
    """Returns name -> bytes of readable files; all except 1x1 and 20000 show RAMP, as far as the format allows."""
    cmyk = saved(PICTURE.convert("CMYK"), "JPEG", quality=98)
    adobe = cmyk.index(b"Adobe")
    other = Image.new("RGB", PICTURE.size, "blue")
    gray = PICTURE.convert("L")
    wide = RAMP.astype(np.uint16) * 257
    jpeg, icc = saved(PICTURE, "JPEG", quality=98), b"profile" * 30
    found = {
        "jpeg.jpg": jpeg,
        "progressive.jpg": saved(PICTURE, "JPEG", quality=98, progressive=True),
        "gray.jpg": saved(gray, "JPEG", quality=98),
        "cmyk.jpg": cmyk,
        "ycck.jpg": cmyk[: adobe + 11] + b"\2" + cmyk[adobe + 12 :],
        "two_lenses.jpg": saved(PICTURE, "MPO", save_all=True, append_images=[other], quality=98),
        "padded.jpg": jpeg + b"\0" * 100,
        "profile.jpg": saved(PICTURE, "JPEG", quality=98, icc_profile=icc),
        "jpeg.png": jpeg,
        "png.jpg": saved(PICTURE, "PNG"),
        "no_extension": jpeg,
        "png.png": saved(PICTURE, "PNG"),
        "gray.png": saved(gray, "PNG"),
        "one_bit.png": saved(PICTURE.convert("1"), "PNG"),
        "palette.png": saved(PICTURE.quantize(16), "PNG"),
        "palette_transparent.png": saved(_see_through(), "PNG", transparency=0),
        "alpha.png": saved(_with_alpha(), "PNG"),
        "gray_alpha.png": saved(_with_alpha().convert("LA"), "PNG"),
        "gray16.png": cv2.imencode(".png", wide[:, :, 0])[1].tobytes(),
        "rgb16.png": cv2.imencode(".png", wide[:, :, ::-1])[1].tobytes(),
        "interlaced.png": interlaced(np.asarray(gray)),
        "gamma.png": saved(PICTURE, "PNG", icc_profile=icc, pnginfo=_png_info()),
        "animated.png": saved(PICTURE, "PNG", save_all=True, append_images=[other]),
        "lossy.webp": saved(PICTURE, "WEBP", quality=95),
        "lossless.webp": saved(PICTURE, "WEBP", lossless=True),
        "alpha.webp": saved(_with_alpha(), "WEBP", lossless=True),
        "animated.webp": saved(PICTURE, "WEBP", save_all=True, append_images=[other], lossless=True),
        "plain.gif": saved(PICTURE.quantize(64), "GIF"),
        "animated.gif": saved(PICTURE.quantize(64), "GIF", save_all=True, append_images=[other.quantize(2)]),
        "transparent.gif": saved(_see_through(), "GIF", transparency=0),
        "plain.bmp": saved(PICTURE, "BMP"),
        "alpha.bmp": saved(_with_alpha(), "BMP"),
        "plain.tiff": saved(PICTURE, "TIFF"),
        "packed.tiff": saved(PICTURE, "TIFF", compression="tiff_lzw"),
        "pages.tiff": saved(PICTURE, "TIFF", save_all=True, append_images=[other]),
        "gray16.tiff": saved(Image.fromarray(wide[:, :, 0]), "TIFF"),
        "cmyk.tiff": saved(PICTURE.convert("CMYK"), "TIFF"),
        "plain.ppm": saved(PICTURE, "PPM"),
        "1x1.jpg": saved(PICTURE.resize((1, 1)), "JPEG"),
        "1x1.png": saved(PICTURE.resize((1, 1)), "PNG"),
        "1x1.gif": saved(PICTURE.resize((1, 1)).quantize(2), "GIF"),
        "20000x40.jpg": saved(Image.new("RGB", (20_000, 40), "red"), "JPEG"),
        "2x20000.png": saved(Image.new("RGB", (2, 20_000), "red"), "PNG"),
        "longer_than_declared.jpg": _jpeg_of_size(48, 24),
        "shorter_than_declared.jpg": _jpeg_of_size(48, 64),
    }
    for orientation in range(2, 9):
        found[f"rotated{orientation}.jpg"] = saved(PICTURE, "JPEG", quality=98, exif=turned(orientation))
    for kind in ("PNG", "WEBP", "TIFF"):
        found[f"rotated6.{kind.lower()}"] = saved(
            PICTURE, kind, exif=turned(6), **({"lossless": True} if kind == "WEBP" else {})
        )
    return found


@functools.cache
def bad() -> dict[str, tuple[bytes, str]]:
    """Returns name -> (bytes, reason to set it aside) of files that are not read."""
    jpeg, png = saved(PICTURE, "JPEG", quality=95), saved(PICTURE, "PNG")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    cut, none, large = "truncated image file", "not an image file", "image too large"
    found = {
        "empty.jpg": (b"", none),
        "three_bytes.jpg": (b"GIF", none),
        "start.jpg": (b"\xff\xd8\xff", cut),
        "error_page.jpg": (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", none),
        "error.json.jpg": (b'{"error": "not found"}', none),
        "drawing.svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', none),
        "text.jpg": (b"no such picture\n" * 20, none),
        "zeros.jpg": (b"\0" * 4096, none),
        "page.pdf": (saved(PICTURE, "PDF"), none),
        "icon.ico": (saved(PICTURE, "ICO", sizes=[(16, 16)]), none),
        "layers.psd": (b"8BPS\0\1" + b"\0" * 60, none),
        "phone.heic": (b"\0\0\0\x18ftypheic" + b"\0" * 60, none),
        "floats.tiff": (saved(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), none),
        "cut_tail.jpg": (jpeg[:-200], cut),
        "cut_half.jpg": (jpeg[: len(jpeg) // 2], cut),
        "cut_last.jpg": (saved(noise, "JPEG", quality=95)[:-2000], cut),
        "cut.png": (png[:-40], cut),
        "cut_before_end.png": (saved(noise, "PNG")[:-600], cut),
        "cut.webp": (saved(noise, "WEBP", lossless=True)[:-600], cut),
        "cut.gif": (saved(noise.quantize(64), "GIF")[:-900], cut),
        "cut.bmp": (saved(PICTURE, "BMP")[:-400], cut),
        "cut.tiff": (saved(noise, "TIFF", compression="tiff_lzw")[:-900], none),
        "bomb.png": (_bomb(20_000, 20_000), large),
        "bomb.gif": (
            b"GIF89a"
            + struct.pack("<HH", 60_000, 60_000)
            + b"\0\0\0,\0\0\0\0"
            + struct.pack("<HH", 60_000, 60_000)
            + b"\0\2\2D\1\0;",
            large,
        ),
        "declared_large.jpg": (_jpeg_of_size(60_000, 60_000), large),
        "declared_large.png": (_png_of_size(100_000, 100_000), large),
    }
    if features.check("avif"):
        found["new.avif"] = saved(PICTURE, "AVIF"), none
    if features.check("jpg_2000"):
        found["old.jp2"] = saved(PICTURE, "JPEG2000"), none
    return found


@functools.cache
def damaged_inside() -> dict[str, bytes]:
    """Returns name -> bytes of files whose header and end are fine but whose middle is damaged: only decoding tells."""
    png = saved(PICTURE, "PNG")
    at = png.index(b"IDAT") + 30
    alpha = saved(_with_alpha(), "PNG")
    dot = saved(PICTURE.resize((1, 1)), "PNG")
    return {
        # Its pixels end in the middle but all checksums are right: OpenCV 5.0 takes a minute and 4 GiB for it.
        "endless.png": dot[:33] + chunk(b"IDAT", bytes.fromhex("789c6328cb8d0200029a013e")) + _END,
        "flipped.png": png[:at] + bytes([png[at] ^ 255]) + png[at + 1 :],
        "declared_taller.png": _png_of_size(48, 300),
        "flipped_alpha.png": alpha[:at] + bytes([alpha[at] ^ 255]) + alpha[at + 1 :],
    }
