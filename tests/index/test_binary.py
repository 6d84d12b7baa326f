"""Search in a binary index: against loops, exact search and other shard counts; ties, own ids, bad input."""

import numpy as np
import pytest

from retrieval_jax import index
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.index import binary
from retrieval_jax.index.binary import codes, learned


def vectors(count, dim=24, seed=0):
    """Returns vectors around a few centres, some of them duplicates, one zero."""
    rng = np.random.default_rng(seed)
    out = rng.normal(size=(12, dim))[rng.integers(0, 12, count)] + 0.4 * rng.normal(size=(count, dim))
    out[count // 2 : count // 2 + 20] = out[3]
    out[7] = 0
    return out.astype(np.float32)


def names(count, seed=1):
    return [f"p{number}é" if number % 3 else f"p{number}" for number in np.random.default_rng(seed).permutation(count)]


def naive(coder, gallery, ids, queries, query_ids, k, count, probes):
    """Searches with loops: compares every code, sorts by (distance, id), then candidates by (cosine, id)."""
    code, cell = coder.encode(gallery)
    query_code, query_cells = coder.encode(queries, probes)
    out = []
    for number, query in enumerate(queries):
        near = []
        for row, vector in enumerate(gallery):
            if ids[row] != query_ids[number] and cell[row, 0] in query_cells[number]:
                pairs = zip(code[row].tolist(), query_code[number].tolist(), strict=True)
                distance = sum((a ^ b).bit_count() for a, b in pairs)
                norm = np.linalg.norm(vector.astype(float)) * np.linalg.norm(query.astype(float))
                cosine = np.float32(vector.astype(float) @ query.astype(float) / norm if norm else 0)
                near.append((distance, ids[row].encode(), row, cosine))
        best = sorted(near)[:count]
        out.append([(row, cosine) for _, _, row, cosine in sorted(best, key=lambda item: (-item[3], item[1]))[:k]])
    return out


def check(ranking, expected):
    for rows, scores, want in zip(ranking.item_rows, ranking.scores, expected, strict=True):
        np.testing.assert_allclose(scores[: len(want)], [score for _, score in want], rtol=0, atol=2e-7)
        assert rows[: len(want)].tolist() == [row for row, _ in want]
        assert (rows[len(want) :] == -1).all()


@pytest.mark.parametrize("cells, probes", [(1, None), (7, 3)])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("bits, count", [(8, 20), (48, 40)])
def test_equals_loops(cells, probes, shards, bits, count):
    gallery, ids, queries = vectors(300), names(300), vectors(9, seed=5)
    queries[2] = gallery[3]  # twenty ties
    query_ids = ["q0", ids[5], "q2", ids[150], "q4", "q5", "q6", "q7", "q8"]
    engine = index.get("binary").Index(
        Embeddings(ids, gallery), candidates=count, bits=bits, cells=cells, probes=probes, shards=shards
    )
    found = engine.search(Embeddings(query_ids, queries), 12)
    check(found, naive(engine.coder, gallery, ids, queries, query_ids, 12, count, engine.probes))
    assert 5 not in found.item_rows[1] and found.gallery_sha256 == Embeddings(ids, gallery).ids.sha256()


def test_surplus_ties_are_cut_by_id():
    gallery = np.ones((400, 16), np.float32)
    gallery[::5] += np.random.default_rng(0).normal(size=(80, 16)).astype(np.float32) / 4
    ids = names(400)
    engine = binary.Index(gallery, ids, candidates=30, bits=16, shards=4)
    check(engine.search(gallery[:6], 10), naive(engine.coder, gallery, ids, gallery[:6], [""] * 6, 10, 30, 1))
    rows = engine.search(np.ones((1, 16), np.float32), 10).item_rows[0]
    equal = [row for row in range(400) if row % 5]
    assert rows.tolist() == sorted(equal, key=lambda row: ids[row].encode())[:10]


@pytest.mark.parametrize("kind", ["plain", "equal", "integers"])
def test_results_do_not_depend_on_the_number_of_shards(kind):
    gallery = {
        "plain": vectors(2000),
        "equal": np.ones((2000, 24), np.float32),
        "integers": np.random.default_rng(0).integers(-1, 2, (2000, 24)).astype(np.float32),
    }[kind]
    ids, queries = names(2000), vectors(40, seed=9)
    results = [
        binary.Index(gallery, ids, candidates=60, bits=32, cells=9, probes=4, shards=shards).search(queries, 10)
        for shards in (1, 2, 3, 7)
    ]
    for other in results[1:]:
        np.testing.assert_array_equal(other.item_rows, results[0].item_rows)
        np.testing.assert_array_equal(other.scores, results[0].scores)


def test_with_all_rows_as_candidates_it_equals_exact_search():
    gallery, ids, queries = vectors(500), names(500), vectors(30, seed=3)
    found = binary.Index(gallery, ids, candidates=500, bits=16).search(queries, 10)
    exact = index.get("exact").Index(gallery, ids).search(queries, 10)
    np.testing.assert_array_equal(found.item_rows, exact.item_rows)
    np.testing.assert_allclose(found.scores, exact.scores, rtol=0, atol=1e-7)


def test_recall_grows_with_candidates_and_bits():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(60, 64))
    gallery, queries = (centres[rng.integers(0, 60, count)] + rng.normal(size=(count, 64)) for count in (4000, 100))
    best = np.argsort(-codes.units(queries) @ codes.units(gallery).T, 1)[:, :10]

    def recall(**settings):
        rows = binary.Index(gallery.astype(np.float32), **settings).search(queries, 10).item_rows
        return np.mean([np.isin(want, have).mean() for want, have in zip(best, rows, strict=True)])

    few, some, many = (recall(bits=64, candidates=count) for count in (10, 50, 200))
    assert few < some < many and many > 0.95
    assert recall(bits=128, candidates=50) > some > recall(bits=32, candidates=50)


