"""Numbers of listings, and clicks per look: against plain loops."""

import cv2
import numpy as np
import pytest

from retrieval_jax.data import listing_quality
from retrieval_jax.data.catalog import Catalog, Split, Table
from retrieval_jax.data.examples import Ragged
from retrieval_jax.data.pictures.sources import NoPictures
from retrieval_jax.errors import InputError
from retrieval_jax.scoring.ranking import Truth


def split(name, count, **columns):
    return Split(name, [f"{name}{row}" for row in range(count)], None, None, NoPictures(count, name), columns=columns)


def catalog(pages, places=True, **columns):
    """Returns three queries and five listings; a page is (query, [(listing, place, clicked)])."""
    table = {"photo": np.array([query for query, _ in pages])}
    for name, wanted in (("clicked", True), ("unclicked", False)):
        rows = [[one for one in page if one[2] == wanted] for _, page in pages]
        table[name] = Ragged.of([[row for row, _, _ in page] for page in rows], np.int64)
        if places:
            table[f"{name}_position"] = Ragged.of([[place for _, place, _ in page] for page in rows])
    tables = {"clicks/gallery": Table(table, {"photo": "query", "clicked": "gallery", "unclicked": "gallery"})}
    price = np.array([1, np.nan, 3, 4, 5], np.float32)
    sides = {"query": split("query", 3), "gallery": split("gallery", 5, price=price, **columns)}
    return Catalog("test", **sides, tables=tables, column_names={"colour": ["red", "blue"]})


PAGES = [
    (0, [(0, 1, True), (1, 2, False), (2, 3, False)]),
    (0, [(2, 1, False), (0, 2, True)]),
    (2, [(4, 1, False), (3, 4, True)]),
]


def test_clicks_per_look_equal_a_loop():
    found = listing_quality.clicked(catalog(PAGES))
    looks, clicks = {}, {}
    for query, page in PAGES:
        for row, place, clicked in page:  # too few clicks to estimate looks: 1 / place
            looks[query, row] = looks.get((query, row), 0) + 1 / place
            clicks[query, row] = clicks.get((query, row), 0) + clicked
    average = sum(clicks.values()) / sum(looks.values())
    for query in range(3):
        rows = sorted(row for asked, row in looks if asked == query)
        assert found.relevant(query).tolist() == rows
        for row, grade in zip(rows, found.grades[found.indptr[query] : found.indptr[query + 1]], strict=True):
            key = query, row
            assert grade == pytest.approx(min(1, (clicks[key] + average) / (looks[key] + 1)), rel=1e-6)
    assert isinstance(found, Truth) and len(found.rated_zero) == 0


def test_without_places_every_showing_is_a_look():
    found = listing_quality.clicked(catalog(PAGES, places=False))
    average = 3 / 7
    assert found.grades[found.indptr[0]] == pytest.approx((2 + average) / 3)


def test_pages_of_other_queries_are_not_read():
    found = listing_quality.clicked(catalog(PAGES), np.array([True, True, False]))
    assert found.num_relevant.tolist() == [3, 0, 0]
    with pytest.raises(InputError, match="nobody clicked after the queries of the selection half"):
        listing_quality.clicked(catalog(PAGES), np.array([False, True, False]))


def test_a_catalogue_without_clicks_says_what_to_name():
    made = catalog(PAGES)
    made.tables = {}
    with pytest.raises(InputError, match="name a table 'clicks' with the columns photo"):
        listing_quality.clicked(made)
    made = catalog(PAGES)
    made.tables = {"clicks/gallery": Table(made.table("clicks", "gallery").columns, {"photo": "photo"})}
    with pytest.raises(InputError, match="those of the photo split: name the ids of queries"):
        listing_quality.clicked(made)
    listing_quality.check(made, ["price", "sharpness"])
    with pytest.raises(InputError, match="no column 'prise'; did you mean price"):
        listing_quality.check(made, ["prise"])


def test_columns_come_in_the_order_of_the_ids():
    found = listing_quality.of_split(catalog(PAGES).gallery, ["price"], ["gallery3", "gallery1", "gallery0"])
    np.testing.assert_array_equal(found["price"], np.array([4, np.nan, 1], np.float32))
    with pytest.raises(InputError, match="no listing gallery9"):
        listing_quality.of_split(catalog(PAGES).gallery, ["price"], ["gallery9"])


def test_columns_that_hold_no_numbers_are_refused():
    made = catalog(PAGES, colour=np.zeros(5, np.int32), said=["a"] * 5).gallery
    with pytest.raises(InputError, match="no column 'prise'; did you mean price"):
        listing_quality.of_split(made, ["prise"])
    for name in ("colour", "said"):
        with pytest.raises(InputError, match=f"no numbers in the column '{name}'"):
            listing_quality.of_split(made, [name])


def test_a_blurred_picture_is_less_sharp():
    picture = np.random.default_rng(0).integers(0, 255, (40, 40, 3)).astype(np.uint8)
    values = [listing_quality.sharpness(cv2.GaussianBlur(picture, (0, 0), one)) for one in (0.3, 1, 3)]
    assert values[0] > values[1] > values[2] > listing_quality.sharpness(np.full((9, 9, 3), 7, np.uint8)) == 0
    made = catalog(PAGES).gallery
    made.images = [cv2.GaussianBlur(picture, (0, 0), 1 + row) for row in range(5)]
    assert (np.diff(listing_quality.of_split(made, ["sharpness"])["sharpness"]) < 0).all()
