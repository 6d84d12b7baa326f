"""Loads the embedded catalogue: splits, truth, true attributes, and tables of what its shoppers do."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from retrieval_jax import arguments, pairs
from retrieval_jax.data import catalog
from retrieval_jax.data.catalog import Lazy, Split, Table
from retrieval_jax.data.examples import Ragged
from retrieval_jax.data.pictures import sources
from retrieval_jax.data.shop import edits, liked, shoppers, synthetic, typed, wording
from retrieval_jax.data.shop.synthetic import Shop
from retrieval_jax.errors import InputError
from retrieval_jax.scoring import ranking

QUERIES = ("photos", "typed", "edits")
PARTS = tuple(sorted({part for row in wording.CATEGORIES for part in row[4:6]}))
COLUMN_NAMES = {
    "colour": list(wording.COLOURS),
    "second_colour": list(wording.COLOURS),
    "pattern": list(wording.PATTERNS),
    "material": list(wording.MATERIALS),
    "brand": [row[0] for row in wording.BRANDS],
    "style": list(wording.STYLES),
    "parts": list(PARTS),
}
EDITED = ("colour", "pattern", "material", "parts")  # edits.FIELDS, as the columns of listings are called


def load(queries: str = "photos", products: bool = False, **kwargs: Any) -> catalog.Catalog:
    """Builds the embedded catalogue.

    Args:
      queries: "photos", shoppers' photos of gallery products; or "typed", words (`typed.queries`): the query split then
        has the text column "query" and the attribute "kind" and no pictures, the table "queries" has no held-out
        combination, and listings have the text column "product", which is equal for those of one product; or "edits",
        a gallery listing's picture with words that say what should be different (`edits.edits`): the query
        split then has the text columns "words", "reference" (the listing's id), "wanted" and "unwanted", and the
        attributes "edited", "kind", "phrasing" and "combination"; the tables "edits" have no wording and no pair of
        value and category that is kept for scoring, and listings have "product" too.
      products: whether all listings have the text column "product" beside photos as well.
      **kwargs: the fields of `synthetic.Shop`.

    Returns:
      A `Catalog` with lazy ids, titles, pictures, columns and tables; query titles are None, as a shopper's photo has
      none. Columns of every split: those of COLUMN_NAMES, and "box"; with biased clicks, listings also have those of
      `liked.NAMES`, and the table "clicks" places. Tables: "clicks" about train (from photos of the
      split "photo") and gallery (from the queries); "queries", "outfits" and "edits" about train, val and gallery.

    Raises:
      InputError: an unknown argument, a negative size, or queries without a gallery.
    """
    if queries not in QUERIES:
        raise InputError(f"queries of the embedded catalogue is {queries!r}{pairs.near(queries, QUERIES)}")
    shop = synthetic.make_shop(**kwargs)
    if queries == "typed":
        return _with_typed(shop)
    if queries == "edits":
        return _with_edits(shop)
    found = _with_photos(shop)
    if arguments.flag(products, "products", "the embedded catalogue"):
        _name_products(shop, found)
    return found


def _with_photos(shop: Shop) -> catalog.Catalog:
    splits = {name: _split(shop, name) for name in catalog.SPLITS if shop.size(name)}
    truth = None
    if shop.num_query:
        indptr, rows = synthetic.relevant(shop)
        truth = ranking.Truth(
            query_ids=splits["query"].ids, gallery_ids=splits["gallery"].ids, indptr=indptr, rows=rows
        )
    return catalog.Catalog(
        name="synthetic",
        **splits,
        truth=truth,
        category_levels=synthetic.LEVELS,
        category_names=(list(wording.TOPS), list(wording.MIDDLES), list(wording.LEAVES)),
        counts={name: {"read": len(split), "kept": len(split), "set_aside": {}} for name, split in splits.items()},
        photo=_split(shop, catalog.PHOTO) if shop.num_train else None,
        column_names=COLUMN_NAMES,
        tables=_tables(shop),
    )


def _with_typed(shop: Shop) -> catalog.Catalog:
    """Returns the catalogue with typed queries in place of photos."""
    found = _with_photos(dataclasses.replace(shop, num_query=0))
    tables = {name: table for name, table in found.tables.makers.items() if not name.startswith("queries/")}
    for name in ("train", "val"):
        if shop.size(name):
            tables[f"queries/{name}"] = functools.partial(_clicked, shop, name)
    _name_products(shop, found)
    if not shop.num_query:
        return dataclasses.replace(found, tables=Lazy(tables, f"{_tables_of(shop)} typed"))
    asked = typed.queries(shop)
    ids = [f"typed-{number:05d}" for number in range(shop.num_query)]
    none = sources.NoPictures(len(ids), "query")
    split = Split("query", ids, None, None, none, columns={"query": asked.texts, "kind": asked.kinds})
    return dataclasses.replace(
        found,
        query=split,
        truth=ranking.Truth(ids, found.gallery.ids, asked.indptr, asked.rows),
        counts={**found.counts, "query": {"read": len(ids), "kept": len(ids), "set_aside": {}}},
        column_names={**COLUMN_NAMES, "kind": list(typed.KINDS)},
        tables=Lazy(tables, f"{_tables_of(shop)} typed"),
    )


def _with_edits(shop: Shop) -> catalog.Catalog:
    """Returns the catalogue with edits in place of photos."""
    found = _with_photos(dataclasses.replace(shop, num_query=0))
    tables = {name: table for name, table in found.tables.makers.items() if name != "edits/gallery"}
    _name_products(shop, found)
    found = dataclasses.replace(found, tables=Lazy(tables, f"{_tables_of(shop)} edits"))
    if not shop.num_query:
        return found
    asked = edits.edits(shop, shop.num_query, "gallery", scored=True)
    ids = [f"edit-{number:05d}" for number in range(shop.num_query)]
    columns = {
        "words": asked.words,
        "reference": [found.gallery.ids[row] for row in asked.references.tolist()],
        "wanted": asked.wanted,
        "unwanted": asked.unwanted,
        "edited": asked.fields,
        "kind": asked.kinds,
        "phrasing": asked.wordings,
        "combination": asked.pairs,
    }
    pictures = synthetic.Column(shop, "query", functools.partial(_reference_picture, asked.references))
    split = Split("query", ids, None, found.gallery.categories[asked.references], pictures, columns=columns)
    names = {"edited": list(EDITED), "kind": list(edits.KINDS)}
    names |= {"phrasing": list(edits.SEEN), "combination": list(edits.SEEN)}
    return dataclasses.replace(
        found,
        query=split,
        truth=ranking.Truth(ids, found.gallery.ids, asked.indptr, asked.rows),
        counts={**found.counts, "query": {"read": len(ids), "kept": len(ids), "set_aside": {}}},
        column_names={**COLUMN_NAMES, **names},
    )


def _reference_picture(references: np.ndarray, shop: Shop, split: str, row: int) -> np.ndarray:
    return synthetic.picture(shop, "gallery", int(references[row]))[0]


def _name_products(shop: Shop, found: catalog.Catalog) -> None:
    """Gives listings the text column "product"."""
    for name, split in found.splits().items():
        if name != catalog.PHOTO:
            makers = {**split.columns.makers, "product": functools.partial(_products, shop, name)}
            split.columns = Lazy(makers, split.columns.made_of)


def _split(shop: Shop, name: str) -> Split:
    listed = name in ("train", "val", "gallery")  # queries and photos are shoppers' photos, without a title
    return Split(
        name=name,
        ids=synthetic.Column(shop, name, synthetic.listing_id),
        titles=synthetic.Column(shop, name, synthetic.title) if listed else None,
        categories=None if name == catalog.PHOTO else synthetic.categories(shop, name),
        images=synthetic.images(shop, name),
        columns=_columns(shop, name),
    )


def _columns(shop: Shop, split: str) -> Lazy:
    @functools.cache
    def attributes() -> dict[str, Any]:
        truth = synthetic.attributes(shop, split, np.arange(shop.size(split)))
        keys = {name: "second" if name == "second_colour" else name for name in COLUMN_NAMES if name != "parts"}
        found = {name: truth[key].astype(np.int32) for name, key in keys.items()}
        names = np.array([[PARTS.index(part) for part in row[4:6]] for row in wording.CATEGORIES])
        has = np.stack([truth["part1"], truth["part2"]], 1).astype(bool)
        indptr = np.concatenate([[0], np.cumsum(has.sum(1))])
        return found | {"parts": Ragged(indptr, names[truth["category"]][has].astype(np.int32))}

    makers = {name: functools.partial(lambda name: attributes()[name], name) for name in COLUMN_NAMES}
    makers["box"] = lambda: synthetic.boxes(
        shop, split, np.arange(shop.size(split))
    )  # draws every picture of the split
    if shop.biased_clicks and split in ("train", "val", "gallery"):

        @functools.cache
        def numbers() -> dict[str, np.ndarray]:
            return liked.columns(shop, split, np.arange(shop.size(split)))

        makers |= {name: functools.partial(lambda name: numbers()[name], name) for name in liked.NAMES}
    return Lazy(makers, synthetic.made_of(shop, split))


def _tables(shop: Shop) -> Lazy:
    makers = {}
    for split in ("train", "val", "gallery"):
        if not shop.size(split):
            continue
        if split in shoppers.SOURCE and shop.size(shoppers.SOURCE[split]):
            makers[f"clicks/{split}"] = functools.partial(_clicks, shop, split)
        makers[f"outfits/{split}"] = functools.partial(_outfits, shop, split)
        makers[f"queries/{split}"] = functools.partial(_queries, shop, split)
        makers[f"edits/{split}"] = functools.partial(_edits, shop, split)
    return Lazy(makers, _tables_of(shop))


def _tables_of(shop: Shop) -> str:
    """Returns a text that is equal for equal tables."""
    clicks = {"wrong_clicks": shop.wrong_clicks, "biased_clicks": shop.biased_clicks}
    return ", ".join([str(shop), *(f"{name} {value}" for name, value in clicks.items() if value)])


def _clicks(shop: Shop, split: str) -> Table:
    found = shoppers.clicks(shop, shop.num_clicks, split)
    columns = {"photo": found.photos}
    places = np.broadcast_to(np.arange(1, found.shown.shape[1] + 1, dtype=np.int32), found.shown.shape)
    for name, chosen in (("clicked", found.clicked), ("unclicked", ~found.clicked & (found.shown >= 0))):
        indptr = np.concatenate([[0], np.cumsum(chosen.sum(1))])
        columns[name] = Ragged(indptr, found.shown[chosen])
        if shop.biased_clicks:
            columns[f"{name}_position"] = Ragged(indptr, places[chosen])
    return Table(columns, {"photo": shoppers.SOURCE[split], "clicked": split, "unclicked": split})


def _outfits(shop: Shop, split: str) -> Table:
    found = shoppers.outfits(shop, shop.num_outfits, split)
    return Table({"listings": found.rows, "compatible": found.compatible.astype(np.int32)}, {"listings": split})


def _clicked(shop: Shop, split: str) -> Table:
    return _typed_table(typed.clicked(shop, shop.num_typed, split), split)


def _products(shop: Shop, split: str) -> list[str]:
    return [f"product-{number}" for number in synthetic.product_ids(shop, split, np.arange(shop.size(split))).tolist()]


def _queries(shop: Shop, split: str) -> Table:
    return _typed_table(shoppers.text_queries(shop, shop.num_typed, split), split)


def _typed_table(found: shoppers.TextQueries, split: str) -> Table:
    clicked = Ragged(found.indptr, found.rows)
    count = Ragged(found.indptr, found.clicks.astype(np.int32))
    return Table({"text": found.texts, "clicked": clicked, "count": count}, {"clicked": split})


def _edits(shop: Shop, split: str) -> Table:
    found = edits.edits(shop, shop.num_edits, split)
    columns = {"reference": found.references, "words": found.words, "targets": Ragged(found.indptr, found.rows)}
    attributes = {
        "attribute": [EDITED[field] for field in found.fields],
        "kind": [edits.KINDS[kind] for kind in found.kinds],
    }
    columns |= attributes | {"wanted": found.wanted, "unwanted": found.unwanted}
    return Table(columns, {"reference": split, "targets": split})