def test_the_learned_rotation_is_orthogonal_and_beats_a_random_one():
    rng = np.random.default_rng(0)
    unit = codes.units(rng.normal(size=(2000, 32)) * np.linspace(2, 0.2, 32))
    unit -= unit.mean(0)

    def lost(rotation):
        turned = unit @ rotation
        return np.linalg.norm(np.sign(turned) / np.sqrt(32) - turned)

    learned, random = (codes.fit_rotation(unit, 32, rounds, 0) for rounds in (20, 0))
    assert lost(learned) < 0.98 * lost(random)
    for bits in (32, 64):
        rotation = codes.fit_rotation(unit, bits, 5, 0)
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(32), atol=1e-4)
    # fewer bits: the directions of largest variance
    low = codes.fit_rotation(unit, 8, 5, 0)
    np.testing.assert_allclose(low.T @ low, np.eye(8), atol=1e-4)
    assert np.square(unit @ low).sum() > 0.98 * np.square(unit @ np.linalg.eigh(unit.T @ unit)[1][:, -8:]).sum()


def test_learned_codes_keep_more_neighbours_than_rotations(monkeypatch):
    """Neighbours are decided by few directions, which rotations give no more bits than the others."""
    monkeypatch.setattr(learned, "STEPS", 150)
    rng = np.random.default_rng(0)
    gallery, queries = (rng.normal(size=(count, 32)) / np.arange(1, 33) for count in (800, 100))
    best = np.argsort(-codes.units(queries) @ codes.units(gallery).T, 1)[:, :10]

    def recall(**settings):
        rows = binary.Index(gallery, bits=24, candidates=10, **settings).search(queries, 10).item_rows
        return np.mean([np.isin(want, have).mean() for want, have in zip(best, rows, strict=True)])

    ours, itq, random = recall(method="learned"), recall(), recall(rounds=0)
    assert ours > 1.1 * max(itq, random), (ours, itq, random)


