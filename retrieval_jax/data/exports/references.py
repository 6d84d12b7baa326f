"""Pictures as tables name them: a field's text becomes addresses and paths, one per picture."""

from __future__ import annotations

import html
import json
import re
import unicodedata
import urllib.parse

EXTENSIONS = ("jpg", "jpeg", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "heic", "ppm")
_END = rf"\.(?:{'|'.join(EXTENSIONS)})"
# A path up to a picture's extension, with what may follow it in an address, before a separator or the end.
_PATH = re.compile(rf".+?{_END}(?:\?[^\s,;|]*)?(?=\s*[,;|\n]|\s|$)", re.IGNORECASE | re.DOTALL)
_ADDRESSES = re.compile(r"[\s,;|\"'\[\]<>]+(?=(?:https?|ftp):|//[\w.-]+\.\w)", re.IGNORECASE)
# Films, documents and the like, which systems list between the pictures.
_OTHER = re.compile(r"\.(?:mp4|m4v|mov|webm|avi|mkv|mp3|pdf|docx?|zip|svg|glb|usdz)(?:[?#].*)?$", re.IGNORECASE)
_NOTHING = frozenset(
    [
        "",
        "null",
        "none",
        "nan",
        "<na>",
        "n/a",
        "#n/a",
        "na",
        "\\n",
        "-",
        "no_selection",
        "no selection",
        "0",
        "false",
        "[]",
    ]
)
_EDGES = " \t\r\n,;|\"'[]\ufeff\u200b"


def split(field: str) -> list[str]:
    """Returns the pictures that a field names, as they are written, in their order.

    Separators are commas, semicolons, vertical bars, blanks and line breaks; a comma or a blank inside an address or a
    file name is not one. A field may also be a JSON list, or HTML with <img src="...">.

    Args:
      field: of a column of pictures.
    """
    text = field.strip()
    if text.casefold() in _NOTHING:
        return []
    if text[0] in "[{" and (found := _json(text)) is not None:
        return found
    if "<img" in text.lower():
        return [
            html.unescape(one) for one in re.findall(r"<img[^>]+?src\s*=\s*[\"']?([^\"'\s>]+)", text, re.IGNORECASE)
        ]
    if is_address(text) or _ADDRESSES.search(text):
        parts = _ADDRESSES.split(text)
    elif re.search(_END, text, re.IGNORECASE):
        parts = _PATH.findall(re.sub(r"[|;\n\r]+", "\n", text))
    else:
        parts = re.split(r"[|;,\n\r]+", text)
    # Some systems append the alternative text: "https://... ! alt : red dress ! title : ...".
    cleaned = [html.unescape(re.split(r"\s+!\s", part, maxsplit=1)[0]).strip(_EDGES) for part in parts]
    return [part for part in cleaned if part.casefold() not in _NOTHING and not _OTHER.search(part)]


def _json(text: str) -> list[str] | None:
    """Returns the texts of a JSON list or object, or those under keys of an address; None where it is not JSON."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    out = []
    for one in found if isinstance(found, list) else [found]:
        if isinstance(one, dict):
            one = next(
                (one[key] for key in ("url", "src", "href", "image", "path", "file", "link") if key in one), None
            )
        if isinstance(one, str) and one.strip().casefold() not in _NOTHING:
            out.append(one.strip())
    return out


def is_address(text: str) -> bool:
    """Returns whether a text is an address instead of a path."""
    return bool(re.match(r"\s*(?:[A-Za-z][A-Za-z0-9+.-]+:)?//\S", text))


def looks_like_a_picture(text: str) -> bool:
    """Returns whether a text ends like the name of a picture."""
    return bool(re.search(rf"{_END}(?:[?#].*)?\s*$", text, re.IGNORECASE))


def path(reference: str) -> str:
    """Returns the path of a reference with slashes, without host, query and percent signs, in Unicode's form C.

    A query is kept where it alone tells pictures apart, as in "image.php?id=7".

    Args:
      reference: an address or a path.
    """
    text = reference.strip().replace("\\", "/")
    if is_address(text):
        text = re.sub(r"^(?:[A-Za-z][A-Za-z0-9+.-]+:)?//[^/?#]*", "", text)
    bare = re.split(r"[?#]", text, maxsplit=1)[0]
    if looks_like_a_picture(bare) or "=" not in text:
        text = bare if bare.strip("/") else text
    return unicodedata.normalize("NFC", urllib.parse.unquote(text, errors="replace")).strip().lstrip("/")


def loose(name: str) -> str:
    """Returns a name or path without differences of case and of Unicode form, as names are compared."""
    return unicodedata.normalize("NFKC", name).casefold().strip()
