"""Outfits by type, blanks to fill in, and outfits with their items exchanged: never an item of the same outfit."""

import numpy as np
import pytest

from retrieval_jax.data.catalog import Split, Table
from retrieval_jax.data.outfits import sets
from retrieval_jax.errors import InputError

RNG = np.random.default_rng(0)
N = 90
TYPES = (np.arange(N) % 3).astype(np.int32)
TYPES[80:] = -1
PRODUCTS = np.arange(N) // 6
ROWS = np.array([RNG.permutation(27)[:3] * 3 + np.arange(3) for _ in range(40)])
ROWS[::4, 2] = -1


def outfits(compatible=None):
    columns = {"listings": ROWS} | ({} if compatible is None else {"compatible": compatible})
    return sets.of_table(Table(columns, {"listings": "train"}), TYPES)


def test_items_without_a_type_are_dropped_and_outfits_of_one_item_left_out():
    found = outfits()
    expected = [[row for row in rows if row >= 0 and TYPES[row] >= 0] for rows in ROWS]
    expected = [rows for rows in expected if len(rows) >= 2]
    assert [[row for row in rows if row >= 0] for rows in found.rows.tolist()] == expected
    assert found.left_out == len(ROWS) - len(expected) and (found.compatible == -1).all()
    np.testing.assert_array_equal(found.types, np.where(found.rows >= 0, TYPES[found.rows], -1))


def test_good_outfits_are_those_that_are_said_to_be_or_all_that_were_worn():
    assert len(outfits().good()) == len(outfits())
    compatible = np.arange(len(ROWS)) % 2
    found = outfits(compatible).good()
    assert (found.compatible == 1).all() and 0 < len(found) < len(outfits())


def test_a_share_is_part_of_a_larger_one_and_does_not_depend_on_the_order():
    ids = [f"id{row}" for row in range(N)]
    found = outfits()
    names = lambda some: {tuple(rows) for rows in some.rows.tolist()}  # noqa: E731
    few, more = sets.labelled(found, ids, 0.1), sets.labelled(found, ids, 0.5)
    assert names(few) < names(more) < names(found) and len(few) == round(0.1 * len(found))
    turned = found.take(np.arange(len(found))[::-1])
    assert names(sets.labelled(turned, ids, 0.1)) == names(few)


def test_wrong_answers_have_the_type_of_the_blank_and_are_no_product_of_the_outfit():
    found = outfits()
    asked = sets.questions(found, PRODUCTS, choices=4, seed=3)
    assert len(asked) > 10 and len(np.unique(asked.right)) == 4
    for rows, answers, right in zip(asked.rows, asked.answers, asked.right, strict=True):
        whole = {*rows[rows >= 0].tolist(), int(answers[right])}
        assert any(whole == set(one[one >= 0].tolist()) for one in found.rows)
        assert len(set(TYPES[answers])) == 1 and len(set(PRODUCTS[answers])) == 4
        others = np.delete(answers, right)
        assert not set(PRODUCTS[others]) & {PRODUCTS[row] for row in whole}
    with pytest.raises(InputError, match="other listings of a type"):
        sets.questions(found.take(np.arange(2)), PRODUCTS)


def test_exchanged_outfits_keep_their_types_and_share_no_product():
    found = outfits()
    bad = sets.exchanged(found, PRODUCTS, seed=1)
    assert len(bad) == len(found) and (bad.compatible == 0).all() and ((bad.rows >= 0).sum(1) >= 2).mean() > 0.8
    for good, made, kinds in zip(found.rows, bad.rows, bad.types, strict=True):
        own, there = set(PRODUCTS[good[good >= 0]]), made >= 0
        assert not own & set(PRODUCTS[made[there]]) and (TYPES[made[there]] == kinds[there]).all()


