"""Reads the structure of picture files without decoding them: kind, size, and what decoding would cost.

Budgets are checked here first. A kilobyte can ask for gigabytes or minutes: with a large canvas, with thousands of
scans, with tiles larger than their picture.
"""

from __future__ import annotations

import itertools
import re
import zlib
from typing import NamedTuple

HEAD = 65_536
JPEG = b"\xff\xd8\xff"
PNG = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"

MOST_SCANS = 100  # of a JPEG: encoders write about 10, and each costs as much as decoding a plain JPEG
MOST_PARTS = 10_000  # markers before a JPEG's picture, or chunks of a PNG or WebP: readers take microseconds for each
MOST_METADATA = 65_536  # bytes of EXIF and the like; beyond, a few hundred entries may each name all of it
MOST_RLE = 4 * 2**20  # pixels of a run-length encoded BMP, which is expanded pixel by pixel

# An EXIF orientation other than upright, in either byte order.
_TURNED = re.compile(
    rb"\x01\x12\x00(?!\x03\x00\x00\x00\x01\x00\x01)|\x12\x01.\x00(?<!\x03\x00)|"
    rb"\x12\x01\x03\x00(?!\x01\x00\x00\x00\x01\x00)",
    re.DOTALL,
)
_SCAN = re.compile(rb"\xff\xda")
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # of a JPEG, among coded pixels
_TIFF = (b"II*\0", b"MM\0*", b"MM*\0", b"II\0*", b"MM\0+", b"II+\0")
_UNUSED = (b"iCCP", b"tEXt", b"zTXt", b"iTXt")  # chunks of a PNG; some texts hold an orientation, see `png`

