"""Loads Polyvore Outfits in its own layout: outfits, compatibility questions and blanks to fill in, as published.

    {disjoint,nondisjoint}/{train,valid,test}.json            [{"set_id": s, "items": [{"item_id": i, "index": n}]}]
    {...}/compatibility_{valid,test}.txt                       1 or 0, then items as "s_n", blanks between
    {...}/fill_in_blank_{valid,test}.json                      [{"question": ["s_n"], "answers": ["s_n"]}]
    polyvore_item_metadata.json                                {i: {"semantic_category": ..., "title", "url_name"}}
    images/<i>.jpg

The right answer of a blank is the one of the question's own set. Splits are train, val (valid) and gallery (test); an
item that two splits show is a listing of each. Items of the same type are interchangeable: the type is
`semantic_category`, as in the published code of type-aware embeddings. The data set has no search queries; so that a
run can embed and search, the first item of every valid outfit is one, without right answers.
"""

from __future__ import annotations

import dataclasses
import logging
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np

from retrieval_jax.data.catalog import Catalog, Table
from retrieval_jax.data.edits import rows as rows_lib
from retrieval_jax.data.pictures.decoding import MAX_PIXELS
from retrieval_jax.data.tables import loading, text_rows
from retrieval_jax.data.tables.building import Beyond, build
from retrieval_jax.data.tables.left_out import Listed
from retrieval_jax.errors import InputError, short
from retrieval_jax.files import documents

PARTS = {"train": "train", "val": "valid", "gallery": "test"}  # our splits: theirs
VERSIONS = ("nondisjoint", "disjoint")
_log = logging.getLogger(__name__)
_REMEDY = "unpack the files of Polyvore Outfits again"


class _Item(TypedDict):
    """An item of an outfit."""

    item_id: str
    index: int


class _Set(TypedDict):
    """An outfit."""

    set_id: str
    items: list[_Item]


class _Blank(TypedDict):
    """A question."""

    question: list[str]
    answers: list[str]


def load_polyvore(
    root: str,
    version: str = "nondisjoint",
    max_bad_share: float = 0.0,
    max_pixels: int = MAX_PIXELS,
    check_images: bool | str = True,
    decode_at_least: int | None = None,
    leave_out: Sequence[Listed] = (),
    set_aside_path: Any = None,
) -> Catalog:
    """Loads Polyvore Outfits.

    Args:
      root: folder with polyvore_item_metadata.json, images/ and the folders of the versions.
      version: "nondisjoint", or "disjoint", where no item of train is in an outfit of valid or test.
      max_bad_share, max_pixels, check_images, decode_at_least, leave_out, set_aside_path: see
        `tables.loading.load_eproduct`.

    Returns:
      The `Catalog`: ids are "<split>-<item>", titles those of the metadata, and the category is the semantic one.
      Tables: "outfits" about train (all that were worn), val and gallery (the compatibility questions, 1 and 0, or the
      outfits where that file is missing); "blanks" about val and gallery: listings int64 [n, k], -1 past the end,
      answers int64 [n, c], and right int64 [n], the place of the right one.

    Raises:
      InputError: see `data.loading.load`; a question that names an item of no outfit, or has not one right answer.

    Source: Vasileva et al., "Learning Type-Aware Embeddings for Fashion Compatibility", ECCV 2018.
    """
    loading.check_arguments(root, max_bad_share, check_images)
    if version not in VERSIONS:
        raise InputError(f"config.data.kwargs.version is {version!r}; give {' or '.join(VERSIONS)}")
    folder = pathlib.Path(root)
    about = documents.read(
        folder / "polyvore_item_metadata.json", dict[str, dict[str, Any]], remedy=_REMEDY, most_bytes=2**31
    )
    splits, outfits, items, found = {}, rows_lib.empty("outfits", "id", "listings", "compatible"), {}, {}
    for split, part in PARTS.items():
        if not (folder / version / f"{part}.json").exists():
            continue
        name = f"{version}/{part}.json"
        found[split] = documents.read(folder / name, list[_Set], remedy=_REMEDY, most_bytes=2**31)
        items[split] = {f"{one['set_id']}_{item['index']}": f"{split}-{item['item_id']}"
                        for one in found[split] for item in one["items"]}  # fmt: skip
        splits[split] = _listings(split, name, items[split].values(), about)
    if not splits:
        raise InputError(f"{folder / version}: there is no train.json, valid.json or test.json; {_REMEDY}")
    if "val" in splits:
        first = [f"query-{one['items'][0]['item_id']}" for one in found["val"] if one["items"]]
        splits["query"] = _listings("query", f"{version}/valid.json", first, about)
    for split, part in PARTS.items():
        if split in splits:
            _outfits(outfits, folder, version, part, found[split], items[split], split)
    rows = {split: listings.rows() for split, listings in splits.items()}
    catalog = build(
        folder.resolve().name,
        rows,
        ("category",) if "train" in rows else (),
        (max_bad_share, set_aside_path),
        *loading.picture_files(folder / "images", rows, max_pixels, check_images, decode_at_least),
        leave_out=leave_out,
        beyond=Beyond(tables={"outfits": outfits.rows()}),
    )
    blanks = {}
    for split in ("val", "gallery"):
        file = folder / version / f"fill_in_blank_{PARTS[split]}.json"
        if split in splits and file.exists():
            blanks[f"blanks/{split}"] = _blanks(file, catalog.split(split), items[split], split)
    return dataclasses.replace(catalog, tables={**catalog.tables, **blanks})


