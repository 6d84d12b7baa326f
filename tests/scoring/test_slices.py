"""Slices of the queries: every query is in exactly one."""

import numpy as np

from retrieval_jax.scoring import slices


def test_slices_by_number_of_relevant_listings():
    counts = np.array([0, 1, 2, 3, 5, 6, 10, 11, 500, 1])
    found = slices.by_relevant(counts)
    assert {name: counts[chosen].tolist() for name, chosen in found.items()} == {
        "1": [1, 1],
        "2": [2],
        "3-5": [3, 5],
        "6-10": [6, 10],
        ">10": [11, 500],
    }
    assert (sum(found.values()) == (counts > 0)).all()
    assert list(slices.by_relevant(np.array([0, 4]))) == ["3-5"] and slices.by_relevant(np.zeros(2, int)) == {}


def test_slices_by_category_largest_first_and_the_rest_together():
    codes = np.array([2, 2, 0, -1, 3, 3, 3, 4, 1, 1])
    names = ["shoes", "tops", "bags", "tops", "(other)", "none"]
    found = slices.by_category(codes, names)
    assert {name: np.flatnonzero(chosen).tolist() for name, chosen in found.items()} == {
        "tops": [4, 5, 6],
        "tops (1)": [8, 9],
        "bags": [0, 1],
        "shoes": [2],
        "(other) (4)": [7],
        "(unknown)": [3],
    }
    some = slices.by_category(codes, names, most=2)
    assert list(some) == ["tops", "tops (1)", "(other)", "(unknown)"] and some["(other)"].sum() == 4
    for part in (found, some):
        assert (sum(chosen.astype(int) for chosen in part.values()) == 1).all()
