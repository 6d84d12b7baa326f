"""Finds the encoding of a text file: by its byte-order mark, by whether it is UTF-8, else by what would be readable.

A file in an old encoding decodes in a dozen of them. Read in the wrong one, words mix scripts, change case in their
middle or hold symbols; read in the right one, the header holds words that tables use. Both are counted. A library that
guesses from letter frequencies alone needs more text than the few words that most tables of a shop have.
"""

from __future__ import annotations

import codecs
import pathlib
import re
import unicodedata

from retrieval_jax.data.exports import words
from retrieval_jax.errors import InputError

_SAMPLE = 2**18  # bytes
_BLOCK = 2**20
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
# The more common first: it wins where two read a file equally well.
_OLD = (
    *("cp1252", "cp1251", "cp1250", "gb18030", "cp932", "big5hkscs", "cp949", "cp1254", "cp1253", "cp1256", "cp1255"),
    *(
        "cp1257",
        "cp1258",
        "cp874",
        "koi8-r",
        "koi8-u",
        "cp866",
        "cp850",
        "mac-roman",
        "mac-cyrillic",
        "iso8859-15",
        "euc_jp",
    ),
)
_MOST_DAMAGE = 0.02  # share of the letters beyond ASCII of a UTF-8 file that may be broken


def find(path: pathlib.Path) -> str:
    """Returns the encoding of a text file, as Python names it.

    Args:
      path: of the file.

    Raises:
      InputError: it holds no text.
    """
    with open(path, "rb") as file:
        head = file.read(_SAMPLE)
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    if not head.strip(b"\0 \t\r\n"):
        raise InputError(f"{path}: the file is empty; its first line must name the columns")
    zeros = (head[0::2].count(0) / max(1, len(head[0::2])), head[1::2].count(0) / max(1, len(head[1::2])))
    if max(zeros) > 0.2 and min(zeros) < 0.1:
        return "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
    controls = sum(byte < 32 and byte not in b"\t\n\r\f\x1a\x1b\0" for byte in head)
    if controls > 0.02 * len(head):
        raise InputError(f"{path}: it is not a text file; export the table as CSV")
    if _is_utf8(path):
        return "utf-8"
    sample = _beyond_ascii(path)
    text = sample.decode("utf-8", "replace")
    letters = sum(map(str.isalpha, re.sub(r"[\0-\x7f]", "", text)))
    if text.count("\ufffd") <= _MOST_DAMAGE * letters:
        return "utf-8"
    scored = [(readable(sample, head, name), -place, name) for place, name in enumerate(_OLD)]
    return max(scored)[2]


def _is_utf8(path: pathlib.Path) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with open(path, "rb") as file:
            while block := file.read(_BLOCK):
                decoder.decode(block)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _beyond_ascii(path: pathlib.Path) -> bytes:
    """Returns the first lines of a file, and more of those that are not all ASCII."""
    found, size = [], 0
    with open(path, "rb") as file:
        for number, line in enumerate(file):
            if number < 50 or not line.isascii():
                found.append(line[:10_000])
                size += len(found[-1])
            if size > _SAMPLE or number > 200_000:
                break
    return b"".join(found)


def readable(sample: bytes, head: bytes, name: str) -> float:
    """Returns how well bytes read in an encoding: the higher, the better; -inf where they do not decode.

    Args:
      sample: lines of the file.
      head: its beginning.
      name: of the encoding.
    """
    try:
        text = sample.decode(name)
    except UnicodeDecodeError as error:
        if error.start < len(sample) - 4:
            return -float("inf")
        text = sample.decode(name, "ignore")
    good = bad = 0.0
    for word in set(re.findall(r"[^\s,;|\t\"'<>=/\\0-9().:-]*[^\0-\x7f][^\s,;|\t\"'<>=/\\0-9().:-]*", text)):
        scripts = {_script(letter) for letter in word if letter.isalpha()}
        strange = sum(
            unicodedata.category(letter) in ("Cc", "Co", "Cn", "Sk", "Sm", "So", "No", "Sc") for letter in word
        )
        jumps = len(re.findall(r"(?<=[a-zß-öø-ÿа-яёґєіїά-ώ])(?=[A-ZÀ-ÖØ-ÞА-ЯЁҐЄІЇΆ-Ώ])", word))
        mixed = max(0, len(scripts - {"kana", "han"}) - (0 if scripts & {"kana", "han"} else 1))
        rare = sum(letter in _RARE for letter in word)
        if "han" in scripts:
            rare += sum(not _common_han(letter) for letter in word if _script(letter) == "han") * 0.7
        good += sum(map(str.isalpha, word))
        bad += 3 * strange + 2 * jumps + 4 * mixed + rare
    cells = re.split(r"[\t,;|\r\n]", head[:4096].decode(name, "ignore"))
    hits = sum(words.known(cell) for cell in cells if not cell.isascii())
    return 10 * hits + (good - 2 * bad) / max(1.0, good + bad)


# Letters of Western encodings that hardly any shop's language has: what other alphabets look like when misread.
_RARE = frozenset("ÐÝÞðýþ¿¡ªºµƒŸÿŠŽ¤¦¨¬¯´¸×÷ˆ˜‰†‡…ŀĸŉ")


def _script(letter: str) -> str:
    code = ord(letter)
    if code < 0x250:
        return "latin"
    for name, low, high in (
        ("greek", 0x370, 0x3FF),
        ("cyrillic", 0x400, 0x52F),
        ("hebrew", 0x590, 0x5FF),
        ("arabic", 0x600, 0x6FF),
        ("thai", 0xE00, 0xE7F),
        ("latin", 0x1E00, 0x1EFF),
        ("kana", 0x3040, 0x30FF),
        ("han", 0x3400, 0x9FFF),
        ("hangul", 0xAC00, 0xD7AF),
        ("kana", 0xFF66, 0xFF9F),
    ):
        if low <= code <= high:
            return name
    return "other"


def _common_han(letter: str) -> bool:
    """Returns whether a Chinese character is a common one: level 1 of GB 2312, of Big5 or of JIS X 0208."""
    for name, low, high in (("gb2312", 0xB0, 0xD7), ("big5", 0xA4, 0xC6), ("cp932", 0x88, 0x97)):
        try:
            if low <= letter.encode(name)[0] <= high:
                return True
        except (UnicodeEncodeError, IndexError):
            continue
    return False
