"""Small files that ask their decoder for gigabytes or minutes, as the bytes of their files."""

import functools
import io
import struct
import zlib

import numpy as np
from PIL import Image

import odd_pictures

BIG = 8000  # side of a canvas below the default max_pixels


@functools.cache
def all_of_them() -> dict[str, tuple[bytes, str | None]]:
    """Returns name -> (bytes, reason to set it aside, None if it is decoded in spite of its size)."""
    return {
        "huge_tile.tiff": (huge_tile(), "image too costly"),
        "many_tags.tiff": (many_tags(), None),
        "runs.bmp": (run_length_bmp(BIG, BIG), "image too costly"),
        "scans.jpg": (many_scans(5000), "image too costly"),
        "markers.jpg": (many_markers(1_000_000), "image too costly"),
        "exif.png": (exif_of_many_entries(), None),
        "text.png": (_png_with(b"zTXt", b"Comment\0\0" + zlib.compress(b"\0" * 2**28)), None),
        "profile.png": (_png_with(b"iCCP", b"profile\0\0" + zlib.compress(b"\0" * 2**28)), None),
        "chunks.png": (_png_with(b"IDAT", b"", 300_000), None),
        "comments.gif": (many_comments(400_000), None),
        "frames.gif": (many_frames(20_000), None),
        "plain.ppm": (b"P3 8000 8000 255 " + b"1 " * 100_000, "truncated image file"),
    }


def _png_with(name: bytes, content: bytes, times: int = 1) -> bytes:
    png = odd_pictures.saved(odd_pictures.PICTURE, "PNG")
    return png[:33] + odd_pictures.chunk(name, content) * times + png[33:]


def huge_tile() -> bytes:
    """Returns a TIFF of 16 x 16 pixels whose single tile has 65,520 x 32,752."""
    packed = zlib.compress(b"\0" * 2**20)
    entries = [(256, 4, 16), (257, 4, 16), (258, 3, 8), (259, 3, 8), (262, 3, 1), (277, 3, 1)]
    entries += [(322, 4, 65_520), (323, 4, 32_752), (324, 4, 8), (325, 4, len(packed))]
    return _tiff(entries, packed)


def many_tags(count: int = 20_000) -> bytes:
    """Returns a TIFF of 4 x 4 pixels with tags that each name the whole file: 100 times its size per 100 tags."""
    content = b"\0" * 2**20
    entries = [(256, 4, 4), (257, 4, 4), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
    entries += [(278, 4, 4), (279, 4, 16)]
    return _tiff(entries, content, [(tag, 7, len(content), 8) for tag in range(1000, 1000 + count)])


def _tiff(entries: list[tuple], content: bytes, more: list[tuple] = ()) -> bytes:
    table = [(tag, kind, 1, value) for tag, kind, value in entries] + list(more)
    table = b"".join(
        struct.pack("<HHIHH", tag, kind, count, value, 0)
        if kind == 3
        else struct.pack("<HHII", tag, kind, count, value)
        for tag, kind, count, value in table
    )
    begin = 8 + len(content)
    return b"II*\0" + struct.pack("<I", begin) + content + struct.pack("<H", len(table) // 12) + table + b"\0\0\0\0"


def run_length_bmp(width: int, height: int) -> bytes:
    """Returns a BMP with eight bits a pixel whose rows are ended at once: about a kilobyte."""
    content = b"\0\0" * 8 + b"\0\1"
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(content), 0, 0, 256, 0)
    palette = b"\0" * 1024
    offset = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", offset + len(content), 0, 0, offset) + header + palette + content


def many_scans(count: int, side: int = BIG) -> bytes:
    """Returns a progressive JPEG with very many scans over a large picture."""
    gray = odd_pictures.saved(Image.new("L", (side, side), 128), "JPEG", progressive=True)
    last = gray.rindex(b"\xff\xda")  # it refines what the scans before it coded, so it may be repeated
    return gray[:-2] + gray[last:-2] * count + b"\xff\xd9"


def many_markers(count: int) -> bytes:
    """Returns a JPEG with very many empty comments before its picture."""
    jpeg = odd_pictures.saved(odd_pictures.PICTURE, "JPEG")
    return jpeg[:2] + b"\xff\xfe\0\2" * count + jpeg[2:]


def exif_of_many_entries(count: int = 20_000) -> bytes:
    """Returns a PNG whose EXIF has entries that each name all of it."""
    size = 12 * count + 2**20
    table = b"".join(struct.pack("<HHII", 1000 + i, 7, size - 16, 8) for i in range(count))
    exif = b"II*\0" + struct.pack("<IH", 8, count) + table + b"\0\0\0\0"
    return _png_with(b"eXIf", exif.ljust(size, b"\0"))


def many_comments(count: int) -> bytes:
    """Returns a GIF with very many comments, which its reader joins one by one."""
    gif = odd_pictures.saved(odd_pictures.PICTURE.quantize(8), "GIF")
    at = gif.index(b",", 13 + 3 * 2 ** ((gif[10] & 7) + 1)) if gif[10] & 128 else gif.index(b",", 13)
    return gif[:at] + (b"\x21\xfe" + (b"\xff" + b"c" * 255) * 4 + b"\0") * (count // 40) + gif[at:]


def many_frames(count: int) -> bytes:
    """Returns a GIF whose last frame is repeated very often."""
    frames = [Image.new("L", (16, 16), value) for value in (0, 255)]
    gif = odd_pictures.saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    at = gif.rindex(b"\x21\xf9")
    return gif[:at] + gif[at:-1] * count + b";"


@functools.cache
def large_webp() -> bytes:
    """Returns a WebP of 8000 x 8000 transparent pixels in a few kilobytes: within the limits, but not small."""
    content = io.BytesIO()
    Image.fromarray(np.zeros((BIG, BIG, 4), np.uint8)).save(content, "WEBP", lossless=True, method=0, quality=0)
    return content.getvalue()
