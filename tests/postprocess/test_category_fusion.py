"""Category of a photo: votes, weights, levels and conditions against plain loops; mistakes; a set that grows."""

import math

import numpy as np
import pytest

from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.index import attribute
from retrieval_jax.postprocess import category_fusion as fusion

COUNT = 4


def listings(count, seed=0, dim=6):
    """Returns vectors around the centres of their categories, and the categories."""
    centres = np.random.default_rng(9).normal(size=(COUNT, dim))
    rng = np.random.default_rng(seed)
    categories = rng.integers(COUNT, size=count)
    return (centres[categories] + rng.normal(size=(count, dim))).astype(np.float32), categories


def naive(photo, vectors, categories, k, scale):
    """Returns the vote of one photo, by plain loops."""
    cosines = [float(photo @ one / math.sqrt((photo @ photo) * (one @ one))) for one in vectors.astype(np.float64)]
    nearest = sorted(range(len(vectors)), key=lambda row: (-cosines[row], row))[:k]
    votes = [0.0] * COUNT
    for row in nearest:
        votes[categories[row]] += math.exp((cosines[row] - cosines[nearest[0]]) / scale)
    return [(1 - fusion.LEAST) * one / sum(votes) + fusion.LEAST / COUNT for one in votes]


@pytest.mark.parametrize("k, scale", [(1, 0.1), (7, 0.05), (30, 0.5)])
def test_the_vote_is_that_of_plain_loops(k, scale):
    (vectors, categories), (photos, _) = listings(50), listings(9, seed=1)
    found = fusion.vote(*fusion.Reference(vectors, categories, COUNT).neighbours(photos, k), COUNT, scale)
    expected = [naive(photo.astype(np.float64), vectors, categories, k, scale) for photo in photos]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(found.sum(1), 1)


def test_the_fused_distribution_is_the_mixture_of_both():
    (vectors, categories), (photos, _) = listings(50), listings(5, seed=1)
    logits = np.random.default_rng(2).normal(size=(5, COUNT)) * 3
    neighbours = fusion.Reference(vectors, categories, COUNT).neighbours(photos, 10)
    found = fusion.fused(logits, neighbours, fusion.Weights(temperature=2.0, scale=0.1, share=0.3, k=4))
    for number, photo in enumerate(photos):
        powers = [math.exp(one / 2) for one in logits[number]]
        voted = naive(photo.astype(np.float64), vectors, categories, 4, 0.1)
        expected = [0.7 * one / sum(powers) + 0.3 * other for one, other in zip(powers, voted, strict=True)]
        np.testing.assert_allclose(found[number], expected, atol=1e-5)


def test_a_photo_is_not_its_own_neighbour_and_listings_of_unknown_category_are_left_out():
    vectors, categories = listings(20)
    ids = [f"item{row}" for row in range(20)]
    categories[3] = -1
    reference = fusion.Reference(Embeddings(ids, vectors), categories, COUNT)
    assert len(reference) == 19 and "19 vectors" in repr(reference)
    _, cosines = reference.neighbours(Embeddings(ids, vectors), 5)
    assert cosines.max() < 0.999
    found, cosines = reference.neighbours(Embeddings(ids[:1], vectors[:1]), 19)
    assert found[0, -1] == -1 and cosines[0, -1] == -np.inf  # 18 others
    assert np.isfinite(fusion.vote(found, cosines, COUNT, 0.1)).all()


def test_nothing_nearby_is_a_vote_for_everything():
    found = fusion.vote(np.full((2, 3), -1), np.full((2, 3), -np.inf), COUNT, 0.1)
    np.testing.assert_allclose(found, np.full((2, COUNT), 1 / COUNT), rtol=1e-12)


