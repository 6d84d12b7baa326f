"""The embedded catalogue's columns and tables: true, deterministic, and computed only where they are asked for."""

import time

import numpy as np
import pytest

from retrieval_jax.data.shop import loading, synthetic, wording
from retrieval_jax.errors import InputError

SIZES = {"num_train": 900, "num_val": 60, "num_query": 40, "num_gallery": 560}
TABLES = {"num_clicks": 60, "num_outfits": 4, "num_typed": 20, "num_edits": 60}


@pytest.fixture(scope="module")
def shop():
    return loading.load(**SIZES, **TABLES)


def test_columns_are_the_true_attributes(shop):
    names = shop.column_names
    for name in ("train", "val", "query", "gallery", "photo"):
        split = shop.split(name)
        rows = np.arange(len(split))
        truth = synthetic.attributes(synthetic.make_shop(**SIZES), name, rows)
        for column, key in (("colour", "colour"), ("second_colour", "second"), ("brand", "brand"), ("style", "style")):
            assert split.columns[column].dtype == np.int32 and split.columns[column].max() < len(names[column])
            np.testing.assert_array_equal(split.columns[column], truth[key])
        for row in (0, 7, len(split) - 1):
            category = wording.CATEGORIES[truth["category"][row]]
            has = [part for part, key in ((category[4], "part1"), (category[5], "part2")) if truth[key][row]]
            assert [names["parts"][part] for part in split.columns["parts"][row]] == has
    assert list(shop.query.column("pattern")) == list(shop.query.columns["pattern"])
    assert shop.train.column("title") is shop.train.titles


def test_an_unknown_column_or_table_is_named_with_near_ones(shop):
    with pytest.raises(InputError, match="the train split has no column 'color'; did you mean colour"):
        shop.train.column("color")
    with pytest.raises(InputError, match="the query split has no column 'title'"):
        shop.query.column("title")
    with pytest.raises(InputError, match=r"no table 'clicks' about the val split \(tables: clicks/train, "):
        shop.table("clicks", "val")


def test_nothing_is_computed_at_load(monkeypatch):
    for name in ("attributes", "boxes", "picture", "uniform", "generator"):
        if name != "uniform":  # categories are drawn from it
            monkeypatch.setattr(synthetic, name, None)
    begin = time.process_time()
    found = loading.load()
    assert time.process_time() - begin < 1
    assert set(found.train.columns) == {*found.column_names, "box"} and "edits/train" in found.tables
    assert len(found.tables) == 11 and not found.tables._made and not found.train.columns._made


def test_listings_have_products_where_they_are_asked_for():
    found = loading.load(**SIZES, products=True)
    for name in ("train", "gallery"):
        split, numbers = found.split(name), synthetic.product_ids(synthetic.make_shop(**SIZES), name, np.arange(40))
        assert list(split.column("product"))[:40] == [f"product-{number}" for number in numbers.tolist()]
    with pytest.raises(InputError, match="products='yes', expected True or False"):
        loading.load(**SIZES, products="yes")


def test_boxes_are_those_of_the_pictures(shop):
    np.testing.assert_array_equal(
        shop.query.columns["box"], synthetic.boxes(synthetic.make_shop(**SIZES), "query", range(40))
    )


def test_tables_refer_to_listings(shop):
    for key in shop.tables:
        if key in ("outfits/val", "outfits/gallery"):
            continue  # too few listings for outfits
        table = shop.tables[key]
        split = key.split("/")[1]
        assert set(table.rows_of.values()) <= {split, "query", "photo"}
        for column, rows_of in table.rows_of.items():
            values = table.columns[column]
            values = values.values if hasattr(values, "values") else values
            assert values.dtype == np.int64 and 0 <= values.min() and values.max() < len(shop.split(rows_of))
    clicks = shop.table("clicks", "train").columns
    assert len(clicks["photo"]) == 60 and shop.photo.images[clicks["photo"][3]].shape == (64, 64, 3)
    assert not set(clicks["clicked"][0].tolist()) & set(clicks["unclicked"][0].tolist())
    queries = shop.table("queries", "gallery").columns
    assert len(queries["text"]) == 20 and queries["count"].indptr.tolist() == queries["clicked"].indptr.tolist()
    with pytest.raises(InputError, match="too few for outfits"):
        shop.table("outfits", "val")
