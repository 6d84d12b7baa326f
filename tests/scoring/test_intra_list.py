"""Likeness of the results of a query, with and without near-duplicates, against plain loops."""

import itertools

import numpy as np
import pytest

from retrieval_jax.errors import InputError
from retrieval_jax.scoring import intra_list
from retrieval_jax.scoring.ranking import Ranking

NAN = np.nan


def test_likeness_of_lists_equals_plain_loops():
    rng = np.random.default_rng(0)
    vectors, pictures = rng.normal(size=(30, 5)), rng.integers(0, 256, (30, 12), dtype=np.uint8)
    vectors[3] = 0
    pictures[[4, 9, 11]] = pictures[4]
    rows = np.stack([rng.permutation(30)[:6] for _ in range(40)])
    rows[0], rows[1, 2:], rows[2, 1:], rows[3] = [4, 9, 11, 1, 2, 3], -1, -1, -1
    rows[4, :3], rows[4, 3:] = [4, 9, 11], -1
    ranking = Ranking([str(row) for row in range(40)], rows, np.where(rows >= 0, -np.arange(6.0), -np.inf))
    found = intra_list.similarity(ranking, vectors, pictures, max_difference=0.3, depth=5)
    for query, row in enumerate(rows):
        every, clean = [], []
        for one, other in itertools.combinations([item for item in row[:5].tolist() if item >= 0], 2):
            length = np.linalg.norm(vectors[one]) * np.linalg.norm(vectors[other])
            cosine = vectors[one] @ vectors[other] / length if length else 0.0
            difference = pictures[one].astype(float) - pictures[other]
            contrast = max(pictures[one].std(), pictures[other].std())
            every.append(cosine)
            clean += [cosine] if np.sqrt((difference**2).mean()) > 0.3 * contrast else []
        wanted = [np.mean(every) if every else NAN, np.mean(clean) if clean else NAN]
        wanted.append(1 - len(clean) / len(every) if every else NAN)
        got = [found[name][query] for name in ("similarity@5", "similarity_distinct@5", "near_duplicates@5")]
        np.testing.assert_allclose(got, wanted, atol=1e-12)
    assert found["near_duplicates@5"][4] == 1 and np.isnan(found["similarity_distinct@5"][4])
    assert list(intra_list.similarity(ranking, vectors, depth=5)) == ["similarity@5"]
    with pytest.raises(InputError, match="vectors of 9 listings, and the ranking has row 29"):
        intra_list.similarity(ranking, vectors[:9])


def test_blocks_do_not_change_likeness(monkeypatch):
    rng = np.random.default_rng(1)
    rows = np.stack([rng.permutation(20)[:4] for _ in range(9)])
    ranking = Ranking([str(row) for row in range(9)], rows, np.tile(-np.arange(4.0), (9, 1)))
    vectors, pictures = rng.normal(size=(20, 3)), rng.integers(0, 99, (20, 6), dtype=np.uint8)
    whole = intra_list.similarity(ranking, vectors, pictures)
    monkeypatch.setattr(intra_list, "_NUMBERS", 1)
    for name, values in intra_list.similarity(ranking, vectors, pictures).items():
        np.testing.assert_array_equal(values, whole[name])
