"""Typed queries of the embedded catalogue: truth is what the attributes say, and held-out pairs are never clicked."""

import itertools

import numpy as np
import pytest

from retrieval_jax.data.shop import loading, synthetic, typed, wording
from retrieval_jax.errors import InputError

SIZES = {"num_train": 400, "num_val": 40, "num_query": 60, "num_gallery": 400, "num_typed": 80, "image_size": 16}


@pytest.fixture(scope="module")
def shop():
    return loading.load(queries="typed", **SIZES)


def words_of(text):
    """Returns the attributes that a query names, {name: value}, by the longest words that fit."""
    tables = {
        "category": [row[3] for row in wording.CATEGORIES],
        "colour": list(wording.COLOURS.values()),
        "pattern": list(wording.PATTERNS.values()),
        "material": list(wording.MATERIALS.values()),
        "brand": [(row[0],) for row in wording.BRANDS],
    }
    found, names = {}, {word: (key, at) for key, rows in tables.items() for at, row in enumerate(rows) for word in row}
    for word in sorted(names, key=len, reverse=True):
        if f" {word} " in f" {text} " and names[word][0] not in found:
            found[names[word][0]] = names[word][1]
            text = f" {text} ".replace(f" {word} ", " ")
    return found


def test_queries_are_texts_without_pictures_and_the_truth_is_that_of_the_attributes(shop):
    kinds, texts = shop.query.column_names["kind"], shop.query.column("query")
    assert len(set(texts)) == 60 and shop.query.titles is None and tuple(kinds) == typed.KINDS
    with pytest.raises(InputError, match="query split has no pictures"):
        shop.query.images[0]
    truth = synthetic.attributes(synthetic.make_shop(**SIZES), "gallery", np.arange(400))
    for row, text in enumerate(texts):
        if kinds[shop.query.column("kind")[row]] == "misspelt":
            continue
        asked = words_of(text)
        assert asked, text
        fits = np.all([truth[name] == value for name, value in asked.items()], axis=0)
        np.testing.assert_array_equal(shop.truth.relevant(row), np.flatnonzero(fits))


def test_held_out_pairs_are_in_no_clicked_query_and_in_every_unseen_one(shop):
    made, kind = synthetic.make_shop(**SIZES), shop.query.column("kind")
    clicked = typed.clicked(made, 80, "train")
    table = shop.table("queries", "train")
    assert list(table.columns["text"]) == clicked.texts and len(clicked.texts) == 80
    for text in clicked.texts:
        asked = words_of(text)
        assert not typed.held_out(made, tuple(asked), asked)
    for row in np.flatnonzero(kind == typed.KINDS.index("unseen")):
        asked = words_of(shop.query.column("query")[row])
        assert any(typed.held_out(made, pair, asked) for pair in itertools.combinations(asked, 2))


def test_clicks_go_to_all_listings_of_a_product_and_repeat(shop):
    made = synthetic.make_shop(**SIZES)
    one, other = typed.clicked(made, 80, "train"), typed.clicked(made, 40, "train")
    assert one.texts[:40] == other.texts and np.array_equal(one.rows[: len(other.rows)], other.rows)
    first = synthetic.first_row("train", np.arange(synthetic.num_products(made, "train")))
    assert 0 < np.isin(one.rows, first).mean() < 1 and one.rows.max() < 400
    products = np.array(shop.train.column("product"))
    assert products[0] == products[1] and len(set(products)) == len(first)


def test_an_unknown_kind_of_queries_is_named_with_near_ones():
    with pytest.raises(InputError, match="queries of the embedded catalogue is 'type'; did you mean typed"):
        loading.load(queries="type")
    with pytest.raises(InputError, match="too few for 5,000 different typed queries"):
        loading.load(queries="typed", num_gallery=40, num_query=5000)
