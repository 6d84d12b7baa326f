"""The embedded catalogue's columns and tables: true, deterministic, and computed only where they are asked for."""

import time

import numpy as np
import pytest

from retrieval_jax.data.shop import edits, loading, synthetic, wording
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


def test_edits_are_the_same_whatever_their_number(shop):
    few, many = (edits.edits(synthetic.make_shop(**SIZES), num, "gallery") for num in (20, 60))
    np.testing.assert_array_equal(few.references, many.references[:20])
    assert few.words == many.words[:20]
    np.testing.assert_array_equal(few.rows, many.rows[: len(few.rows)])
    assert few.words != edits.edits(synthetic.make_shop(seed=1, **SIZES), 20, "gallery").words


@pytest.mark.parametrize("split", ["train", "val", "gallery"])
def test_targets_of_edits_have_what_the_words_ask_for(shop, split):
    table, listings = shop.table("edits", split), shop.split(split)
    place = synthetic.make_shop(**SIZES)
    tables = {"colour": wording.COLOURS, "pattern": wording.PATTERNS, "material": wording.MATERIALS}
    truth = synthetic.attributes(place, split, np.arange(len(listings)))
    product = synthetic.product_ids(place, split, np.arange(len(listings))) // 4
    for i in range(len(table)):
        reference, targets = table.columns["reference"][i], table.columns["targets"][i]
        name, words = table.columns["attribute"][i], table.columns["words"][i]
        assert len(targets) and (np.diff(targets) > 0).all()
        assert (truth["category"][targets] == truth["category"][reference]).all()
        values = truth[name][targets]
        assert (values != truth[name][reference]).all() and product[reference] not in product[targets]
        if name in tables:
            spelt = [set(names) | {wording.PATTERN_NOUNS.get(key, key)} for key, names in tables[name].items()]
            wanted = {v for v, names in enumerate(spelt) if any(one in words for one in names)}
            negated = " ".join(words.split()[:2]) in ("any colour", "anything but") or not wanted & set(values.tolist())
            if not negated:
                assert len(set(values.tolist())) == 1 and values[0] in wanted
            else:
                assert truth[name][reference] in wanted
        else:
            part = wording.CATEGORIES[truth["category"][reference]][4 if name == "part1" else 5]
            assert part in words and values[0] == (not any(no in words.split() for no in ("without", "no")))
        alike = np.all([truth[key][targets] == truth[key][reference] for key in tables if key != name], axis=0)
        assert (alike | (product[targets] // synthetic.FAMILY == product[reference] // synthetic.FAMILY)).all()
        # and every listing that fits is a target: those of the target products, whole
        assert np.isin(np.flatnonzero(np.isin(product, product[targets])), targets).all()


def test_every_wording_of_an_edit_can_be_written():
    rng = np.random.default_rng(0)
    for name, size in (("colour", 12), ("pattern", 8), ("material", 7), ("part1", 2), ("part2", 2)):
        for old in range(size):
            for new in [value for value in range(size) if value != old] + ([] if size == 2 else [None]):
                for _ in range(8):
                    text = wording.edit_text(name, 3, old, new, rng)
                    assert "{" not in text and text == text.strip()


def test_too_few_products_to_edit():
    with pytest.raises(InputError, match="has 1 products, too few for edits"):
        edits.edits(synthetic.make_shop(num_train=3), 1)
    with pytest.raises(InputError, match="has 0 products, too few"):
        edits.edits(synthetic.make_shop(num_val=0), 1, "val")
    assert len(edits.edits(synthetic.make_shop(num_val=0), 0, "val").words) == 0
