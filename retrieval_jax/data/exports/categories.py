"""Categories as tables write them: paths, lists of paths, levels in columns; one path per row comes out."""

from __future__ import annotations

import collections
import html
import re
from collections.abc import Sequence

from retrieval_jax.data.exports import facts, words

SEPARATOR = " > "


def paths(field: str) -> list[tuple[str, ...]]:
    """Returns the paths that a field lists, each from coarse to fine.

    Args:
      field: such as "fashion > bags > handbag, Sale" or "Default Category/fashion,Default Category/fashion/bags".
    """
    text = html.unescape(facts.clean(field))
    if not text:
        return []
    if re.search(r">|»", text):
        items, deeper = re.split(r"[,;|\n](?=\s*\S)", text), r"\s*(?:>+|»)\s*"
    elif re.search(r"\S///?\S", text):
        items, deeper = re.split(r"[,;|\n]", text), r"/{2,3}"
    elif "/" in text and not re.search(r"\s/\s", text):
        items, deeper = re.split(r"[,;|\n]", text), "/"
    elif " / " in text:
        items, deeper = re.split(r"[,;|\n]", text), r"\s/\s"
    else:
        items, deeper = re.split(r"[,;|\n]", text), r"(?!)"
    out = []
    for item in items:
        parts = tuple(" ".join(part.split()) for part in re.split(deeper, item.strip(" \"'[]")) if part.strip())
        while parts and parts[0].casefold() in words.values("promotion"):
            parts = parts[1:]
        if parts:
            out.append(parts)
    return out


def best(fields: Sequence[str]) -> tuple[str, ...]:
    """Returns the category of a row: the deepest path of one field, or the levels of several; () without a category.

    Args:
      fields: of one row, coarse to fine.
    """
    if len(fields) > 1:
        levels = [facts.clean(field) for field in fields]
        return tuple(" ".join(level.split()) for level in levels if level)
    return max(paths(fields[0]), key=len, default=()) if fields else ()


def names(columns: Sequence[Sequence[str]]) -> tuple[list[str], list[str]]:
    """Returns the distinct categories, sorted, and the category of every row, "" where it has none.

    A first level that all rows share is left out.

    Args:
      columns: the columns of the category, coarse to fine, n texts each.
    """
    found = [best(fields) for fields in zip(*columns, strict=True)]
    while (tops := collections.Counter(path[0] for path in found if path)) and len(tops) == 1:
        if max(map(len, found)) == 1 or any(len(path) == 1 for path in found):
            break
        found = [path[1:] for path in found]
    rows = [SEPARATOR.join(path) for path in found]
    return sorted({row for row in rows if row}), rows
