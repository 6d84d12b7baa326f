"""Ensembles by concatenation, and the full published pipeline against its published recall."""

import json

import numpy as np
import pytest

import reference
from retrieval_jax import embeddings as module
from retrieval_jax import index, postprocess
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.embeddings.vectors import Computed
from retrieval_jax.errors import InputError
from retrieval_jax.postprocess import State, _weights, ensemble
from retrieval_jax.postprocess.l2 import normalize
from retrieval_jax.scoring import metrics
from retrieval_jax.scoring.ranking import Truth


def embeddings(vectors, space="s"):
    return Embeddings([f"item{row}" for row in range(len(vectors))], vectors, {"space": space})


@pytest.mark.parametrize("weights", [None, (1, 3)])
def test_the_cosine_is_the_weighted_mean_of_the_members(weights):
    rng = np.random.default_rng(0)
    members = [embeddings(rng.normal(size=(7, dim)), space) for dim, space in ((3, "a"), (5, "b"))]
    joined = ensemble.concatenate(members, weights)
    assert joined.dim == 8 and joined.ids == members[0].ids and joined.meta["space"] == "a+b"
    cosines = []
    for member in members:
        unit = member.vectors / np.linalg.norm(member.vectors, axis=1, keepdims=True)
        cosines.append(unit @ unit.T)
    np.testing.assert_allclose(
        joined.vectors @ joined.vectors.T, np.average(cosines, axis=0, weights=weights), atol=1e-6
    )


def test_mismatched_members_are_rejected():
    one, other = embeddings(np.eye(3)), Embeddings(["item2", "y", "z"], np.eye(3))
    with pytest.raises(InputError, match="ensemble member vit lacks 2 of the 3 ids of swin, .* item0"):
        ensemble.concatenate([one, other], names=("swin", "vit"))
    more = Embeddings(["item0", "item1", "item2", "new"], np.eye(4))
    with pytest.raises(InputError, match="ensemble member 0 lacks 1 of the 4 ids of 1, starting with new"):
        ensemble.concatenate([one, more])
    with pytest.raises(InputError, match="ensemble member 1 has 1 duplicate ids"):
        ensemble.concatenate([one, Embeddings(["item0", "item1", "item1"], np.eye(3))])
    for weights in ((1,), (1, -1), (0, 0), (np.inf, 1), (np.nan, 1)):
        with pytest.raises(InputError, match="weights"):
            ensemble.concatenate([one, one], weights)


@pytest.mark.parametrize("kept", [0, module.folder.KEPT_BYTES])
def test_members_are_reordered_to_match_the_first(kept, monkeypatch):
    rng = np.random.default_rng(1)
    members = [embeddings(rng.normal(size=(40, dim))) for dim in (3, 5, 2)]
    expected = ensemble.concatenate(members, (1, 2, 3))
    order = rng.permutation(40)
    shuffled = Embeddings(members[1].ids[order], members[1].vectors[order].astype(np.float32), members[1].meta)
    monkeypatch.setattr(module.folder, "KEPT_BYTES", kept)
    joined = ensemble.concatenate([members[0], shuffled, members[2]], (1, 2, 3))
    assert isinstance(joined.vectors, Computed) == (kept == 0)
    assert joined.ids == members[0].ids and np.array_equal(np.asarray(joined.vectors), expected.vectors)


def test_a_zero_vector_leaves_only_the_other_members():
    joined = ensemble.concatenate([embeddings(np.zeros((1, 2))), embeddings(np.array([[0.0, 5.0]]))])
    np.testing.assert_allclose(joined.vectors, [[0, 0, 0, 1]])


def test_an_unknown_step_lists_the_available_ones():
    assert {"whitening", "l2", "ensemble", "reranking"} <= set(postprocess.names())
    with pytest.raises(InputError, match="whitenning.*ensemble, .*l2, .*reranking, .*whitening"):
        postprocess.get("whitenning")


def test_l2_gives_unit_vectors_and_keeps_zeros():
    side = embeddings(np.array([[3.0, 4.0], [0.0, 0.0]]))
    ((queries, gallery),) = postprocess.get("l2").step(State([(side, side)])).members
    np.testing.assert_allclose(queries.vectors, [[0.6, 0.8], [0, 0]], atol=1e-7)
    assert np.array_equal(queries.vectors, gallery.vectors)


