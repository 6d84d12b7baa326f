"""Which train listings agree by their titles, against plain loops."""

import math

import numpy as np
import pytest

from retrieval_jax.attributes import agreement
from retrieval_jax.attributes import titles as title_rule

WORDS = "red blue green shirt shoe hat wool cotton long short norvik jupelle draymond plain striped".split()


@pytest.fixture
def listings():
    rng = np.random.default_rng(0)
    titles = [" ".join(rng.choice(WORDS, 4, replace=False)) for _ in range(120)]
    titles += [f"{title} NEW" for title in titles[:60]] + ["", "!!"]
    return titles, rng.integers(-1, 3, len(titles))


def cosines(titles):
    """Returns [n, n] cosines of titles as sets of words, weighted by rarity, word by word."""
    tokens = [set(title_rule.tokenize(title)) - set(title_rule.DROPPED) for title in titles]
    weight = {t: math.log((1 + len(titles)) / sum(t in one for one in tokens)) for one in tokens for t in one}
    length = [math.sqrt(sum(weight[t] ** 2 for t in one)) or 1.0 for one in tokens]
    return [
        [sum(weight[t] ** 2 for t in left & right) / length[i] / length[j] for j, right in enumerate(tokens)]
        for i, left in enumerate(tokens)
    ]


def test_pairs_equal_plain_loops(listings):
    titles, categories = listings
    rows, indptr, agreeing = agreement.sample(titles, categories, 500)
    assert rows.tolist() == list(range(len(titles))) and len(indptr) == len(rows) + 1
    some, expected = 0, cosines(titles)
    for row in range(len(titles)):
        found = agreeing[indptr[row] : indptr[row + 1]].tolist()
        likeness = {
            other: expected[row][other]
            for other in range(len(titles))
            if other != row and categories[other] == categories[row]
        }
        right = {other for other, value in likeness.items() if value >= agreement.LEAST}
        assert set(found) <= right and len(found) == min(len(right), agreement.MOST_AGREEING)
        assert [likeness[other] for other in found] == pytest.approx(sorted((likeness[o] for o in found), reverse=True))
        some += len(found)
    assert some > 100


def test_a_sample_is_bounded_deterministic_and_draws_listings_that_agree(listings):
    titles, categories = listings
    one, other = agreement.sample(titles, categories, 60), agreement.sample(titles, categories, 60)
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    rows, indptr, agreeing = one
    assert len(rows) == 60 and np.all(np.diff(rows) > 0) and agreeing.max() < 60
    assert (np.diff(indptr) > 0).mean() > 0.5
    assert len(agreement.sample(["", ""], None, 9)[2]) == 0