def test_outfits_that_do_not_go_together_are_the_tables_or_made():
    both = sets.asked(outfits(), PRODUCTS)
    bad = sets.exchanged(outfits(), PRODUCTS)
    assert (both.compatible == 1).sum() == len(outfits())
    np.testing.assert_array_equal(both.rows[both.compatible == 0], bad.rows[(bad.rows >= 0).sum(1) >= 2])
    rows = np.repeat(np.array([[0, 1, 2], [3, 4, 5], [6, 7, 8]]), 2, axis=0)
    table = Table({"listings": rows, "compatible": np.array([1, 0, 1, -1, 1, 0], np.int32)}, {"listings": "train"})
    both = sets.asked(sets.of_table(table, TYPES), PRODUCTS)
    np.testing.assert_array_equal(both.rows, rows[[0, 1, 2, 4, 5]])
    assert both.compatible.tolist() == [1, 0, 1, 1, 0]


def test_an_outfit_that_has_a_listing_twice_gives_no_answer_away():
    rows = np.concatenate([outfits().rows, [[0, 1, 0], [2, 2, -1]]])
    found = sets.of_table(Table({"listings": rows}, {"listings": "train"}), TYPES)
    assert len(found) == len(outfits()) + 1 and found.left_out == 1
    for seed in range(8):
        asked = sets.questions(found, PRODUCTS, seed=seed)
        right = asked.answers[np.arange(len(asked)), asked.right]
        assert not (asked.rows == right[:, None]).any() and ((asked.rows >= 0) == (asked.types >= 0)).all()


def test_products_are_told_apart_by_text_alone():
    columns = {
        "pid": ["b", "", "a", "b", ""],
        "known": np.array([0, -1, -1, 1, 1], np.int32),  # an attribute: what train lacks is unknown
        "number": np.array([1.0, np.nan, 2.0, 1.0, np.nan], np.float32),
    }
    split = Split("gallery", list("vwxyz"), None, None, None, columns=columns, column_names={"known": ["b", "c"]})
    found = sets.products_of(split, "pid")
    assert found[0] == found[3] and len(set(found.tolist())) == 4  # an empty value is its own
    assert len(set(sets.products_of(split, "").tolist())) == 5
    for name in ("known", "number"):
        with pytest.raises(InputError, match=f"the column '{name}' is of attributes or numbers, and has to be text"):
            sets.products_of(split, name)
    train = Split("train", list("pqr"), None, None, None, columns={"pid": ["c", "b", ""]})
    beside, own = sets.products_of(split, "pid", train), sets.products_of(train, "pid")
    assert beside[0] == beside[3] == own[1] and (beside[[1, 2, 4]] <= -2).all() and len(set(beside.tolist())) == 4


def test_a_blank_is_asked_however_many_listings_of_its_type_are_one_product():
    rows = np.array([[0, 400], [1, 401], [2, 402], [3, 403], *([row, 404 + row] for row in range(4, 396))])
    types = (np.arange(800) >= 400).astype(np.int32)
    products = np.where((np.arange(800) < 396) & (np.arange(800) > 3), 5000, np.arange(800))
    found = sets.of_table(Table({"listings": rows}, {"listings": "train"}), types)
    asked = sets.questions(found, products)
    assert len(asked) == len(found) == 396
    assert all(len(set(products[one].tolist())) == 4 for one in asked.answers)
    bad = sets.exchanged(found, products)
    assert ((bad.rows >= 0).sum(1) == 2).all()


def test_what_is_left_out_is_counted(caplog):
    rows = np.array([[0, 85, 1], [86, 87, 2], [3, 4, 5], [6, 7, 88]])
    found = sets.of_table(Table({"listings": rows}, {"listings": "train"}), TYPES)
    assert len(found) == 3 and found.left_out == 1
    assert "outfits of train: 1 of 4 have fewer than two items of a learned type" in caplog.text
    assert "of the others, 2 items of further types are" in caplog.text
    sets.questions(found, PRODUCTS, choices=2)
    assert "outfits have no blank to fill in" in caplog.text
