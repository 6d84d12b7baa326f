"""The attribute index: equal to brute force over the matching rows, never short, and with the reasons."""

import contextlib
import dataclasses
import json
import warnings
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

import attribute_catalogues as catalogues
from retrieval_jax.data import fields as field_lib
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.index import attribute, exact
from retrieval_jax.index.attribute import Clause, Conditions, Field, finding, scan
from retrieval_jax.index.attribute.table import to_rows

listings = st.lists(catalogues.listing, min_size=1, max_size=30)
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@contextlib.contextmanager
def small(few):
    """Scans codes, or asks the inner index, from `few` rows on, with next to no margin."""
    with (
        mock.patch.object(scan, "FEW", few),
        mock.patch.object(finding, "FEW", few),
        mock.patch.object(scan, "MARGIN", 1),
        mock.patch.object(scan, "PART", 8),
        mock.patch.object(scan, "BLOCK", 8),
        mock.patch.object(scan, "NUMBERS", 8),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


def built(found, order=0, **kwargs):
    """Returns the index of listings, their ids, and {id: listing}."""
    ids = [f"é{number}" for number in np.random.default_rng(order).permutation(len(found))]
    gallery = np.array([one["vector"] for one in found], np.float32)
    return (
        attribute.Index(gallery, ids, fields=catalogues.fields(found), **kwargs),
        ids,
        dict(zip(ids, found, strict=True)),
    )


def allowed(index, conditions):
    """Returns whether the index takes conditions: some random ones contradict themselves."""
    try:
        index.table.check(attribute.parse(conditions))
        return True
    except InputError:
        return False


@quick
@given(listings, catalogues.conditions, st.integers(1, 8), st.integers(0, 40), st.booleans())
def test_every_search_equals_brute_force_ties_included(found, conditions, k, few, with_ids):
    index, ids, by_id = built(found)
    if not allowed(index, conditions):
        return
    queries = np.array([[1, 0, 0], [1, 1, -1], [0, 0, 0]], np.float32)
    own = [ids[0], "other", ids[-1] if len(ids) > 1 else "another"] if with_ids else [None] * 3
    with small(few):
        result = index.find(Embeddings(own, queries) if with_ids else queries, k, conditions)
    for query in range(3):
        want, matches = catalogues.search(by_id, queries[query], k, conditions, own[query])
        rows = [row for row in result.ranking.item_rows[query] if row >= 0]
        have = zip(rows, result.ranking.scores[query], result.relaxed[query], strict=False)
        assert [(ids[row], score, relaxed) for row, score, relaxed in have] == want
        assert result.matches[query] == matches
        assert bool(result.note(query)) == (matches < k or any(relaxed for *_, relaxed in want))


@settings(quick, max_examples=12)
@given(
    st.lists(catalogues.listing, min_size=8, max_size=30),
    catalogues.conditions,
    st.integers(1, 6),
    st.sampled_from((("faiss_index", {"factory": "IVF4,Flat"}), ("binary", {"candidates": 2, "bits": 8}))),
)
def test_approximate_indexes_inside_find_only_matches_and_never_too_few(found, conditions, k, inner):
    with small(0):
        index, ids, by_id = built(found, inner=inner[0], inner_kwargs=inner[1])
        if not allowed(index, conditions):
            return
        result = index.find(np.array([[1, 0, 0], [1, 1, -1]], np.float32), k, conditions)
    for query, vector in enumerate(([1, 0, 0], [1, 1, -1])):
        want, matches = catalogues.search(by_id, vector, len(ids), conditions)
        known = {name: (score, relaxed) for name, score, relaxed in want}
        rows = [row for row in result.ranking.item_rows[query] if row >= 0]
        assert len(rows) == min(k, matches)
        for row, score, relaxed in zip(rows, result.ranking.scores[query], result.relaxed[query], strict=False):
            assert known[ids[row]] == (score, relaxed)


@pytest.mark.parametrize("coarse", [None, ConfigDict({"bits": 8, "candidates": 60})])
def test_milvus_inside_equals_brute_force(tmp_path, coarse):
    pytest.importorskip("pymilvus")
    rng = np.random.default_rng(0)
    found = [
        {
            "vector": rng.integers(-3, 4, 3),
            "colour": list(rng.choice(catalogues.COLOURS, rng.integers(0, 3), replace=False)),
            "brand": list(rng.choice(catalogues.BRANDS, rng.integers(0, 2))),
            "price": float(rng.choice([np.nan, 1, 2, 3])),
        }
        for _ in range(60)
    ]
    with small(0):
        index, ids, by_id = built(found, inner="milvus", inner_kwargs={"uri": str(tmp_path / "m.db"), "coarse": coarse})
        for conditions in (
            Conditions(required=(Clause("colour", ("warm",)),)),
            Conditions((Clause("brand", ("Acme", "Bolt"), unknown=True),), (), (Clause("price", (), 2, 3),)),
            Conditions((), (Clause("price", (), 1, 1), Clause("colour", ("blue",))), (Clause("brand", ("Acme",)),)),
        ):
            result = index.find(np.array([[1, 0, 2]], np.float32), 7, conditions)
            want, _ = catalogues.search(by_id, [1, 0, 2], 7, conditions)
            rows = result.ranking.item_rows[0]
            assert [(ids[row], score) for row, score in zip(rows, result.ranking.scores[0], strict=True)] == [
                (name, score) for name, score, _ in want
            ]


def test_a_scan_of_codes_gives_the_bits_of_exact_search():
    rng = np.random.default_rng(0)
    gallery, queries = rng.normal(size=(30_000, 24)), rng.normal(size=(9, 24))
    gallery[::3] = gallery[0]  # a run of ties longer than any margin
    queries[0] = gallery[0]
    kept = rng.random(30_000) < 0.7
    index = attribute.Index(gallery, fields={"kept": Field.of(["yes" if one else None for one in kept])})
    have = index.find(queries, 10, {"required": [("kept", ("yes",))]}).ranking
    want = exact.Index(gallery[kept]).search(queries, 10)
    np.testing.assert_array_equal(have.item_rows, np.flatnonzero(kept)[want.item_rows])
    np.testing.assert_array_equal(have.scores, want.scores)


@pytest.mark.parametrize("count", [2, 9])  # by codes, and by one product
def test_a_search_of_all_rows_gives_the_bits_of_exact_search(count):
    rng = np.random.default_rng(0)
    gallery = rng.normal(size=(20_000, 24)).astype(np.float32)
    gallery[::3], gallery[7] = gallery[0], 0
    gallery[1::3] *= rng.uniform(0.1, 10, (len(gallery[1::3]), 1)).astype(np.float32)
    ids = [f"g{row}" for row in rng.permutation(20_000)]
    queries = Embeddings([ids[row] for row in range(count)], gallery[:count])  # each has its own row in the gallery
    index = attribute.Index(gallery, ids, fields={"n": np.zeros(20_000, np.float32)})
    for k in (1, 10, 900):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a zero vector
            have, want = index.find(queries, k).ranking, exact.Index(gallery, ids).search(queries, k)
        np.testing.assert_array_equal(have.item_rows, want.item_rows)
        np.testing.assert_array_equal(have.scores, want.scores)


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, -np.inf]), min_size=1, max_size=700), st.integers(1, 60))
@quick
def test_the_bound_of_a_product_is_reached_by_k_values(values, k):
    found = scan._bound(np.array(values, np.float32), k)
    assert sum(value >= found for value in values) >= min(k, len(values))


