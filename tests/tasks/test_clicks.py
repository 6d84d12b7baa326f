"""Pairs of queries and clicked products: weights, forbidden products, the published rule of negatives."""

import numpy as np
import pytest

from retrieval_jax.data.catalog import Split, Table
from retrieval_jax.data.examples import Ragged
from retrieval_jax.errors import InputError
from retrieval_jax.tasks.parts import clicks

TITLES = ["red tee", "Red  Tee", "blue tee", "red mug", "", "", "blue mug", "green mug"]
PRODUCTS = ["a", "b", "b", "c", "d", "e", "", ""]


def split(**columns):
    ids = [f"id{row}" for row in range(len(TITLES))]
    return Split("train", ids, TITLES, None, None, columns=columns)


def table(**more):
    columns = {
        "text": ["red tee", "RED tee ", "mug", ""],
        "clicked": Ragged.of([[0, 3], [0, 2], [3, 6, 7], [1]]),
        "count": Ragged.of([[3, 0], [1, 2], [1, 5, 1], [9]]),
    }
    return Table({**columns, **more}, {"clicked": "train"})


def test_equal_titles_and_equal_products_are_one_product_through_each_other():
    product = clicks.products(split(product=PRODUCTS), "product")
    assert product[0] == product[1] == product[2]  # titles join 0 and 1, products 1 and 2
    assert len({*product[3:].tolist()}) == 5  # empty titles and empty products join nothing
    assert len({*clicks.products(split()).tolist()}) == 7


def test_equal_queries_are_one_their_clicks_add_up_and_shown_listings_do_not_count():
    found = clicks.pairs(table(), clicks.products(split()), 100)
    assert found.texts == ["red tee", "mug", ""]
    pairs = list(zip(found.query.tolist(), found.listing.tolist(), strict=True))
    assert pairs == [(0, 0), (0, 2), (1, 6), (1, 3), (1, 7)]  # most clicked first; the empty query has none
    expected = np.log1p([4, 2, 5, 1, 1])
    np.testing.assert_allclose(found.weight, expected / expected.mean(), rtol=1e-6)
    assert [sorted(found.product[[0, 2]]), sorted(found.product[[3, 6, 7]])] == [
        found.forbidden[0].tolist(),
        found.forbidden[1].tolist(),
    ]
    most = clicks.pairs(table(), clicks.products(split()), 1)
    assert most.listing.tolist() == [0, 6] and np.array_equal(most.forbidden.values, found.forbidden.values)


def test_weights_of_the_table_take_the_place_of_counts():
    weight = Ragged.of([[2.0, 9.0], [1.0, 0.5], [1, 1, 0], [1]], np.float32)
    found = clicks.pairs(table(weight=weight), clicks.products(split()), 100)
    assert dict(zip(found.listing.tolist(), found.weight.tolist(), strict=True))[0] == pytest.approx(3 / 1.375)
    assert 7 not in found.listing  # a weight of 0 teaches nothing, and stays forbidden
    assert found.product[7] in found.forbidden[1]


def test_a_table_without_clicks_is_refused():
    with pytest.raises(InputError, match="no clicks"):
        clicks.pairs(table(count=Ragged.of([[0, 0], [0, 0], [0, 0, 0], [0]])), clicks.products(split()), 100)


def test_listings_judged_wrong_are_the_first_negatives_unless_they_were_clicked():
    wrong = Ragged.of([[0, 1], [1, 0], [0, 0, 0], [3]])  # 3 and 2 after "red tee"; 2 was clicked after it
    product = clicks.products(split())
    found = clicks.pairs(table(wrong=wrong), product, 100)
    assert [found.wrong[row].tolist() for row in range(3)] == [[3], [], []]
    group = np.zeros(len(TITLES), np.int64)
    drawn = clicks.negatives(found, group, 2.0, 3, 0)
    assert (drawn[found.query == 0, 0] == 3).all()
    plain = clicks.negatives(clicks.pairs(table(), product, 100), group, 2.0, 3, 0)
    assert plain.shape == drawn.shape and not (plain[found.query == 0, 0] == 3).all()
    both = clicks.with_title_queries(found, TITLES, product, 1, 0)
    assert len(both.wrong) == len(both.texts) and both.wrong[0].tolist() == [3] and not len(both.wrong.values[1:])


@pytest.mark.parametrize("seed", range(3))
def test_the_rule_of_negatives(seed):
    rng = np.random.default_rng(seed)
    size = 400
    group = rng.integers(0, 4, size)
    group[:20] = -1
    product = rng.permutation(size) // 2  # every product has a duplicate
    broad = np.flatnonzero(group == 1)
    clicked = [broad[: len(broad) // 2], rng.integers(0, size, 5), rng.integers(0, size, 30)]
    texts = ["broad", "narrow", "other"]
    made = Table({"text": texts, "clicked": Ragged.of(clicked)}, {"clicked": "train"})
    found = clicks.pairs(made, product.astype(np.int32), 100)
    assert clicks.broad(found, group, 0.3).tolist() == [True, False, False]
    rows = clicks.negatives(found, group, 0.3, 4, seed)
    assert rows.shape == (len(found.query), 4) and (rows >= 0).mean() > 0.95
    assert np.array_equal(rows, clicks.negatives(found, group, 0.3, 4, seed))
    for query, listing, chosen in zip(found.query, found.listing, rows, strict=True):
        own = set(product[clicked[query]])
        chosen = chosen[chosen >= 0]
        assert not own & set(product[chosen])
        if query == 0:
            assert (group[chosen] != group[listing]).all()
        elif group[listing] >= 0 and len(chosen) == 4:
            assert (group[chosen[[0, 2]]] == group[listing]).all()


def test_queries_of_titles_are_words_of_the_listing_and_forbid_its_product():
    product = clicks.products(split())
    alone = clicks.with_title_queries(None, TITLES, product, 3, 0)
    both = clicks.with_title_queries(clicks.pairs(table(), product, 100), TITLES, product, 3, 0)
    assert both.texts[3:] == alone.texts and len(both.query) == 5 + len(alone.query) == 5 + 3 * 6
    for query, listing in zip(alone.query, alone.listing, strict=True):
        assert alone.texts[query] and set(alone.texts[query].split()) <= set(TITLES[listing].split())
        assert alone.forbidden[query].tolist() == [product[listing]]
    assert clicks.is_forbidden(both, both.query, both.product[both.listing]).all()
    pieces = clicks.with_title_queries(None, ["赤いティーシャツ"], np.zeros(1, np.int32), 5, 0)
    assert all(text in "赤いティーシャツ" and text for text in pieces.texts)
    with pytest.raises(InputError, match="no listing has a text"):
        clicks.with_title_queries(None, ["", " "], np.arange(2), 3, 0)
