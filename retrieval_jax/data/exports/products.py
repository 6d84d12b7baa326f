"""The products of a table and the pictures that it names, before any file is looked for."""

from __future__ import annotations

import collections
import dataclasses
import html
import pathlib
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from retrieval_jax.data.exports import categories, facts, grouping, reading, recognising, references, roles, words
from retrieval_jax.data.exports.folders import Folder
from retrieval_jax.data.exports.reading import Form, Sheet
from retrieval_jax.data.exports.recognising import Recognised
from retrieval_jax.errors import InputError

_SAMPLE = 20_000  # rows that the columns are recognised from
_LONGEST_KEY = 100  # characters
NOTHING, TOTAL = "neither key, title nor picture", "total below the table"


@dataclasses.dataclass(frozen=True)
class Product:
    """A product of a table.

    Attributes:
      key: its own, without blanks.
      title: "" where it has none.
      category: its path, coarse to fine, joined; "" where it has none.
      row: the first row of it, from 0.
    """

    key: str
    title: str
    category: str
    row: int


@dataclasses.dataclass(frozen=True)
class Named:
    """A picture that a table names, once per product.

    Attributes:
      product: number of the product.
      row: the row that names it first, from 0.
      reference: address or path, as it is written.
    """

    product: int
    row: int
    reference: str


@dataclasses.dataclass(frozen=True)
class Table:
    """The products of a table and the pictures that it names.

    Attributes:
      path: of the file.
      sheet: its rows, with the columns that play a part.
      recognised: which column is what.
      products: in the order of their first rows.
      of_row: n numbers of products, -1 for a row of none.
      named: pictures in the order of the rows, once per product.
      repeated: further mentions of a picture by rows of the same product.
      refused: groups whose rows were not joined because their titles differ.
      apart: keys of rows that were not joined because their titles have nothing in common.
      orphans: lines of variants of products that the table does not have.
    """

    path: pathlib.Path
    sheet: Sheet
    recognised: Recognised
    products: list[Product]
    of_row: list[int]
    named: list[Named]
    repeated: int
    refused: list[str]
    apart: list[str]
    orphans: list[int]

    @property
    def further_rows(self) -> int:
        """Rows of a product beyond its first: variants, further pictures, other languages."""
        return sum(number >= 0 for number in self.of_row) - len(self.products)


def load(
    path, columns: Mapping[str, Any] | None = None, form: Form | None = None, folder: Folder | None = None
) -> Table:
    """Returns the products of a table.

    Args:
      path: of the file.
      columns: which column is what, {part of `Roles`: column or columns}; without it the columns are recognised.
      form: how the file is written; None finds out.
      folder: of pictures, to look for files that are named after a column's values where no column names pictures.

    Returns:
      The `Table`.

    Raises:
      InputError: the file is not a table, or has no columns to make listings from; the message lists its columns.
    """
    path = pathlib.Path(path)
    sheet = reading.read(path, form, most=1 if columns else _SAMPLE)
    if columns:
        parts = roles.Roles(**roles.of(columns, list(sheet.columns), str(path)))
        recognised = Recognised(parts, {name: parts.part(name) or "not used" for name in sheet.columns})
    else:
        recognised = recognising.recognise(sheet)
        if folder is not None and not recognised.roles.image:
            recognised = recognising.with_files(recognised, sheet, folder)
    parts = recognised.roles
    if not sheet.whole:
        sheet = reading.read(path, sheet.form, parts.columns())
    titles = recognising.main_titles(sheet.columns, parts.title, parts.language)
    pictures = [
        [one for name in parts.image for one in references.split(sheet.columns[name][row])] for row in range(len(sheet))
    ]
    if parts.files_named_by and folder is not None:
        keys = [facts.clean(value) for value in sheet.columns[parts.files_named_by]]
        files = folder.named_after(key for key in keys if key)
        pictures = [files.get(key, []) for key in keys]
    # Pictures are the same where their paths are: "?v=2" is a version, not another picture.
    same = [[references.loose(references.path(one)) for one in own] for own in pictures]
    rows = grouping.Rows(sheet.columns, parts, len(sheet))
    rows.titles = [text(title) for title in titles]
    totals = _take_totals_out(rows, pictures)
    grouped = grouping.group(rows, same)
    seen: set[tuple[int, str]] = set()
    named, repeated = [], 0
    for row, number in enumerate(grouped.of_row):
        for reference, key in zip(pictures[row], same[row], strict=True):
            repeated += (number, key) in seen
            if (number, key) not in seen:
                seen.add((number, key))
                named.append(Named(number, row, reference))
    lines = [sheet.lines[row] for row in grouped.orphans]
    products = _products(sheet, recognised, rows, grouped.of_row)
    for row, number in enumerate(grouped.of_row):
        if number < 0:
            reason = TOTAL if row in totals else NOTHING
            sheet.set_aside.append((sheet.lines[row], reason, "the row is not a product"))
    return Table(
        path, sheet, recognised, products, grouped.of_row, named, repeated, grouped.refused, grouped.apart, lines
    )


