"""Finds bad rows of a catalogue's files, with a sentence for each, and counts, sets aside or refuses them."""

from __future__ import annotations

import collections
import dataclasses
import logging
import os
import re
from collections.abc import Iterable
from concurrent import futures
from typing import Any

import numpy as np
import polars as pl
import tqdm

from retrieval_jax import brief, output
from retrieval_jax.data.pictures import decoding, sources
from retrieval_jax.data.tables import set_aside_file
from retrieval_jax.data.tables import values as values_lib
from retrieval_jax.errors import InputError, short

_log = logging.getLogger(__name__)

_CHUNK = 256  # pictures per thread between progress updates
LONGEST_ID = 1_000  # characters
LONGEST_TITLE = 10_000  # a longer one is damage or a page of text, and its words would swamp the others' counts

# Characters that do not print: blanks, controls, joiners, direction marks, a byte-order mark.
_UNSEEN = r"[\s\p{Cc}\p{Cf}\p{Z}]"


@dataclasses.dataclass
class Rows:
    """The rows of one split, table or the ground truth as they are in their files.

    Attributes:
      name: of the split or table.
      frame: polars frame of text columns under our names: id, title, image, product, category_0, ...
      files: names of the files, as the user knows them.
      file_of: int32 [n], which file each row comes from.
      line: int64 [n], the row's number as the user sees it: the line in CSV (the header is line 1) and JSONL, the row
        in Parquet (from 1).
      bad: row -> (reason, sentence); the first thing wrong with a row counts.
    """

    name: str
    frame: pl.DataFrame
    files: list[str]
    file_of: np.ndarray
    line: np.ndarray
    bad: dict[int, tuple[str, str]] = dataclasses.field(default_factory=dict)

    __repr__ = brief.line

    def __len__(self) -> int:
        return len(self.line)

    def mark(self, row: int, reason: str, detail: str) -> None:
        """Marks a row as bad, unless it already is.

        Args:
          row: its number, from 0.
          reason: a few words to count by.
          detail: what is wrong and what to do; the sentence also names file, row and id.
        """
        if row not in self.bad:
            listing = f" (id {short(self.id(row))})" if self.id(row) else ""
            sentence = f"{self.files[self.file_of[row]]}, row {self.line[row]}{listing}: {detail}"
            self.bad[row] = (reason, output.visible(sentence))

    def id(self, row: int) -> str:
        """Returns the id of a row, "" where it has none."""
        return (self.frame["id"][row] or "") if "id" in self.frame.columns else ""

    def good(self) -> np.ndarray:
        """Returns bool [n], True for rows that are not marked as bad."""
        mask = np.ones(len(self), bool)
        mask[np.fromiter(self.bad, np.int64, len(self.bad))] = False
        return mask


def check_ids(rows: Rows, *, unique: bool = True) -> None:
    """Repairs ids (see `values.cell`), and marks rows whose id is empty, has a blank (lists of ids are blank-separated)
    or another invisible character, is very long, has lost digits in a spreadsheet, or is a duplicate.

    Args:
      rows: rows of one file or split; bad ones are marked.
      unique: whether an id may occur once only.
    """
    ids = values_lib.cells(rows.frame["id"])
    rows.frame = rows.frame.with_columns(id=ids)
    for row in np.flatnonzero(values_lib.nulls(ids, placeholders=True)):
        what = f"{ids[int(row)]!r}, which means empty" if ids[int(row)].strip() else "empty"
        rows.mark(int(row), "empty id", f"the id is {what}; give every listing an id of its own")
    for row in np.flatnonzero(ids.str.contains(r"\s").to_numpy()):
        rows.mark(int(row), "blank in id", f"the id {short(ids[int(row)])!r} contains a blank; remove it")
    for row in np.flatnonzero(ids.str.contains(_UNSEEN).to_numpy()):
        rows.mark(
            int(row),
            "invisible character in id",
            f"the id {short(ids[int(row)])!a} contains an invisible character; remove it",
        )
    for row in np.flatnonzero((ids.str.len_chars() > LONGEST_ID).to_numpy()):
        rows.mark(
            int(row),
            "id too long",
            f"the id has {len(ids[int(row)]):,} characters, at most {LONGEST_ID:,}; "
            "a column or a quote may be out of place",
        )
    for row, (kind, what) in values_lib.flaws(ids).items():
        rows.mark(row, f"{kind} id", f"the id {ids[row]!r} {what}")
    if not unique:
        return
    repeated = np.flatnonzero((~ids.is_first_distinct()).to_numpy())
    if len(repeated):
        first = {
            ids[int(row)]: int(row)
            for row in np.flatnonzero((ids.is_first_distinct() & ids.is_duplicated()).to_numpy())
        }
        for row in repeated:
            before = first[ids[int(row)]]
            rows.mark(
                int(row),
                "duplicate id",
                f"the id is the same as in row {rows.line[before]} of {rows.files[rows.file_of[before]]}; "
                "remove one of them",
            )