def _listings(split: str, name: str, items: Iterable[str], about: Mapping[str, Mapping]) -> rows_lib.Gathered:
    """Returns the items of a split, each once."""
    found = rows_lib.empty(split, "id", "image", "title", "category_0")
    found.files.append(name)
    for number, item in enumerate(dict.fromkeys(items), 1):
        own = item.removeprefix(f"{split}-")
        facts = about.get(own, {})
        kind = str(facts.get("semantic_category") or "")
        title = " ".join(str(facts.get("title") or facts.get("url_name") or kind).split())
        wrong = None
        if not kind:
            wrong = "missing value", f"the metadata have no semantic_category for the item {short(own)!r}; {_REMEDY}"
        found.add(number, wrong, id=item, image=f"{own}.jpg", title=title, category_0=kind)
    return found


def _outfits(rows: rows_lib.Gathered, folder, version: str, part: str, found, items: Mapping[str, str], split) -> None:
    """Adds the outfits of a split: the compatibility questions where they are published, what was worn elsewhere."""
    name = f"{version}/compatibility_{part}.txt"
    if split == "train" or not (folder / name).exists():
        rows.files.append(f"{version}/{part}.json")
        for number, one in enumerate(found, 1):
            listings = " ".join(f"{split}-{item['item_id']}" for item in one["items"])
            rows.add(number, id=str(one["set_id"]), listings=listings, compatible="1")
        return
    rows.files.append(name)
    for number, line in text_rows.lines(folder / name, name, "utf-8"):
        label, *named = line.split() or [""]
        unknown = [one for one in named if one not in items]
        wrong = None
        if unknown:
            wrong = "unknown listing", f"{short(unknown[0])!r} is in no outfit of {part}.json; correct the line"
        listings = "" if unknown else " ".join(items[one] for one in named)
        rows.add(number, wrong, id=f"{part} {number}", listings=listings, compatible=label)


def _blanks(file: pathlib.Path, split, items: Mapping[str, str], name: str) -> Table:
    """Returns the published questions as a table; logs how many are about listings that were set aside."""
    row_of = {item: row for row, item in enumerate(split.ids)}
    listings, answers, right, left_out = [], [], [], 0
    for number, one in enumerate(documents.read(file, list[_Blank], remedy=_REMEDY, most_bytes=2**31), 1):
        where = f"{file}: question {number}"
        if unknown := [item for item in (*one["question"], *one["answers"]) if item not in items]:
            raise InputError(f"{where} names {short(unknown[0])!r}, which is in no outfit; {_REMEDY}")
        own = {item.rpartition("_")[0] for item in one["question"]}
        places = [at for at, item in enumerate(one["answers"]) if item.rpartition("_")[0] in own]
        if len(places) != 1:
            raise InputError(f"{where} has {len(places)} answers of its own outfit, expected one; {_REMEDY}")
        rows = [[row_of.get(items[item], -1) for item in one[key]] for key in ("question", "answers")]
        if min(*rows[0], *rows[1]) < 0:
            left_out += 1
            continue
        listings.append(rows[0])
        answers.append(rows[1])
        right.append(places[0])
    if left_out:
        _log.warning("%s: %s questions about listings that were set aside are left out", file, f"{left_out:,}")
    if not listings:
        raise InputError(f"{file} has no question about listings that were kept; {_REMEDY}")
    if len({len(one) for one in answers}) > 1:
        raise InputError(f"{file}: not all questions have the same number of answers; {_REMEDY}")
    width = max(map(len, listings))
    padded = np.array([one + [-1] * (width - len(one)) for one in listings], np.int64)
    columns = {"listings": padded, "answers": np.array(answers, np.int64), "right": np.array(right, np.int64)}
    return Table(columns, {"listings": name, "answers": name})