def test_a_candidate_scan_searches_the_listings_that_share_most():
    index, ids, _ = built([dict(vector=(1, 0, 0), colour=["red"], brand=["Acme"], price=1.0)] * 3
                          + [dict(vector=(0, 1, 0), colour=["crimson"], brand=[], price=1.0)] * 3
                          + [dict(vector=(1, 1, 1), colour=["blue"], brand=[], price=1.0)] * 6)  # fmt: skip
    wanted = {"colour": {"crimson": 0.9, "unheard of": 1.0}, "brand": {"Acme": 0.5}}
    assert index.candidates(wanted, 12).tolist() == [0, 1, 2, 3, 4, 5]
    assert index.candidates(wanted, 3).tolist() == [3, 4, 5]
    assert index.candidates(wanted, 2).tolist() == sorted(sorted([3, 4, 5], key=ids.__getitem__)[:2])
    rows = index.among(np.array([[1.0, 0.1, 0]]), [np.array([1, 3, 9])], 2).item_rows
    assert rows.tolist() == [[1, 9]]
    with pytest.raises(InputError, match="no field 'color'; did you mean colour"):
        index.candidates({"color": {"red": 1.0}}, 3)
    with pytest.raises(InputError, match="from 0 to 1"):
        index.candidates({"colour": {"red": 2.0}}, 3)
    with pytest.raises(InputError, match="'price' is a number"):
        index.candidates({"price": {"red": 1.0}}, 3)