def check_products(rows: Rows) -> None:
    """Repairs products (see `values.cell`), empties null words, and marks rows whose product has lost
    digits in a spreadsheet: equal ones would be right answers of each other.

    Args:
      rows: rows of one split; bad ones are marked.
    """
    products = values_lib.cells(rows.frame["product"])
    for row, (kind, what) in values_lib.flaws(products).items():
        rows.mark(row, f"{kind} product", f"the product {products[row]!r} {what}")
    empty = pl.Series(values_lib.nulls(products, placeholders=True))
    words = products.filter(empty & (products.str.strip_chars() != "")).value_counts(sort=True).head(3)
    if len(words):
        listed = ", ".join(f"{short(word)!r} ({count:,} rows)" for word, count in words.iter_rows())
        _log.info("the %s split: %s in the column of products says that there is none", rows.name, listed)
    rows.frame = rows.frame.with_columns(product=products.set(empty, ""))


def check_titles(rows: Rows, needed: bool) -> None:
    """Marks rows without a title where they need one, or with one too long to be a title.

    Args:
      rows: rows of one split; bad ones are marked, and the title of others is "" where there is none.
      needed: whether a row without a title is a bad one. Listings that are only searched need none.
    """
    titles = rows.frame["title"].fill_null("")
    seen = titles.str.contains(rf"[^{_UNSEEN[1:]}").to_numpy()
    empty = values_lib.nulls(titles, na=False) | ~seen
    for row in np.flatnonzero(empty) if needed else ():
        what = f"{titles[int(row)]!r}, which means empty" if seen[row] else "empty"
        rows.mark(int(row), "empty title", f"the title is {what}; add one or remove the row")
    if not needed:
        rows.frame = rows.frame.with_columns(title=titles.set(pl.Series(empty), ""))
    for row in np.flatnonzero((titles.str.len_chars() > LONGEST_TITLE).to_numpy()):
        rows.mark(
            int(row),
            "title too long",
            f"the title has {len(titles[int(row)]):,} characters, at most "
            f"{LONGEST_TITLE:,}; a quote may be left open; shorten it",
        )


def check_splits(split: Rows, others: list[Rows]) -> None:
    """Marks rows whose id is also in another split: what is searched or scored must not be trained on.

    Args:
      split: rows of one split; bad ones are marked.
      others: the splits that it may share no id with.
    """
    ids = split.frame["id"]
    for other in others:
        shared = ids.is_in(other.frame["id"].drop_nulls().implode()) if len(other) else pl.Series([False] * len(split))
        for row in np.flatnonzero(shared.fill_null(False).to_numpy()):
            rows_id = ids[int(row)]
            if rows_id:
                split.mark(
                    int(row),
                    "id in two splits",
                    f"the {other.name} split also has this id; remove the listing from "
                    f"either {split.name} or {other.name}",
                )


def encode_categories(
    rows: Rows, column: str, level: str, known: list[str], declared: bool, where: str, mark: bool
) -> np.ndarray:
    """Turns a column of category ids into rows of `known`.

    Args:
      rows: rows of the split.
      column: of the frame.
      level: name of the level, for messages.
      known: the existing categories.
      declared: whether ids are declared to be whole numbers.
      where: what `known` was taken from, for messages.
      mark: whether an unknown category makes a bad row; otherwise it is just -1.

    Returns:
      int32 [n], -1 where unknown.
    """
    values = values_lib.cells(rows.frame[column])
    empty = values_lib.nulls(values)
    found = np.where(empty, -1, places(values, known)).astype(np.int32)
    unknown = np.flatnonzero(found < 0) if mark else ()
    near = values_lib.near((values[int(row)] for row in unknown if not empty[row]), known)
    for row in unknown:
        value = values[int(row)]
        if empty[row]:
            what = f"{value!r}, which means empty" if value.strip() else "empty"
            rows.mark(int(row), "empty category", f"{level} is {what}; add a category or remove the row")
        elif declared and not is_whole(value):
            rows.mark(
                int(row),
                "category is not a whole number",
                f"{level} is {short(value)!r}, but category ids must be whole numbers; correct it",
            )
        else:
            rows.mark(
                int(row),
                "unknown category",
                f"{level} {short(value)!r} does not occur in {where}{values_lib.there_is(near, value)}; correct it",
            )
    return found


def places(values: pl.Series, known: list[str]) -> np.ndarray:
    """Returns the positions of values in a list of known ones, int32 [n], -1 for others.

    Args:
      values: n texts.
      known: distinct texts.
    """
    place = pl.DataFrame({"value": pl.Series(known, dtype=pl.String), "place": np.arange(len(known), dtype=np.int32)})
    found = values.rename("value").to_frame().join(place, on="value", how="left", maintain_order="left")["place"]
    return found.fill_null(-1).to_numpy().astype(np.int32)


def by_value(values: Iterable[str]) -> list[str]:
    """Returns texts in order: by number where all are whole numbers, else by text."""
    values = list(values)
    # 7 and 07 are two texts of equal value, and the values come in any order
    whole = all(map(is_whole, values))
    return sorted(values, key=lambda value: (int(value), value) if whole else value)