@pytest.mark.parametrize("with_ids", [False, True])
def test_the_reference_set_grows(with_ids):
    (vectors, categories), (more, theirs) = listings(30), listings(12, seed=1)
    photos, _ = listings(6, seed=2)
    theirs[0] = -1
    whole = fusion.Reference(np.concatenate([vectors, more]), np.concatenate([categories, theirs]), COUNT)
    if with_ids:  # ids break ties, and there are no ties here
        vectors = Embeddings([f"a{row}" for row in range(30)], vectors)
        more = Embeddings([f"b{row}" for row in range(12)], more)
    grown = fusion.Reference(vectors, categories, COUNT).add(more, theirs)
    assert len(grown) == len(whole) == 41
    for one, other in zip(grown.neighbours(photos, 8), whole.neighbours(photos, 8), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_likelihood_told_is_that_of_the_fused_distribution():
    (vectors, categories), (photos, labels) = listings(60), listings(80, seed=1)
    near = fusion.Reference(vectors, categories, COUNT).neighbours(photos, 2)  # few: often none of the own category
    logits = np.random.default_rng(3).normal(size=(80, COUNT))
    weights, told = fusion.fit(logits, near, labels, ks=(2,), shares=(1.0,))
    chances = fusion.fused(logits, near, weights)[np.arange(80), labels]
    assert (chances > 0).all()
    np.testing.assert_allclose(np.log(chances).mean(), told["log_likelihood"], rtol=1e-9)


def test_the_weights_are_the_likeliest_of_all_that_are_tried():
    (vectors, categories), (photos, labels) = listings(60), listings(80, seed=1)
    labels[5] = -1
    logits = np.random.default_rng(3).normal(size=(80, COUNT)) * 2 + 3 * np.eye(COUNT)[np.maximum(labels, 0)]
    neighbours = fusion.Reference(vectors, categories, COUNT).neighbours(photos, 20)
    found, said = fusion.fit(logits, neighbours, labels, ks=(5, 20))
    assert said["listings"] == 79 and said["set_aside"] == 1 and 0 < found.share < 1

    def likelihood(weights):
        votes = fusion.vote(*(part[:, : weights.k] for part in neighbours), COUNT, weights.scale)
        both = (1 - weights.share) * fusion.softmax(logits, weights.temperature) + weights.share * votes
        return np.mean([math.log(both[row, label]) for row, label in enumerate(labels) if label >= 0])

    best = max(
        likelihood(fusion.Weights(temperature, scale, share, k))
        for temperature in np.geomspace(0.3, 3, 9)
        for scale in fusion.SCALES
        for share in fusion.SHARES
        for k in (5, 20)
    )
    assert said["log_likelihood"] == pytest.approx(likelihood(found)) and likelihood(found) >= best - 1e-9
    alone, _ = fusion.fit(logits, neighbours, labels, shares=(0.0,), ks=(20,))
    assert alone.share == 0 and alone.k == 20


def test_a_category_that_no_listing_of_val_has_does_not_stop_the_fit():
    (vectors, categories), (photos, labels) = listings(60), listings(40, seed=1)
    logits = np.zeros((40, COUNT + 1))
    reference = fusion.Reference(vectors, categories, COUNT + 1)
    kept = labels != 2
    neighbours = reference.neighbours(photos[kept], 10)
    weights, said = fusion.fit(logits[kept], neighbours, labels[kept], ks=(10,))
    found = fusion.fused(logits, reference.neighbours(photos, 10), weights)
    assert np.isfinite(said["log_likelihood"]) and (found[labels == 2].argmax(1) == 2).mean() > 0.5


def test_a_coarser_level_is_the_sum_of_the_finer_one():
    chances = np.random.default_rng(0).dirichlet(np.ones(5), 3)
    found = fusion.coarser(chances, np.array([1, 0, 1, -1, 0]), 2)
    expected = [[row[1] + row[4], row[0] + row[2]] for row in chances]
    np.testing.assert_allclose(found, expected)


def test_the_top_categories_are_the_fewest_with_the_mass():
    chances = np.array([[0.5, 0.3, 0.15, 0.05], [0.25] * 4, [0.0, 1.0, 0.0, 0.0]])
    assert fusion.top(chances, 0.8).tolist() == [[1, 1, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0]]
    assert fusion.top(chances, 0.81)[0].tolist() == [1, 1, 1, 0]
    assert fusion.top(chances, 0.0).sum(1).tolist() == [1, 1, 1]
    assert fusion.top(chances, 1.0).sum(1).tolist() == [4, 4, 1]


def test_a_search_prefers_the_likely_categories_and_still_finds_k():
    vectors, categories = listings(40)
    names = ["shirts", "shoes", "hats", "bags"]
    gallery = np.where(np.arange(40) < 2, -1, categories)  # two of unknown category
    indptr = np.concatenate([[0], np.cumsum(gallery >= 0)])
    field = attribute.Field(names, indptr, gallery[gallery >= 0])
    index = attribute.Index(vectors, fields={"kind": field})
    chances = np.array([[0.9, 0.06, 0.03, 0.01]] * 2)
    asked = fusion.conditions(chances, names, "kind", 0.9)
    assert asked[0] == {"preferred": [{"field": "kind", "values": ("shirts",), "unknown": True}]}
    shirts = int((gallery == 0).sum()) + 2
    found = index.find(vectors[:2], 30, asked).ranking.item_rows
    assert (found >= 0).all() and shirts < 30
    assert np.isin(gallery[found[:, :shirts]], (0, -1)).all() and not np.isin(gallery[found[:, shirts:]], (0, -1)).any()
    assert fusion.conditions(chances, names, "kind", 0.9, known=["hats"]) == [{}, {}]
    assert fusion.conditions(chances, names, "kind", 0.99, known=["hats"])[0]["preferred"][0]["values"] == ("hats",)


def test_mistakes_are_named():
    vectors, categories = listings(10)
    reference = fusion.Reference(vectors, categories, COUNT)
    with pytest.raises(InputError, match="k=30 neighbours, and the reference set has 10 listings"):
        reference.neighbours(vectors)
    with pytest.raises(InputError, match="none of the 10 listings of the reference set has a known category"):
        fusion.Reference(vectors, np.full(10, -1), COUNT)
    with pytest.raises(InputError, match="refers to rows"):
        fusion.Reference(vectors, categories, 2)
    with pytest.raises(InputError, match="expected .10."):
        fusion.Reference(vectors, categories[:3], COUNT)
    bad = vectors.copy()
    bad[4, 0] = np.nan
    with pytest.raises(InputError, match="non-finite"):
        reference.neighbours(bad, 3)
    with pytest.raises(InputError, match="non-finite"):
        fusion.Reference(bad, categories, COUNT).neighbours(vectors, 3)
    with pytest.raises(InputError, match=r"expected \[n, 6\]"):
        reference.add(vectors[:, :3], categories)
    logits = np.zeros((10, COUNT))
    with pytest.raises(InputError, match="logits: 1 of 10 vectors is non-finite"):
        fusion.softmax(np.where(np.arange(10)[:, None] == 3, np.nan, logits))
    neighbours = reference.neighbours(vectors, 5)
    with pytest.raises(InputError, match="none of the 10 listings to fit the weights on"):
        fusion.fit(logits, neighbours, np.full(10, -1), ks=(5,))
    with pytest.raises(InputError, match="ks=30"):
        fusion.fit(logits, neighbours, categories)
    for call in (lambda: fusion.softmax(logits, 0.0), lambda: fusion.vote(*neighbours, COUNT, -1.0)):
        with pytest.raises(InputError, match="expected a finite number of at least 1e-06"):
            call()
    with pytest.raises(InputError, match="mass=1.5"):
        fusion.top(np.ones((1, 2)), 1.5)