def test_rows_of_a_candidate_scan_are_checked_and_made_unique():
    index, queries = attribute.Index(np.eye(4) + 1, list("abcd"), fields={}), np.eye(4)[:2]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert index.among(queries, [[2, 0, 2, 3], np.array([1, 3])], 2).item_rows.tolist() == [[0, 2], [1, 3]]
    with pytest.warns(UserWarning, match="1 of 2 queries have fewer than 2 results"):
        assert index.among(queries, [[0, 0], [1, 3]], 2).item_rows.tolist() == [[0, -1], [1, 3]]
    for rows, says in (
        ([[0]], "1 lists of rows for 2 queries"),
        ([[0], [4]], r"rows\[1\]"),
        ([[-1], [0]], r"rows\[0\]"),
    ):
        with pytest.raises(InputError, match=says):
            index.among(queries, rows, 1)


@quick
@given(listings, st.sampled_from((None, 1, 2)), st.booleans())
def test_facets_equal_counting(found, top, by_rows):
    index, _, _ = built(found)
    with mock.patch("retrieval_jax.index.attribute.facets.ENTRY", 0.0 if by_rows else 1e9):
        have = index.facets({"excluded": [("brand", ("Acme",))]}, top=top)
    kept = [one for one in found if one["brand"] != ["Acme"]]
    colours = [name for one in kept for name in set().union(*map(catalogues.lineage, one["colour"]))]
    want = sorted(((name, colours.count(name)) for name in set(colours)), key=lambda pair: (-pair[1], pair[0]))
    assert have["colour"] == want[:top]
    assert sum(count for _, count in index.facets(fields=["brand"])["brand"]) == sum(
        bool(one["brand"]) for one in found
    )
    with pytest.raises(InputError, match="'price' is a number"):
        index.facets(fields=["price"])


def test_predicted_values_are_told_apart_from_known_ones():
    names = ["leather", "suede"]
    field = Field(names, [0, 1, 2, 4, 4], [0, 0, 0, 1], np.array([1.0, 0.7, 0.99999, 0.2]))
    gallery = np.eye(4, dtype=np.float32) + 1
    index = attribute.Index(gallery, list("abcd"), fields={"material": field, "price": [5, 6, 7, np.nan]})
    wanted = {"required": [{"field": "price", "low": 0, "unknown": True}], "preferred": [("material", ("leather",))],
              "excluded": [("material", ("suede",))]}  # fmt: skip
    found = index.find(gallery[:1], 4, wanted)
    parts = {"appearance": np.array([0.5, 0.25, 0.5, 0.1]), "colour": np.array([0.5, 0.75, -0.5, 0.0])}
    first, second, third = index.explain(found, 0, {k: v for k, v in parts.items()}, {"colour": 3.0})
    assert [one.id for one in (first, second, third)] == ["a", "b", "d"]
    assert [one.reasons[1].state for one in (first, second, third)] == ["matched", "predicted", "relaxed"]
    assert second.reasons[1].probability == pytest.approx(0.7, abs=1e-3) and first.reasons[1].probability == 1
    assert third.reasons[0].state == "unknown" and third.reasons[2].state == "unknown"
    assert first.parts == {"appearance": (0.5, 1.0, 0.25), "colour": (0.5, 3.0, 0.75)}
    assert json.loads(json.dumps(second.to_json()))["reasons"][1]["text"] == "material: leather"
    assert json.loads(json.dumps(found.to_json(0)))["relaxed"] == [{"field": "material", "values": ["leather"]}]
    assert "met by 2 listings, so these were relaxed, in this order: 'material: leather'" in found.note(0)
    assert index.table.chances(0, np.array([0, 1, 2]))[2] < 1  # 0.99999 is not rounded up to known
    with pytest.raises(InputError, match=r"parts\['colour'\] has shape"):
        index.explain(found, 0, {"colour": np.ones(2)})
    with pytest.raises(InputError, match="a weight for 'color'"):
        index.explain(found, 0, {"colour": np.ones(4)}, {"color": 1.0})
    for query in (1, -1, "0"):
        with pytest.raises(InputError, match="expected an integer from 0 to 0"):
            index.explain(found, query)