def test_the_gradient_of_learned_codes_is_that_of_plain_loops():
    """One step against the loss written out: softmax over the company, a sign that passes gradients on where small."""
    rng = np.random.default_rng(0)
    value, cosine = rng.normal(size=(9, 8)), rng.normal(size=(4, 9))  # 9 rows of 8 bits, the first 4 are anchors

    def loss(sign, inputs):
        total = 0.0
        for anchor in range(4):
            others = [row for row in range(9) if row != anchor]
            wanted = np.exp([cosine[anchor, row] / learned.COSINES for row in others])
            have = np.array([learned.CODES * sign[anchor] @ sign[row] / 8 for row in others])
            have -= np.log(np.exp(have).sum())
            total -= (wanted / wanted.sum()) @ have / 4
        return total + learned.QUANTISATION * np.mean((inputs - np.where(value > 0, 1.0, -1.0)) ** 2)

    sign, want = np.where(value > 0, 1.0, -1.0), np.zeros_like(value)
    for row, bit in np.ndindex(*value.shape):
        step = np.zeros_like(value)
        step[row, bit] = 1e-5
        through = step * (abs(value[row, bit]) <= learned.PASSES)
        want[row, bit] = (loss(sign + through, value + step) - loss(sign - through, value - step)) / 2e-5
    have = learned.slope(value.astype(np.float32), (cosine / learned.COSINES).astype(np.float32))
    np.testing.assert_allclose(have, want, atol=2e-5)


def test_learned_codes_are_the_same_every_time_and_harmless_on_odd_vectors(monkeypatch):
    monkeypatch.setattr(learned, "STEPS", 20)
    gallery = vectors(200)
    first, second = (codes.fit(gallery, bits=16, method="learned").rotation for _ in range(2))
    np.testing.assert_array_equal(first, second)
    for odd in (np.ones((50, 8)), np.zeros((50, 8)), np.ones((1, 8)), np.eye(2, 8)):
        assert np.isfinite(codes.fit(odd, bits=16, method="learned").rotation).all()


def test_signs_of_vectors_are_codes_as_they_are():
    gallery = vectors(100)
    coder = codes.fit(gallery, method="signs", cells=3)
    np.testing.assert_array_equal(coder.encode(gallery)[0], np.packbits(codes.units(gallery) > codes.ZERO, axis=1))
    with pytest.raises(InputError, match="own signs are 24 bits: leave bits out"):
        codes.fit(gallery, method="signs", bits=16)
    with pytest.raises(InputError, match="bits=20, expected a multiple of 8"):
        codes.fit(gallery[:, :20], method="signs")


def test_a_direction_without_variance_is_harmless():
    gallery = vectors(200)
    gallery[:, 5] = 0
    gallery[:, 6] = gallery[:, 7]
    coder = codes.fit(gallery, bits=48)
    assert np.isfinite(coder.rotation).all()
    np.testing.assert_allclose(coder.rotation @ coder.rotation.T, np.eye(24), atol=1e-4)


def test_codes_do_not_depend_on_the_block():
    gallery = np.random.default_rng(0).integers(-1, 2, (300, 24)).astype(np.float32)  # many products are truly zero
    coder = codes.fit(gallery, bits=24, cells=5, rounds=0)
    coder = codes.Coder(np.zeros(24), np.eye(24)[:, ::-1] - np.eye(24), coder.centroids)
    whole = coder.encode(gallery, 3)
    for size in (1, 7, 64):
        parts = [coder.encode(gallery[start : start + size], 3) for start in range(0, 300, size)]
        for want, have in zip(whole, zip(*parts, strict=True), strict=True):
            np.testing.assert_array_equal(np.concatenate(have), want)


def test_short_rankings_are_padded_and_zero_queries_are_fine():
    engine = binary.Index(vectors(30), names(30), candidates=5, bits=16)
    assert (engine.search(vectors(9, seed=2), 40).item_rows[:, 30:] == -1).all()
    assert engine.search(np.zeros((0, 24), np.float32), 3).item_rows.shape == (0, 3)


