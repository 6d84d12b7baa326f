"""Clicks after photos: which are used, which are set aside, and what is never a negative, against plain loops."""

import numpy as np
import pytest

from retrieval_jax.data.catalog import Table
from retrieval_jax.data.examples import Ragged
from retrieval_jax.errors import InputError
from retrieval_jax.tasks.parts import photo_clicks

ROWS = {"photo": "photo", "clicked": "train", "unclicked": "train"}


def table(photos, clicked, unclicked):
    return Table(
        {"photo": np.array(photos), "clicked": Ragged.of(clicked), "unclicked": Ragged.of(unclicked)}, dict(ROWS)
    )


def test_a_click_on_another_category_is_set_aside_and_counted():
    made = table([0, 1], [[0, 1, 5], [6]], [[2], [7, 8]])
    group = np.array([3, 3, 3, 3, 3, 4, 4, 4, -1])
    found = photo_clicks.pairs(made, np.arange(9), group, 2, 1, 0)
    assert found.counts == {"read": 4, "used": 3, "other category": 1, "no listing": 0}
    assert list(zip(found.photo.tolist(), found.clicked.tolist(), strict=True)) == [(0, 0), (0, 1), (1, 6)]
    everything = photo_clicks.pairs(made, np.arange(9), None, 2, 1, 0)
    assert everything.counts["used"] == everything.counts["read"] == 4


def test_negatives_are_of_the_page_and_of_no_product_that_was_clicked_for_the_photo():
    rng = np.random.default_rng(0)
    product = rng.integers(0, 30, 60).astype(np.int32)
    photos = rng.integers(0, 12, 40)
    pages = [rng.permutation(60)[:9] for _ in photos]
    split = [int(rng.integers(1, 4)) for _ in photos]
    clicked = [page[:at] for page, at in zip(pages, split, strict=True)]
    unclicked = [page[at:] for page, at in zip(pages, split, strict=True)]
    found = photo_clicks.pairs(table(photos, clicked, unclicked), product, None, 12, 3, 7)
    bought = {}
    for photo, rows in zip(photos.tolist(), clicked, strict=True):
        bought.setdefault(photo, set()).update(product[rows].tolist())
    seen = {}
    for photo, rows in zip(photos.tolist(), unclicked, strict=True):
        seen.setdefault(photo, set()).update(rows.tolist())
    for photo, row, others in zip(found.photo.tolist(), found.clicked.tolist(), found.unclicked.tolist(), strict=True):
        assert product[row] in bought[photo]
        used = [other for other in others if other >= 0]
        assert len(set(used)) == len(used)
        assert not {int(product[other]) for other in used} & bought[photo] and set(used) <= seen[photo]
    for photo in range(12):
        assert found.forbidden[photo].tolist() == sorted(bought.get(photo, ()))
    assert (found.unclicked >= 0).any(1).mean() > 0.9


def test_listings_that_were_left_out_count_and_nothing_breaks():
    found = photo_clicks.pairs(table([0, -1], [[-1, 1], [2]], [[-1], [3]]), np.arange(4), np.zeros(4, int), 1, 2, 0)
    assert found.counts == {"read": 3, "used": 1, "other category": 0, "no listing": 2}
    assert found.unclicked.tolist() == [[-1, -1]]


def test_tables_that_teach_nothing_are_named():
    with pytest.raises(InputError, match="no click to learn from"):
        photo_clicks.pairs(table([0], [[]], [[1]]), np.arange(2), None, 1, 1, 0)
    made = table([0], [[1]], [[0]])
    made = Table({name: value for name, value in made.columns.items() if name != "unclicked"}, {"photo": "photo"})
    with pytest.raises(InputError, match="no column 'unclicked'"):
        photo_clicks.pairs(made, np.arange(2), None, 1, 1, 0)