def test_predicted_exclusions_and_unmet_clauses_have_states_of_their_own():
    kinds = Field(["top", "shirt", "leather"], [0, 1, 2, 3], [1, 2, 1], np.array([0.625, 1, 1]), [-1, 0, -1])
    table = attribute.build({"kind": kinds, "price": [5, 6, 7]}, 3)
    given = attribute.parse(
        {"required": [("price", 6, None)], "preferred": [("kind", ("shirt",))], "excluded": [("kind", ("leather",))]}
    )
    found = attribute.reasons(table, given, np.arange(3))
    assert [[one.state for one in row] for row in found] == [
        ["unmet", "predicted", "predicted"],
        ["matched", "relaxed", "unmet"],
        ["matched", "matched", "matched"],
    ]
    assert found[0][2].values == ("shirt",) and found[0][2].probability == pytest.approx(0.625)


def test_the_seam_of_indexes_returns_a_ranking_and_warns_of_short_results():
    index, _, _ = built([dict(vector=(1, 0, 0), colour=["red"], brand=[], price=1.0)] * 3,
                        conditions={"required": [("colour", ("warm",)), ("price", None, 1)]})  # fmt: skip
    with pytest.warns(UserWarning, match="met by 3 listings, fewer than the 5 asked for"):
        assert index.search(np.ones((1, 3)), 5).item_rows.shape == (1, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        index.search(np.ones((1, 3)), 3)
    assert attribute.Index(np.ones((2, 3)), fields={}).find(np.ones((1, 3)), 2).note(0) == ""


def test_a_saved_index_is_read_memory_mapped(tmp_path):
    found = [dict(vector=(1, 0, 0), colour=["red"], brand=["Bolt"], price=2.0)] * 3
    index, ids, _ = built(found)
    index.save(tmp_path / "table")
    again = attribute.Index(index.exact.gallery, ids, fields=tmp_path / "table")
    assert isinstance(again.table.segments[0][1].values.base, np.memmap)
    assert again.facets() == index.facets() and again.table.sizes.tolist() == index.table.sizes.tolist()
    assert to_rows(again.table.posting(again.table.number("colour", "warm"))).tolist() == [0, 1, 2]
    (tmp_path / "table" / "postings.bin").write_bytes(b"x")
    with pytest.raises(InputError, match="postings.bin is missing, or has changed"):
        attribute.Index(index.exact.gallery, ids, fields=tmp_path / "table")
    with pytest.raises(InputError, match="fields of 3 listings for a gallery of 2"):
        attribute.Index(np.ones((2, 3)), fields=attribute.build(catalogues.fields(found), 3))


def test_a_saved_table_is_of_its_own_ids(tmp_path):
    index, ids, _ = built([dict(vector=(1, 0, 0), colour=["red"], brand=["Bolt"], price=2.0)] * 3)
    index.save(tmp_path / "table")
    for other in (["x", "y", "z"], ids[::-1]):
        with pytest.raises(InputError, match="listings with other ids than this gallery's, or in another order"):
            attribute.Index(index.exact.gallery, other, fields=tmp_path / "table")
    attribute.Index(index.exact.gallery, fields=tmp_path / "table")  # without ids there is nothing to compare
    attribute.Index(index.exact.gallery, fields=index.table).save(tmp_path / "table")
    attribute.Index(index.exact.gallery, ids, fields=tmp_path / "table")


def test_exact_search_inside_takes_no_arguments():
    with pytest.raises(InputError, match="index 'exact' has no argument 'bits'"):
        attribute.Index(np.ones((2, 3)), fields={}, inner_kwargs={"bits": 8})


def test_the_index_takes_the_fields_of_a_catalogue_and_of_predictions():
    labels = field_lib.Field(["red", "blue"], np.array([0, 1, 1, 3]), np.array([1, 0, 1]), many=True)
    chances = dataclasses.replace(labels, probability=np.array([0.5, 0.75, 1], np.float32))
    index = attribute.Index(np.eye(3) + 1, fields={"colour": labels, "predicted": chances})
    assert index.facets() == {"colour": [("blue", 2), ("red", 1)], "predicted": [("blue", 2), ("red", 1)]}
    assert index.table.chances(index.table.number("predicted", "blue"), np.array([0, 2])).tolist() == [0.5, 1]