def test_all_rows_with_the_query_id_are_left_out():
    gallery, ids = np.ones((200, 16), np.float32), ["a"] * 150 + [f"b{number:02d}" for number in range(50)]
    found = binary.Index(gallery, ids, candidates=20, bits=8, shards=2).search(Embeddings(["a"], gallery[:1]), 5)
    assert found.item_rows[0].tolist() == [150, 151, 152, 153, 154]


def test_lists_stay_correct_after_additions_and_removals():
    rng = np.random.default_rng(0)
    lists, there = codes.Lists(40, 4), {}
    code, cell = rng.integers(0, 256, (500, 5), dtype=np.uint8), rng.integers(0, 4, 500)
    lists.reserve(np.bincount(cell[:100]))
    for start in range(0, 500, 100):
        rows = np.arange(start, start + 100)
        lists.add(rows, cell[rows], code[rows])
        there |= dict.fromkeys(rows.tolist())
        gone = rng.choice(sorted(there), 30, replace=False)
        lists.remove(np.append(gone, 10_000))
        for row in gone.tolist():
            del there[row]
        assert len(lists) == len(there)
        rows = np.array(sorted(there))
        query = rng.integers(0, 256, (1, 5), dtype=np.uint8)
        probes = np.array([[2, 0]])
        rows = rows[np.isin(cell[rows], probes)]
        distance = np.unpackbits(code[rows] ^ query, axis=1).sum(1)
        found, found_rows = lists.nearest(query, probes, 20)
        np.testing.assert_array_equal(found[0], np.sort(distance)[:20])
        assert len(set(found_rows[0].tolist())) == 20 and set(found_rows[0].tolist()) <= set(rows.tolist())
        radius = int(np.sort(distance)[25])
        near, near_rows = lists.within(query, probes, radius)
        assert sorted(near_rows.tolist()) == rows[distance <= radius].tolist()
        assert near.max() <= radius


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"bits": 12}, "multiple of 8"),
        ({"bits": 0}, "bits="),
        ({"cells": 0}, "cells"),
        ({"cells": 31}, "cells"),
        ({"probes": 0}, "probes"),
        ({"candidates": 0}, "candidates"),
        ({"shards": 0}, "shards"),
        ({"ids": ["a"]}, "one id per row"),
    ],
)
def test_settings_out_of_range_are_rejected(settings, words):
    with pytest.raises(InputError, match=words):
        binary.Index(vectors(30), **settings)


def test_bad_vectors_are_named_by_row_and_id():
    gallery = vectors(30)
    gallery[11, 2] = np.nan
    with pytest.raises(InputError, match="row 11"):
        binary.Index(gallery, names(30))
    engine = binary.Index(vectors(30), names(30), bits=16)
    queries = vectors(9)
    queries[4, 0] = np.inf
    with pytest.raises(InputError, match=r"row 4 \(q4\)"):
        engine.search(Embeddings([f"q{number}" for number in range(9)], queries), 3)
    with pytest.raises(InputError, match="same model"):
        engine.search(np.zeros((2, 5), np.float32), 3)
    with pytest.raises(InputError, match="k=0, expected an integer of at least 1"):
        engine.search(vectors(9), 0)
    with pytest.raises(InputError, match="got shape"):
        binary.Index(np.zeros((0, 4), np.float32))


def test_a_coder_round_trips_and_other_files_are_rejected(tmp_path):
    coder = codes.fit(vectors(100), cells=4)
    coder.save(tmp_path / "coder.npz")
    again = codes.Coder.load(tmp_path / "coder.npz")
    for want, have in zip(coder.encode(vectors(50), 2), again.encode(vectors(50), 2), strict=True):
        np.testing.assert_array_equal(have, want)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "coder.npz").read_bytes()[:-100])
    np.savez(tmp_path / "other.npz", mean=np.zeros(3), rotation=np.zeros((4, 8)), centroids=np.zeros((1, 3)))
    for file in ("cut.npz", "other.npz", "none.npz"):
        with pytest.raises(InputError, match=file):
            codes.Coder.load(tmp_path / file)
