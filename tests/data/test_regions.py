"""True boxes: listings of one picture belong together, and those without a box are left out and counted."""

import numpy as np
import pytest

from retrieval_jax.data import fields, regions
from retrieval_jax.data.catalog import Catalog, Split
from retrieval_jax.data.examples import Ragged
from retrieval_jax.errors import InputError

NAN = (np.nan,) * 4
BOXES = np.array([(0, 0, 1, 0.5), NAN, (0, 0.5, 1, 1), (0.2, 0.2, 0.4, 0.4), (0, 0, 1, 1)], np.float32)


def make_split(**columns):
    split = Split(
        "train", list("abcde"), None, None, np.zeros((5, 2, 2, 3), np.uint8),
        columns={"box": BOXES, "kind": np.array([0, 1, 1, -1, 0], np.int32), "photo": ["p", "p", "q", "p", "r"],
                 **columns},
    )  # fmt: skip
    Catalog("c", train=split, column_names={"kind": ["shoe", "top"]})
    return split


def test_listings_of_one_picture_are_one_example():
    split = make_split()
    kinds = fields.read(split, "kind")
    info = fields.learned({"kind": kinds}, 1, (), 0)
    found = regions.of_split(split, kinds, info, "photo")
    assert found.rows.tolist() == [0, 2, 4] and found.left_out == 1
    np.testing.assert_array_equal(found.boxes[0], BOXES[[0, 3]])
    np.testing.assert_array_equal(found.boxes[1, 0], BOXES[2])
    assert np.isnan(found.boxes[1:, 1]).all() and found.types.tolist() == [[0, -1], [1, -1], [0, -1]]
    true = found.true()
    assert [len(one["boxes"]) for one in true] == [1, 1, 1]  # the box of unknown type is not scored
    alone = regions.of_split(split, kinds, info)
    assert alone.rows.tolist() == [0, 2, 3, 4] and alone.boxes.shape == (4, 1, 4)


def test_pictures_without_a_group_are_each_their_own():
    split = make_split(photo=["", "p", "", "p", ""])
    kinds = fields.read(split, "kind")
    found = regions.of_split(split, kinds, fields.learned({"kind": kinds}, 1, (), 0), "photo")
    assert sorted(found.rows.tolist()) == [0, 2, 3, 4] and found.boxes.shape == (4, 1, 4)


def test_boxes_of_other_than_four_numbers_and_several_types_are_refused():
    for box in (BOXES[:, :3], BOXES[:, 0], ["a"] * 5):
        split = make_split(box=box)
        kinds = fields.read(split, "kind")
        info = fields.learned({"kind": kinds}, 1, (), 0)
        with pytest.raises(InputError, match="'box' of the train split holds .* per listing, expected 4"):
            regions.of_split(split, kinds, info)
    split = make_split(kind=Ragged.of([(0, 1), (1,), (), (0,), (1,)]))
    kinds = fields.read(split, "kind")
    with pytest.raises(InputError, match="types: 'kind' has several values per listing"):
        regions.of_split(split, kinds, fields.learned({"kind": kinds}, 1, (), 0))


def test_missing_columns_are_named():
    split = make_split()
    kinds = fields.read(split, "kind")
    info = fields.learned({"kind": kinds}, 1, (), 0)
    with pytest.raises(InputError, match="no column of text 'foto'.*photo"):
        regions.of_split(split, kinds, info, "foto")
    with pytest.raises(InputError, match="no column of text 'kind'"):
        regions.of_split(split, kinds, info, "kind")
    del split.columns["box"]
    with pytest.raises(InputError, match="no column 'box'"):
        regions.of_split(split, kinds, info)