# Signatures of files that are not pictures, or of unsupported formats: (offset, bytes, description).
_KNOWN = (
    (0, b"<", "an HTML, XML or SVG page"),
    (0, b"{", "JSON"),
    (0, b"%PDF", "a PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"\x1f\x8b", "compressed (gzip)"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"8BPS", "Photoshop's"),
    (0, b"\0\0\1\0", "ICO"),
    (0, b"icns", "ICNS"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    *(
        (4, b"ftyp" + brand, name)
        for name, brands in {
            "AVIF": (b"avif", b"avis"),
            "HEIC": (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"),
        }.items()
        for brand in brands
    ),
)


class Jpeg(NamedTuple):
    """The header of a JPEG.

    Attributes:
      frame: offset of the frame header, 0 if not found.
      size: (width, height).
      plain: whether it has 8 bits and one or three channels.
      turned: whether EXIF may have an orientation to apply, which not every reader does.
      metadata: bytes of EXIF and the like.
      parts: number of markers.
      scans: offset of the first scan if there may be several, else 0.
    """

    frame: int = 0
    size: tuple[int, int] = (0, 0)
    plain: bool = False
    turned: bool = False
    metadata: int = 0
    parts: int = 0
    scans: int = 0


class Png(NamedTuple):
    """The chunks of a PNG.

    Attributes:
      intact: whether the checksums of the critical ones are right.
      heavy: whether there are unusually many, or much metadata.
      data: the file without chunks that do not change the picture.
    """

    intact: bool
    heavy: bool
    data: bytes


def kind(head: bytes) -> str:
    """Returns Pillow's name of the format, or "" if it is not a supported one.

    Args:
      head: the first bytes of a file, at least 16 of them if it has so many.
    """
    if head.startswith(JPEG):
        return "JPEG"
    if head.startswith(PNG):
        return "PNG"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith(_TIFF):
        return "TIFF"
    if head.startswith(b"BM"):
        return "BMP"
    return "PPM" if len(head) > 1 and head[:1] == b"P" and head[1] in b"0123456fy" else ""


def known(head: bytes) -> str:
    """Returns what a file that is not a supported picture seems to be, or ""."""
    head = head[:64].lstrip()
    return next((f"it is {name}" for at, magic, name in _KNOWN if head[at:].startswith(magic)), "")


def peek(data: bytes) -> tuple[bool, tuple[int, int] | None]:
    """Reads a header: (whether OpenCV decodes this kind as we want, (width, height) or None if not found)."""
    if data.startswith(PNG):
        if len(data) < 33 or data[12:16] != b"IHDR":
            return False, None
        # OpenCV's reader needs gigabytes and a minute for some damaged PNGs of 69 bytes.
        return False, (int.from_bytes(data[16:20]), int.from_bytes(data[20:24]))
    if data.startswith(b"RIFF"):
        return False, _webp_size(data)
    found = jpeg(data)
    return found.plain, found.size if found.frame else None


def ends_well(head: bytes, tail: bytes) -> bool:
    """Returns whether a JPEG or PNG ends with its end marker; False for other formats and after trailing bytes."""
    return tail.endswith(b"\xff\xd9") if head.startswith(JPEG) else head.startswith(PNG) and tail == _PNG_END


def jpeg(data: bytes) -> Jpeg:
    """Reads the header of a JPEG up to its first scan; that of any other file is empty."""
    at, frame, size, plain, turns = 2, 0, (0, 0), False, False
    metadata = parts = scans = channels = 0
    progressive = False
    while data.startswith(JPEG) and at + 10 <= len(data) and data[at] == 0xFF and parts <= MOST_PARTS:
        marker = data[at + 1]
        parts += 1
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD7:  # fill bytes and markers without content
            at += 1 if marker == 0xFF else 2
        elif marker in (0xD9, 0xDA):
            if marker == 0xDA and (progressive or data[at + 4] < channels):
                scans = at
            break
        else:
            end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
                progressive |= marker not in (0xC0, 0xC1)
                if not frame:
                    frame, channels = at, data[at + 9]
                    size = int.from_bytes(data[at + 7 : at + 9]), int.from_bytes(data[at + 5 : at + 7])
                    plain = channels in (1, 3) and data[at + 4] == 8
            elif marker in (0xE1, 0xE2):
                metadata += end - at
                if marker == 0xE1 and data[at + 4 : at + 8] == b"Exif" and _TURNED.search(data, at, end):
                    turns = True  # decoders also read it after the frame header
            at = end
    return Jpeg(frame, size, plain and parts <= MOST_PARTS, turns, metadata, parts, scans)


def too_many_scans(data: bytes, header: Jpeg) -> str:
    """Returns what is wrong if decoding a JPEG would take far longer than its size suggests, else "".

    Args:
      data: the file's bytes.
      header: from `jpeg`.
    """
    if header.parts > MOST_PARTS:
        return f"it has more than {MOST_PARTS:,} markers before the picture"
    if not header.scans:
        return ""
    most = sum(1 for _ in itertools.islice(_SCAN.finditer(data, header.scans), MOST_SCANS + 1))
    if most <= MOST_SCANS:  # coded pixels cannot contain the marker, metadata can
        return ""
    count, at = 0, header.scans
    while (found := _MARKER.search(data, at)) and found[0] != b"\xff\xd9" and count <= MOST_SCANS:
        count += found[0] == b"\xff\xda"
        at = found.start() + 2 + int.from_bytes(data[found.start() + 2 : found.start() + 4])
    return f"it is stored in more than {MOST_SCANS} scans" if count > MOST_SCANS else ""


def png(data: bytes) -> Png:
    """Reads the chunks of a PNG.

    Args:
      data: the file's bytes.

    Returns:
      The `Png`. Colour profiles and large texts are dropped: they are not used, and Pillow would decompress them.
    """
    view, at, parts, metadata, kept, begin, intact = memoryview(data), 8, 0, 0, [], 0, True
    while at + 12 <= len(data) and parts <= MOST_PARTS:
        length, name = int.from_bytes(view[at : at + 4]), bytes(view[at + 4 : at + 8])
        end = at + 8 + length
        critical = not name[0] & 32  # by the case of its name's first letter; a broken comment does no harm
        if critical and end + 4 <= len(data) and zlib.crc32(view[at + 4 : end]) != int.from_bytes(view[end : end + 4]):
            intact = False
            break
        # Small texts are kept, since they may hold the orientation: XMP, or the EXIF of ImageMagick.
        if name in _UNUSED and end + 4 <= len(data) and (name == b"iCCP" or length > MOST_METADATA):
            kept.append(view[begin:at])
            begin = end + 4
        elif not critical:
            metadata += length
        parts += 1
        at = end + 4
    heavy = parts > MOST_PARTS or metadata > MOST_METADATA
    return Png(intact, heavy, b"".join([*kept, view[begin:]]) if kept else data)


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """Returns (width, height) of a WebP's canvas, or None if its header is not valid."""
    if kind(data) != "WEBP" or len(data) < 30:
        return None
    match data[12:16]:
        case b"VP8X":
            return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
        case b"VP8L" if data[20] == 0x2F:
            bits = int.from_bytes(data[21:25], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8 " if data[23:26] == b"\x9d\x01\x2a":
            return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    return None


def _webp_heavy(data: bytes) -> bool:
    """Returns whether a WebP has unusually many chunks, or much metadata."""
    at, parts, metadata = 12, 0, 0
    while at + 8 <= len(data) and parts <= MOST_PARTS:
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] in (b"EXIF", b"XMP "):
            metadata += length
        parts += 1
        at += 8 + length + length % 2
    return parts > MOST_PARTS or metadata > MOST_METADATA


def needs_limits(data: bytes, of: str) -> bool:
    """Returns whether a picture is decoded in a process with limits, because its header does not bound the cost.

    Args:
      data: the file's bytes.
      of: its `kind`. TIFF, GIF, BMP and PPM always need limits; JPEG, PNG and WebP if they have unusually many parts or
        much metadata.
    """
    if of == "JPEG":
        found = jpeg(data)
        return found.metadata > MOST_METADATA or found.parts > MOST_PARTS
    if of == "PNG":
        return png(data).heavy
    return _webp_heavy(data) if of == "WEBP" else True


def slow_bmp(data: bytes) -> str:
    """Returns what is wrong with a BMP whose runs expand to very many pixels, else ""."""
    if len(data) < 34 or int.from_bytes(data[30:34], "little") not in (1, 2):
        return ""
    width, height = (abs(int.from_bytes(data[at : at + 4], "little", signed=True)) for at in (18, 22))
    return f"{width} x {height} pixels in runs, at most {MOST_RLE:,}" if width * height > MOST_RLE else ""