def is_whole(text: str) -> bool:
    """Returns whether a text is a whole number of at most 18 digits."""
    return re.fullmatch(r"-?[0-9]{1,18}", text) is not None


def check_images(rows: Rows, root: Any, max_pixels: int, whole: bool = False) -> None:
    """Marks rows whose picture is missing, truncated, not a picture, too large or outside the root.

    Args:
      rows: rows of one split; bad ones are marked.
      root: folder of the pictures.
      max_pixels: of the largest picture that is accepted.
      whole: whether every picture is decoded, which also finds damage between header and end.
    """
    real, folders = os.path.realpath(root), {}
    images = rows.frame["image"].fill_null("").to_list()
    to_do = np.flatnonzero(rows.good())

    def look(start: int) -> list[tuple[int, decoding.BadImage]]:
        found = []
        for row in to_do[start : start + _CHUNK].tolist():
            if not images[row].strip():
                found.append((row, None))
            elif problem := sources.check(real, images[row], max_pixels, folders, whole):
                found.append((row, problem))
        return found

    with (
        futures.ThreadPoolExecutor(min(16, 4 * (os.cpu_count() or 1))) as pool,
        tqdm.tqdm(total=len(to_do), desc=f"data: {rows.name} pictures", unit="picture", mininterval=1, delay=1) as bar,
    ):
        for found in pool.map(look, range(0, len(to_do), _CHUNK)):
            for row, problem in found:
                if problem is None:
                    rows.mark(row, "empty image path", "the path of the picture is empty; add it or remove the row")
                else:
                    rows.mark(row, problem.reason, problem.sentence(images[row]))
            bar.update(min(_CHUNK, len(to_do) - bar.n))


def settle(
    tables: list[Rows], max_bad_share: float, set_aside_path: Any, not_held: frozenset[str] = frozenset()
) -> tuple[dict, list[dict]]:
    """Counts bad rows, writes them to a file, and refuses the catalogue if a file has too many.

    Args:
      tables: all splits, tables and the ground truth, checked.
      max_bad_share: largest share of a file's rows, 0 to 1, that is set aside instead of refused.
      set_aside_path: CSV that receives the bad rows, or None.
      not_held: reasons that do not count towards the share, such as a row that depends on a bad row of another file.

    Returns:
      (counts, set_aside) of `catalog.Catalog`.

    Raises:
      InputError: more bad rows than the share; the message has counts by reason and the first sentences.
    """
    counts, set_aside, refused, sentences = {}, [], [], []
    for rows in tables:
        files = {file: {"read": int((rows.file_of == i).sum()), "set_aside": {}} for i, file in enumerate(rows.files)}
        for row in sorted(rows.bad):
            reason, sentence = rows.bad[row]
            file = rows.files[rows.file_of[row]]
            set_aside.append(
                {"file": file, "row": int(rows.line[row]), "id": rows.id(row), "reason": reason, "sentence": sentence}
            )
            files[file]["set_aside"][reason] = files[file]["set_aside"].get(reason, 0) + 1
        for file, count in files.items():
            held = {reason: n for reason, n in count["set_aside"].items() if reason not in not_held}
            count["kept"] = count["read"] - sum(count["set_aside"].values())
            if sum(held.values()) > max_bad_share * count["read"] + 1e-9:
                listed = ", ".join(
                    f"{reason} {n:,}" for reason, n in sorted(held.items(), key=lambda item: (-item[1], item[0]))
                )
                refused.append(f"{file}: {sum(held.values()):,} of {count['read']:,} rows are bad ({listed})")
                sentences += [
                    entry["sentence"] for entry in set_aside if entry["file"] == file and entry["reason"] in held
                ][:10]
        total = collections.Counter()
        for count in files.values():
            total.update(count["set_aside"])
        counts[rows.name] = {
            "read": len(rows),
            "kept": len(rows) - len(rows.bad),
            "set_aside": dict(sorted(total.items())),
            "files": files,
        }
    if set_aside_path is not None:
        set_aside_file.write(set_aside_path, set_aside)
    if refused:
        more = f"\nAll {len(set_aside):,} are listed in {set_aside_path}." if set_aside_path is not None else ""
        raise InputError(
            "too many bad rows (at most a share of {:g} of a file may be set aside):\n  {}\nThe first are:\n  {}{}\n"
            "Fix the rows, or raise config.data.kwargs.max_bad_share to leave them out.".format(
                max_bad_share, "\n  ".join(refused), "\n  ".join(sentences[:10]), more
            )
        )
    if set_aside:
        by_reason = collections.Counter(entry["reason"] for entry in set_aside)
        listed = ", ".join(f"{reason} {n:,}" for reason, n in by_reason.most_common())
        _log.warning(
            "set aside %s bad rows: %s%s",
            f"{len(set_aside):,}",
            listed,
            f" (see {set_aside_path})" if set_aside_path is not None else "",
        )
    return counts, set_aside
