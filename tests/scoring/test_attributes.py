"""Scores of attributes against counts by hand."""

import numpy as np
import pytest

from retrieval_jax.errors import InputError
from retrieval_jax.scoring import attributes

# two fields: type (labels 0 to 2, one each), parts (3 and 4, any)
FIELD_OF = np.array([0, 0, 0, 1, 1])
TRUE = np.array([[1, 0, 0, 1, 0], [0, 1, 0, 1, 1], [0, 0, 1, 0, 0], [1, 0, 0, 0, 0]], bool)
CHOSEN = np.array([[1, 0, 0, 1, 1], [1, 0, 0, 1, 1], [0, 0, 1, 0, 0], [0, 1, 0, 1, 0]], bool)
KNOWN = np.array([[1, 1], [1, 1], [1, 1], [1, 0]], bool)


def test_precision_recall_and_f1_per_field_and_of_sets():
    counted = attributes.counts(CHOSEN, TRUE, KNOWN, FIELD_OF)
    found = attributes.summary(counted, KNOWN, ["type", "parts"])
    assert found["type_precision"] == found["type_recall"] == found["type_f1"] == 0.5
    assert (found["parts_precision"], found["parts_recall"], found["parts_f1"]) == (3 / 4, 1.0, 6 / 7)
    assert (found["precision"], found["recall"]) == (5 / 8, 5 / 7)
    assert np.isclose(found["set_f1"], (4 / 5 + 4 / 6 + 1 + 0) / 4)
    each = attributes.per_listing(counted, KNOWN)
    np.testing.assert_array_equal(each["f1"], [[1, 2 / 3], [0, 1], [1, 1], [0, np.nan]])


def test_what_is_unknown_counts_nothing():
    other = CHOSEN.copy()
    other[3, 3:] = [False, True]
    one, two = (attributes.counts(chosen, TRUE, KNOWN, FIELD_OF) for chosen in (CHOSEN, other))
    assert all((one[name] == two[name]).all() for name in one)
    nothing = attributes.per_listing(one, np.zeros_like(KNOWN))
    assert np.isnan(nothing["set_f1"]).all()


def test_calibration_by_hand():
    found = attributes.calibration(np.array([0.1, 0.2, 0.9, 1.0]), np.array([False, True, True, True]), bins=2)
    assert found["count"] == [2, 2] and np.isclose(found["ece"], (abs(0.15 - 0.5) + abs(0.95 - 1)) / 2)
    assert attributes.calibration(np.full(10, 0.5), np.arange(10) < 5)["ece"] == 0
    with pytest.raises(InputError, match="from 0 to 1"):
        attributes.calibration(np.array([1.5]), np.array([True]))


def test_the_majority_of_train_is_what_to_beat():
    assert attributes.majority(TRUE, CHOSEN, FIELD_OF, 0) == 0.5  # label 0 in two of four
    assert attributes.majority(TRUE, np.zeros_like(CHOSEN), FIELD_OF, 0) is None


def test_combinations_that_no_training_listing_has():
    field_of = np.array([0, 0, 1, 1, 2, 2])
    rows = lambda *labels: np.isin(np.arange(6), labels)  # noqa: E731
    seen = np.stack([rows(0, 2, 4), rows(1, 3, 5), rows(0, 3)])  # the third listing's last field is unknown
    chosen = np.stack([rows(0, 2, 4), rows(1, 2, 4), rows(0, 3, 4), rows(0, 4)])
    found = attributes.unseen(chosen, seen, field_of, [(0, 1), (0, 1, 2)])
    np.testing.assert_array_equal(found, [[0, 0], [1, 1], [0, 1], [np.nan, np.nan]])


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="ascending field for each of 5 labels"):
        attributes.counts(CHOSEN, TRUE, KNOWN, FIELD_OF[::-1])
