"""Fuzzes the readers of pictures and tables with files whose structure is right and whose numbers are wrong.

    python tests/fuzz_structures.py pictures --inputs=10000 --seed=0
    python tests/fuzz_structures.py tables --inputs=10000 --seed=0

`fuzz.py` changes bytes, which checksums and lengths mostly reveal; here chunks, tags, headers, records and pages are
written anew around contents that do not fit them. Every input has to give a picture or a catalogue, a row that is set
aside, or a sentence, within limits of time and memory.

Longer than 400 lines: makers of files, one per format.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import struct
import sys
import zlib

if __name__ == "__main__":  # must be set before the libraries are imported
    os.environ |= {"OPENCV_LOG_LEVEL": "SILENT", "TQDM_DISABLE": "1", "POLARS_MAX_THREADS": "1"}

import fuzz  # noqa: E402
import odd_pictures  # noqa: E402
import table_bombs  # noqa: E402

NUMBERS = (
    0,
    1,
    2,
    3,
    7,
    8,
    15,
    16,
    32,
    48,
    127,
    255,
    256,
    4095,
    32_767,
    65_535,
    2**20,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
)


def _number(rng: random.Random, bits: int) -> int:
    return rng.choice((rng.choice(NUMBERS), rng.getrandbits(bits), rng.randrange(100))) & (2**bits - 1)


def _bytes(rng: random.Random, most: int = 200) -> bytes:
    match rng.randrange(4):
        case 0:
            return b""
        case 1:
            return rng.randbytes(1) * rng.randrange(most)
        case 2:
            return rng.randbytes(rng.randrange(most))
    return rng.choice(fuzz.WORDS["image"]) * rng.randrange(1, 9)


def _rearranged(rng: random.Random, parts: list[bytes], further) -> list[bytes]:
    """Returns parts of a file with a few dropped, repeated, moved, or new ones among them."""
    parts = list(parts)
    for _ in range(rng.choice((0, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(parts) + 1)
        match rng.randrange(5):
            case 0 if parts:
                del parts[min(at, len(parts) - 1)]
            case 1 if parts:
                parts[at:at] = [rng.choice(parts)] * rng.choice((1, 2, 150))
            case 2 if parts:
                parts.insert(at, parts.pop(rng.randrange(len(parts))))
            case 3 | 4:
                parts[at:at] = [further(rng)] * rng.choice((1, 1, 1, 3, 300))
    return parts


# ------------------------------------------------------------------------------------------------------------ pictures


def ifd(rng: random.Random, content: bytes = b"", known: dict | None = None) -> bytes:
    """Returns TIFF data: a header, contents, and a directory of tags, some of them wrong.

    Args:
      rng: source of randomness.
      content: comes first, at offset 8.
      known: {tag: (type, count, value)} that most files keep.
    """
    order = rng.choice("<>")
    tags = {} if known is None else dict(known)
    for tag in list(tags):
        if rng.random() < 0.1:
            kind, count, value = tags[tag]
            tags[tag] = rng.choice(
                ((_number(rng, 4), count, value), (kind, _number(rng, 32), value), (kind, count, None))
            )
    for _ in range(rng.choice((0, 0, 1, 2, 20, 300))):
        tag = rng.choice((rng.randrange(254, 340), 274, 34665, 34853, 33432, 700, 65_000, rng.getrandbits(16)))
        tags[tag] = (rng.randrange(1, 14), _number(rng, 32), None)
    out = b"".join(
        struct.pack(order + "HHI", tag, kind, count)
        + (struct.pack(order + "HH", (_number(rng, 16) if value is None else value) & 0xFFFF, 0) if kind == 3 else
           struct.pack(order + "I", _number(rng, 32) if value is None else value))
        for tag, (kind, count, value) in sorted(tags.items())
    )  # fmt: skip
    begin = 8 + len(content)
    magic = b"II*\0" if order == "<" else b"MM\0*"
    following = begin if rng.random() < 0.1 else 0  # a directory that follows itself
    return (
        magic
        + struct.pack(order + "I", begin)
        + content
        + struct.pack(order + "H", len(tags))
        + out
        + struct.pack(order + "I", following)
    )


def tiff(rng: random.Random) -> bytes:
    """Returns a TIFF with strips or tiles in any of its compressions."""
    width, height, samples = (
        rng.choice((1, 16, 48, _number(rng, 16))),
        rng.choice((1, 16, 32, _number(rng, 16))),
        rng.choice((1, 3, 4)),
    )
    raw = bytes(range(256)) * 8
    content = rng.choice((raw, zlib.compress(raw), odd_pictures.saved(odd_pictures.PICTURE, "JPEG"), _bytes(rng, 3000)))
    compression = rng.choice(
        (1, 1, 2, 3, 4, 5, 6, 7, 8, 32_773, 32_946, 34_712, 34_925, 50_000, 50_001, _number(rng, 16))
    )
    tags = {
        256: (4, 1, width),
        257: (4, 1, height),
        258: (3, 1, rng.choice((1, 4, 8, 8, 8, 12, 16, 32, 64))),
        259: (3, 1, compression),
        262: (3, 1, rng.choice((0, 1, 2, 3, 5, 6, 8))),
        277: (3, 1, samples),
        284: (3, 1, rng.choice((1, 1, 2))),
        317: (3, 1, rng.choice((1, 2, 3))),
        339: (3, 1, rng.choice((1, 1, 2, 3))),
    }
    if rng.random() < 0.5:
        tags |= {273: (4, 1, 8), 278: (4, 1, rng.choice((height, 1, 2**32 - 1))), 279: (4, 1, len(content))}
    else:
        tags |= {
            322: (4, 1, rng.choice((16, 48, _number(rng, 32)))),
            323: (4, 1, rng.choice((16, 32, _number(rng, 32)))),
        }
        tags |= {324: (4, 1, 8), 325: (4, 1, len(content))}
    return ifd(rng, content, tags)


CHUNKS = b"tRNS PLTE gAMA iCCP zTXt iTXt tEXt eXIf acTL fcTL fdAT sBIT pHYs IDAT IHDR IEND cHRM zzZz".split()


def png(rng: random.Random) -> bytes:
    """Returns a PNG of any header and chunks, with right checksums."""
    kind, depth = rng.choice((0, 2, 3, 4, 6, _number(rng, 8))), rng.choice((1, 2, 4, 8, 8, 16, _number(rng, 8)))
    width, height = (rng.choice((1, 8, 48, 300, _number(rng, 32))) for _ in range(2))
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, rng.randrange(2))
    lines = rng.choice((b"\0" * 5000, rng.randbytes(3000), b"".join(b"\0" + b"\7" * 48 * 3 for _ in range(32))))
    packed = zlib.compress(lines)
    cut = rng.randrange(len(packed) + 1)

    def further(rng: random.Random) -> bytes:
        name = rng.choice(CHUNKS)
        content = {
            b"eXIf": lambda: ifd(rng),
            b"zTXt": lambda: b"Comment\0\0" + zlib.compress(b"\0" * rng.choice((10, 2**21))),
            b"iTXt": lambda: b"XML:com.adobe.xmp\0\0\0\0\0" + b'tiff:Orientation="%d"' % rng.randrange(12),
            b"iCCP": lambda: b"profile\0\0" + zlib.compress(b"\0" * rng.choice((10, 2**21))),
            b"PLTE": lambda: rng.randbytes(3 * rng.randrange(1, 260)),
        }.get(name, lambda: _bytes(rng, 40))()
        return odd_pictures.chunk(name, content)

    parts = [odd_pictures.chunk(b"IHDR", header), odd_pictures.chunk(b"IDAT", packed[:cut])]
    parts += [odd_pictures.chunk(b"IDAT", packed[cut:]), odd_pictures.chunk(b"IEND", b"")]
    if kind == 3:
        parts.insert(1, odd_pictures.chunk(b"PLTE", bytes(range(48))))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts[:1] + _rearranged(rng, parts[1:], further))


def jpeg(rng: random.Random) -> bytes:
    """Returns a JPEG whose segments are rearranged, and whose header may give any size."""
    kind = {"progressive": rng.random() < 0.5, "quality": rng.choice((5, 90))}
    image = odd_pictures.PICTURE.convert(rng.choice(("RGB", "L", "CMYK")))
    data, parts, at = odd_pictures.saved(image, "JPEG", **kind), [], 2
    while at < len(data) - 2:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if data[at + 1] == 0xDA:  # coded pixels belong to the scan
            while data[end] != 0xFF or data[end + 1] in (0, *range(0xD0, 0xD8)):
                end += 1
        parts.append(data[at:end])
        at = end

    def further(rng: random.Random) -> bytes:
        content = rng.choice(
            (b"Exif\0\0" + ifd(rng), b"MPF\0" + ifd(rng), b"ICC_PROFILE\0\1\1" + _bytes(rng), _bytes(rng))
        )[:65_000]
        return (
            b"\xff"
            + bytes([rng.choice((0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE, 0xDB, 0xC4, 0xDD, 0xC0, 0xC2))])
            + (len(content) + 2).to_bytes(2)
            + content
        )

    parts = _rearranged(rng, parts, further)
    if rng.random() < 0.4:
        for number, part in enumerate(parts):
            if part[1:2] in (b"\xc0", b"\xc2") and len(part) > 9:
                parts[number] = part[:5] + struct.pack(">HH", _number(rng, 16), _number(rng, 16)) + part[9:]
    return b"\xff\xd8" + b"".join(parts) + rng.choice((b"\xff\xd9", b"", b"\xff\xd9" + _bytes(rng)))


def webp(rng: random.Random) -> bytes:
    """Returns a WebP of any chunks, with right lengths."""
    data = odd_pictures.saved(odd_pictures.PICTURE, "WEBP", lossless=rng.random() < 0.5)
    canvas = struct.pack("<I", rng.getrandbits(6)) + b"".join(
        (rng.choice((47, 31, _number(rng, 24))) & 0xFFFFFF).to_bytes(3, "little") for _ in range(2)
    )
    frame = b"\0" * 6 + (47).to_bytes(3, "little") + (31).to_bytes(3, "little") + _number(rng, 32).to_bytes(4, "little")

    def chunk(name: bytes, content: bytes) -> bytes:
        return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)

    def further(rng: random.Random) -> bytes:
        name = rng.choice((b"EXIF", b"XMP ", b"ICCP", b"ALPH", b"ANIM", b"ANMF", b"VP8X", b"VP8 ", b"VP8L", b"zzzz"))
        exif, moving = rng.choice((b"", b"Exif\0\0")) + ifd(rng), frame + data[12:]
        return chunk(name, {b"EXIF": exif, b"VP8X": canvas, b"ANMF": moving}.get(name, _bytes(rng)))

    body = b"".join(_rearranged(rng, [chunk(b"VP8X", canvas), data[12:]], further))
    return b"RIFF" + struct.pack("<I", rng.choice((len(body) + 4, _number(rng, 32)))) + b"WEBP" + body


def gif(rng: random.Random) -> bytes:
    """Returns a GIF of any blocks."""
    size = [rng.choice((1, 16, 48, _number(rng, 16))) for _ in range(6)]
    packed = rng.choice(
        (b"\2\2\x44\1\0", b"\x08" + b"\xff" + rng.randbytes(255) + b"\0", bytes([_number(rng, 8)]) + b"\0")
    )

    def further(rng: random.Random) -> bytes:
        return rng.choice(
            (b"\x21\xf9\4" + rng.randbytes(4) + b"\0", b"\x21\xfe\3abc\0", b"\x21\xff\x0bNETSCAPE2.0\3\1\0\0\0", frame)
        )

    frame = b"," + struct.pack("<HHHH", *size[2:]) + bytes([rng.choice((0, 0x40, 0x87))]) + packed
    parts = _rearranged(rng, [further(rng), frame], further)
    return b"GIF89a" + struct.pack("<HH", *size[:2]) + b"\x81\0\0" + rng.randbytes(12) + b"".join(parts) + b";"


def bmp(rng: random.Random) -> bytes:
    """Returns a BMP whose header may have any value in each field."""
    width, height = (rng.choice((1, 16, 300, 5000, -16)) for _ in range(2))
    fields = [rng.choice((40, 40, 12, 108, 124, _number(rng, 32))), width & 0xFFFFFFFF, height & 0xFFFFFFFF, 1]
    bits, compression = (
        rng.choice((1, 4, 8, 16, 24, 32, _number(rng, 16))),
        rng.choice((0, 0, 1, 2, 3, _number(rng, 32))),
    )
    content = rng.choice((b"\0\1", b"\5\1" * 500 + b"\0\1", b"\0\0" * 300, rng.randbytes(2000), b"\0\2\xff\xff" * 50))
    header = struct.pack("<IIIHHI", *fields, bits, compression) + struct.pack(
        "<IIIII", len(content), 0, 0, rng.choice((0, 256)), 0
    )
    offset = rng.choice((54, 54 + 1024, _number(rng, 32)))
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, offset) + header + rng.randbytes(1024) + content


def ppm(rng: random.Random) -> bytes:
    """Returns a PPM of any kind, size and largest value."""
    size = [rng.choice((1, 16, 300, _number(rng, 32))) for _ in range(2)]
    most = rng.choice((1, 255, 255, 1000, 65_535, _number(rng, 32)))
    content = rng.choice((rng.randbytes(3000), b"1 2 3\n" * 500, b"#" + b"x" * 2000, b"\xff\0" * 800))
    return (
        b"P%s %d %d %d\n" % (rng.choice((b"1", b"2", b"3", b"4", b"5", b"6", b"f", b"F", b"y")), *size, most) + content
    )


PICTURES = (tiff, png, jpeg, webp, gif, bmp, ppm)


def picture(rng: random.Random) -> bytes:
    """Returns a picture file."""
    return rng.choice(PICTURES)(rng)


# -------------------------------------------------------------------------------------------------------------- tables

CELLS = (
    *("", " ", "n1", "red shoes", "a.jpg", "../a.jpg", "=1+1", "NULL", "4.0E+12", "12.0", "\0", "\x1b[2J", "\ufeff"),
    *(
        "\u202e",
        "é",
        "中",
        "\U0001f45f",
        '"',
        '""',
        "'",
        "\\",
        "\\N",
        "a,b",
        "a;b",
        "a\tb",
        "a\nb",
        "a\r\nb",
        "{}",
        "[1]",
    ),
    "\u2028",
)
ENCODINGS = ("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1", "cp1252", "shift-jis", "utf-7")


def _cell(rng: random.Random) -> str:
    if rng.random() < 0.02:
        return rng.choice(("x" * 20_000, '"' * 999, "x\n" * 5000, "\0" * 5000, "9" * 5000))
    return "".join(rng.choice(CELLS) for _ in range(rng.choice((1, 1, 1, 2, 4))))


def delimited(rng: random.Random) -> bytes:
    """Returns a CSV or TSV with any delimiter, quoting, line ends and encoding."""
    delimiter, end = rng.choice(",,,;\t|"), rng.choice(("\n", "\n", "\r\n", "\r", "\n\n", "\x85"))
    names = ["id", "title", "image", "type"]
    if rng.random() < 0.3:
        names = _rearranged(rng, names, _cell)

    def written(text: str) -> str:
        match rng.randrange(8):
            case 0:
                return text
            case 1:
                return f'"{text}"'
            case 2:
                return f'"{text}' if rng.random() < 0.1 else text
        return '"' + text.replace('"', '""') + '"' if set(text) & set(f'"\r\n{delimiter}') else text

    rows = [names]
    for number in range(rng.choice((0, 1, 5, 30))):
        row = [f"n{number}", "red shoes", "a.jpg", str(number % 3)]
        row = [_cell(rng) if rng.random() < 0.15 else value for value in row]
        rows.append(_rearranged(rng, row, _cell) if rng.random() < 0.1 else row)
    text = end.join(delimiter.join(map(written, row)) for row in rows) + rng.choice(("", end, end * 3, "\x1a"))
    data = text.encode(rng.choice(ENCODINGS), "replace")
    if rng.random() < 0.1:
        data = data.replace(b"red", rng.choice((b"\xff\xfe", b"\xed\xa0\x80", b"\0\0", b"\xe9")))
    return rng.choice((b"\0", b"\0", b"\1")) + data


def _value(rng: random.Random, depth: int = 0):
    match rng.randrange(8 if depth < 3 else 6):
        case 0:
            return rng.choice((None, True, False))
        case 1:
            return rng.choice((0, -1, 2**53, 2**63, 10**300, 12.0, 1e308, float("nan"), float("inf"), 0.5))
        case 6:
            return [_value(rng, depth + 1) for _ in range(rng.randrange(4))]
        case 7:
            return {_cell(rng): _value(rng, depth + 1) for _ in range(rng.randrange(4))}
    return _cell(rng)


def lines(rng: random.Random) -> bytes:
    """Returns a JSON Lines file with any values, names and depths."""
    out = []
    for number in range(rng.choice((0, 1, 5, 30))):
        record = {"id": f"n{number}", "title": "red shoes", "image": "a.jpg", "type": str(number % 3)}
        for name in list(record):
            if rng.random() < 0.15:
                record[name] = _value(rng)
            if rng.random() < 0.03:
                del record[name]
        if rng.random() < 0.1:
            record[_cell(rng)] = _value(rng)
        text = json.dumps(record, ensure_ascii=rng.random() < 0.7)
        if rng.random() < 0.1:
            text = rng.choice(
                (
                    text[:-2],
                    text * 2,
                    "[" * 2000,
                    f"[{text}]",
                    '{"id": ' * 1500,
                    text.replace("red", "\\ud800"),
                    "1" * 5000,
                )
            )
        out.append(text)
    data = rng.choice(("\n", "\n", "\r\n")).join(out).encode("utf-8", "surrogatepass")
    return b"\2" + rng.choice((b"", b"", b"\xef\xbb\xbf")) + data


def parquet(rng: random.Random) -> bytes:
    """Returns a Parquet file with any numbers in its footer and headers."""
    few = rng.choice((1, 10, 1000))
    options = {"values": rng.choice((*(few,) * 30, 2**31 - 1, table_bombs.HUGE)), "columns": rng.choice((1, 4, 40))}
    options["row_groups"] = rng.choice((1, 1, 3, 40))
    if rng.random() < 0.3:
        options["uncompressed"] = _number(rng, 31)
    if rng.random() < 0.3:
        options["promised"] = rng.choice((0, few, 2**31, 2**33, 2**62))
    data = bytearray(table_bombs.parquet(text=rng.choice((b"a.jpg", b"\xff\xfe", b"", b"x" * 3000)), **options))
    for _ in range(rng.choice((0, 0, 1, 2, 5))):
        data[rng.randrange(len(data))] = rng.getrandbits(8)
    if rng.random() < 0.1:
        data[-8:-4] = struct.pack("<I", _number(rng, 32))
    return b"\3" + bytes(data)


TABLES = (delimited, delimited, delimited, lines, lines, parquet)


def table(rng: random.Random) -> bytes:
    """Returns a table's file after a byte that says which kind it is, as `fuzz.csv` takes it."""
    return rng.choice(TABLES)(rng)


WHAT = {"pictures": ("image", picture), "tables": ("csv", table)}


def run(what: str, *, seed: int, inputs: int, failures: pathlib.Path) -> dict:
    """Tries inputs; see `fuzz.run`.

    Args:
      what: a key of WHAT.
      seed: of the inputs.
      inputs: their number.
      failures: folder for failing inputs.
    """
    target, make = WHAT[what]
    return fuzz.run(target, seed=seed, inputs=inputs, failures=failures, make=make)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=WHAT)
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--failures", type=pathlib.Path, default=pathlib.Path("fuzz_failures"))
    given = parser.parse_args()
    done = run(given.what, seed=given.seed, inputs=given.inputs, failures=given.failures)
    outcomes = ", ".join(f"{name} {count:,}" for name, count in collections.Counter(done["outcomes"]).most_common())
    print(
        f"{given.what}: {done['inputs']:,} inputs ({outcomes}), {len(done['failures'])} kinds of failure, at most "
        f"{done['MiB']:,} MiB and {done['seconds']:.1f} s for one"
    )
    sys.exit(1 if done["failures"] else 0)