def test_the_published_pipeline_reaches_its_published_recall():
    with np.load(reference.path("parity/postprocess.npz")) as file:
        arrays = dict(file)
    query_ids = [f"query{row}" for row in range(len(arrays["query_0"]))]
    gallery_ids = [f"item{row:05d}" for row in range(len(arrays["gallery_0"]))]
    members = [
        (Embeddings(query_ids, arrays[f"query_{m}"]), Embeddings(gallery_ids, arrays[f"gallery_{m}"])) for m in (0, 1)
    ]
    truth = Truth.from_lists(
        query_ids,
        gallery_ids,
        [
            [gallery_ids[row] for row in np.flatnonzero(arrays["gallery_product"] == product)]
            for product in arrays["query_product"]
        ],
    )
    state = State(members)
    for name in ("whitening", "ensemble"):
        state = postprocess.get(name).step(state)
    ranking = index.get("exact").Index(state.members[0][1]).search(state.members[0][0], 100)
    for found, expected in zip(ranking.item_rows, arrays["ensemble_top100"], strict=True):
        assert set(found) == set(expected)
    # theirs is the inner product of two concatenated unit vectors: the sum of the cosines, twice the mean
    np.testing.assert_allclose(2 * ranking.scores, arrays["ensemble_scores"], atol=1e-4)
    assert metrics.evaluate(ranking, truth)["mar@10_capped"] == pytest.approx(0.705, abs=5e-4)
    state = postprocess.get("reranking").step(State(state.members, ranking))
    assert metrics.evaluate(state.ranking, truth)["mar@10_capped"] == pytest.approx(0.857, abs=5e-4)


def _noisy(noise, seed, dim=16, products=60):
    """Queries and gallery of the same products, each seen with noise."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(products, dim))
    sides = (centres + noise * rng.normal(size=centres.shape) for _ in range(2))
    ids = ([f"{side}{row}" for row in range(products)] for side in "qg")
    return tuple(
        Embeddings(names, rows.astype(np.float32), {"space": f"s{seed}"})
        for names, rows in zip(ids, sides, strict=True)
    )


def _hits(queries, gallery):
    return ((normalize(queries.vectors[:]) @ normalize(gallery.vectors[:]).T).argmax(1) == np.arange(60)).mean()


def test_weights_chosen_without_labels_beat_the_better_member(tmp_path, capsys):
    members = [_noisy(1.1, 1), _noisy(0.8, 2)]
    alone = [_hits(*both) for both in members]
    state = ensemble.step(State(members, None, ("weak", "strong"), tmp_path), weights="chosen")
    assert _hits(*state.members[0]) > max(alone)
    record = json.loads((tmp_path / "ensemble_weights.json").read_text())
    assert record["weights"]["strong"] > 0.3 and np.isclose(sum(record["weights"].values()), 1)
    assert "weights weak 0" in capsys.readouterr().out
    again = ensemble.step(State(members, None, ("weak", "strong")), weights="chosen")
    assert np.array_equal(again.members[0][0].vectors[:], state.members[0][0].vectors[:])


def test_a_member_of_noise_gets_next_to_no_weight():
    noise = tuple(Embeddings(side.ids, np.random.default_rng(5).normal(size=(60, 16)), {}) for side in _noisy(0, 1))
    noise = (noise[0], Embeddings(noise[1].ids, np.random.default_rng(6).normal(size=(60, 16)), {}))
    members = [_noisy(0.5, 1), noise]
    state = ensemble.step(State(members, None, ("good", "noise")), weights="chosen")
    assert _hits(*state.members[0]) >= _hits(*members[0]) - 0.02


def test_mutual_matches_equal_a_loop(monkeypatch):
    monkeypatch.setattr(_weights, "BLOCK", 7)
    members = [tuple(normalize(side.vectors[:]) for side in _noisy(1.0, seed)) for seed in (1, 2)]
    scores = [queries @ gallery.T for queries, gallery in members]
    for weight, found in zip(_weights.GRID, _weights._mutual(members, [1.0]), strict=True):
        mixed = (1 - weight) * scores[0] + weight * scores[1]
        assert found.tolist() == [mixed[:, mixed[row].argmax()].argmax() == row for row in range(60)]


def test_the_weight_is_the_middle_of_those_that_are_as_good():
    rng = np.random.default_rng(0)
    likely = np.full((len(_weights.GRID), 1), 0.3)
    likely[6:13] = 0.7  # flat; at both ends the mean of three is lower
    likely[8] += 0.001  # the best by a query or none
    smoothed = _weights._smoothed(rng.random((1, 400)) < likely)
    assert _weights._as_good(smoothed) == (7, 11)
    assert _weights._as_good(np.ones((len(_weights.GRID), 9))) == (0, len(_weights.GRID) - 1)  # all alike: one half
    only = np.zeros((len(_weights.GRID), 50))
    only[-1] = 1.0
    assert _weights._as_good(only) == (len(_weights.GRID) - 1,) * 2


def test_chosen_weights_of_three_members_in_other_orders():
    members = [_noisy(0.9, seed) for seed in (1, 2, 3)]
    order = np.random.default_rng(0).permutation(60)
    members[1] = tuple(side.take(order) for side in members[1])
    state = ensemble.step(State(members, None, ("a", "b", "c")), weights="chosen")
    assert _hits(*state.members[0]) > max(_hits(*both) for both in members)


def test_other_words_for_weights_are_refused():
    with pytest.raises(InputError, match="weights='choose': give one number for each member, or 'chosen'"):
        ensemble.step(State([_noisy(1, 1)]), weights="choose")