def addresses(path, columns: Mapping[str, Any] | None = None) -> list[tuple[str, str]]:
    """Returns the (product, address) pairs of a table, each once, in the order of its rows.

    Args:
      path: of the file.
      columns: see `load`.

    Raises:
      InputError: see `load`; or no column names pictures by address.
    """
    table = load(path, columns)
    pairs = {
        (table.products[one.product].key, one.reference): None
        for one in table.named
        if references.is_address(one.reference)
    }
    if not pairs:
        raise InputError(f"{path}: no column names pictures by address; its columns are {listed(table.recognised)}")
    return list(pairs)


def listed(recognised: Recognised) -> str:
    """Returns the columns of a table with what was seen in each, for a message."""
    return ", ".join(f"{name!r} ({seen})" for name, seen in recognised.seen.items())


def text(value: str) -> str:
    """Returns a title as people read it: without tags, HTML entities and repeated blanks."""
    for _ in range(2):  # some systems escape twice
        value = html.unescape(value)
    return " ".join(re.sub(r"</?[a-zA-Z][^<>]*>", " ", value).split())


def _take_totals_out(rows: grouping.Rows, pictures: list[list[str]]) -> set[int]:
    """Empties rows such as "Total: 27 items" below the last row with a picture, and returns them."""
    found = set()
    totals = re.compile(rf"(?:{'|'.join(map(re.escape, words.values('total')))})[\s:：]*(?:\d.*)?", re.DOTALL)
    last = max((row for row in range(rows.size) if pictures[row]), default=-1)
    for row in range(last + 1, rows.size):
        own = (rows.keys[row], rows.titles[row], rows.ids[row])
        if any(totals.fullmatch(value.casefold().strip()) for value in own):
            rows.keys[row] = rows.titles[row] = rows.ids[row] = ""
            found.add(row)
    return found


def _products(sheet: Sheet, recognised: Recognised, rows: grouping.Rows, of_row: list[int]) -> list[Product]:
    """Returns the products in the order of their first rows; its own row counts before its variants'."""
    paths = [""] * len(sheet)
    if recognised.roles.categories:
        paths = categories.names([sheet.columns[name] for name in recognised.roles.categories])[1]
    of: dict[int, list[int]] = collections.defaultdict(list)
    for row, number in enumerate(of_row):
        if number >= 0:
            of[number].append(row)
    out, taken = [], set()
    for number in sorted(of):
        own = sorted(of[number], key=lambda row: (rows.kinds[row] == "child", rows.kinds[row] != "joining", row))
        title = next((rows.titles[row] for row in own if rows.titles[row]), "")
        path = next((paths[row] for row in own if paths[row]), "")
        known = [keys[row] for keys in (rows.keys, rows.ids) for row in own if keys[row]]
        key = _key(known[0] if known else title, taken) if known or title else _key(f"row-{sheet.lines[own[0]]}", taken)
        taken.add(key)
        out.append(Product(key, title, path, of[number][0]))
    return out


def _key(value: str, taken: set[str]) -> str:
    """Returns a key as an id may be: without blanks and invisible characters, short, and not taken."""
    printed = "".join("_" if unicodedata.category(letter)[0] in "CZ" else letter for letter in value.strip())
    base = key = re.sub(r"_+", "_", printed)[:_LONGEST_KEY] or "product"
    number = 2
    while key in taken:
        key, number = f"{base}~{number}", number + 1
    return key
