"""Scores of edits: values by hand and by plain loops, and what is not scored."""

import dataclasses

import numpy as np
import pytest

import edited_catalogue as edited
from retrieval_jax.data import fields
from retrieval_jax.embeddings import Ids
from retrieval_jax.errors import InputError
from retrieval_jax.scoring import bootstrap, edits, metrics
from retrieval_jax.scoring.ranking import Ranking, Truth

NAN = np.nan


def test_the_edit_happened_and_the_rest_stayed():
    catalog = edited.catalogue()
    asked = edits.of_catalog(catalog, ("type", "colour"), fields.read)
    found = edits.per_query(edited.ranking(catalog), asked, depth=4)
    # in blue: g1 and g4 are; not red: g0 and g6 are red, and the unknown colour of g5 is not known to be
    # without a belt: g1, g3 and g7 have none, and a fourth result is missing
    np.testing.assert_array_equal(found["right@4"], [2 / 4, 2 / 4, 3 / 4, NAN, NAN, NAN, 3 / 4])
    # g0 is a shirt, g3 a skirt, g2 a shirt; the reference of the last is not in the gallery
    np.testing.assert_array_equal(found["kept_type@4"], [3 / 4, 1 / 4, 2 / 4, 2 / 4, 2 / 4, 2 / 4, NAN])
    # the colour does not count where it is edited; g2 is green, g0 red
    np.testing.assert_array_equal(found["kept_colour@4"], [NAN, NAN, 1 / 4, 1 / 4, 1 / 4, NAN, NAN])
    np.testing.assert_array_equal(found["kept@4"], [3 / 4, 1 / 4, 3 / 8, 3 / 8, 3 / 8, 2 / 4, NAN])
    # right, and a shirt like g0 (g1); a skirt like g3 (g4); a green shirt like g2 (g7)
    np.testing.assert_array_equal(found["both@4"], [1 / 4, 1 / 4, 1 / 4, NAN, NAN, NAN, NAN])
    assert list(found) == edits.names(asked, 4)
    assert list(edits.per_query(edited.ranking(catalog), edits.of_catalog(catalog, ("type",), fields.read))) == [
        "right@10",
        "kept@10",
        "both@10",
    ]


def test_what_is_not_scored_is_counted():
    asked = edits.of_catalog(edited.catalogue(), (), fields.read)
    assert asked.counts == {
        "queries": 7, "scored": 4, "no_field": 1, "no_such_field": 1, "no_such_value": 1,
    }  # fmt: skip
    assert sum(asked.counts[name] for name in ("scored", "no_field", "no_such_field", "no_such_value")) == 7
    assert edits.sentence(asked.counts) == (
        "4 of 7 edits are scored (1 name no field; 1 name a field that the gallery lacks; 1 ask for a value that the "
        "field lacks)"
    )
    none = edits.of_catalog(edited.catalogue(wanted=[""] * 7), (), fields.read)
    assert none.counts["no_value"] == 3 and none.counts["scored"] == 2
    assert edits.names(none) == ["right@10"]


def test_columns_may_be_text_and_catalogues_without_them_are_not_edits():
    asked = edits.of_catalog(edited.catalogue(edited=edited.EDITED), (), fields.read)
    assert asked.counts["scored"] == 4 and edits.there(edited.catalogue())
    plain = edited.catalogue()
    del plain.query.columns["edited"]
    assert not edits.there(plain)


def test_a_field_that_the_gallery_lacks_cannot_be_kept():
    with pytest.raises(InputError, match=r"the gallery has no field 'types'; did you mean type\?"):
        edits.of_catalog(edited.catalogue(), ("types",), fields.read)
    with pytest.raises(InputError, match="a ranking of 1 queries and 7 edits"):
        edits.per_query(Ranking(["q"], [[0]], [[1.0]]), edits.of_catalog(edited.catalogue(), (), fields.read))


def test_notes_say_what_a_result_changed_and_kept():
    asked = edits.of_catalog(edited.catalogue(), ("type", "parts"), fields.read)
    blue, skirt = ("edited", "colour: blue", True), ("kept", "type: skirt", False)
    assert edits.notes(asked, 0, 4) == [blue, skirt, ("kept", "parts: unknown", False)]
    red, shirt = ("edited", "colour: red", False), ("kept", "type: shirt", False)
    assert edits.notes(asked, 1, 0) == [red, shirt, ("kept", "parts: belt", False)]
    assert edits.notes(asked, 2, 3) == [("edited", "parts: hood", True), skirt]
    assert edits.notes(asked, 6, 3) == [("edited", "colour: red", True)]  # the reference is unknown, so nothing stays


@pytest.mark.parametrize("own", [[-1] * 7, [1, 3, -1, -1, -1, -1, 0]], ids=["others", "listings"])
def test_chance_is_the_mean_over_random_orders(own):
    catalog = edited.catalogue()
    asked = edits.of_catalog(catalog, ("type", "colour"), fields.read)
    assert asked.own.tolist() == [-1] * 7  # the queries are not listings themselves
    asked = dataclasses.replace(asked, own=np.array(own))
    found, places = edits.chance(asked, depth=8), {name: row for row, name in enumerate(edited.GALLERY)}
    # every listing but the reference and the query, in any order: 8 results are all there are, the missing ones wrong
    rows = [
        [row for row in range(8) if row not in (places.get(item, -1), mine)]
        for item, mine in zip(edited.REFERENCE, own, strict=True)
    ]
    whole = np.array([row + [-1] * (8 - len(row)) for row in rows])
    scores = np.where(whole >= 0, 0.0, -np.inf)
    each = edits.per_query(Ranking(catalog.query.ids, whole, scores), asked, depth=8)
    for name, values in each.items():
        listed = np.array([len(row) for row in rows])
        if name != "kept@8":
            np.testing.assert_allclose(found[name], values * 8 / listed)
    assert list(found) == list(each)
    np.testing.assert_allclose(found["kept@8"][2], np.mean([found["kept_type@8"][2], found["kept_colour@8"][2]]))
    assert found["kept@8"][1] == found["kept_type@8"][1] and np.isnan(found["kept@8"][6])


def test_the_sentence_says_what_likeness_was_measured_by():
    found = {"names": ["similarity@10", "near_duplicates@10"], "stages": [{"model": "trained"}], "similarity_of": "b"}
    assert edits.likeness(found).endswith("whose share is 'duplicates'")
    found["stages"].append({"model": "b"})
    assert edits.likeness(found).endswith("The rows of b itself prove nothing: it finds what it calls similar")
    assert (
        edits.likeness({"similarity_not_measured": "no reason"})
        == "the similarity of results was not measured: no reason"
    )


def test_summaries_count_the_queries_of_each_score():
    each = {"a": np.array([1.0, 0.0, NAN, 1.0]), "b": np.array([NAN, NAN, NAN, 0.5])}
    found = edits.summary(each)
    assert (found["a"], found["a_scored"]) == (pytest.approx(2 / 3), 3) and (found["b"], found["b_scored"]) == (0.5, 1)
    assert found["a_se"] == pytest.approx(1 / 3) and found["b_se"] is None
    none = edits.summary(each, np.array([False, False, True, False]))
    assert none == {"a": None, "a_se": None, "a_scored": 0, "b": None, "b_se": None, "b_scored": 0}


def test_hit_is_any_target_among_the_first():
    truth = Truth.from_lists(["a", "b", "c"], [f"g{row}" for row in range(5)], [["g1", "g4"], ["g0"], []])
    ranking = Ranking(Ids.of(["a", "b", "c"]), [[0, 1, 4], [1, 2, 3], [0, 1, 2]], [[3.0, 2.0, 1.0]] * 3)
    found = metrics.per_query(ranking, truth, (), ("hit@1", "hit@2", "hit@3", "recall@2"))
    for name, wanted in {"hit@1": [0, 0], "hit@2": [1, 0], "hit@3": [1, 0], "recall@2": [0.5, 0]}.items():
        np.testing.assert_array_equal(found[name], [*wanted, NAN])
    assert bootstrap.paired_bootstrap(found["hit@1"], found["hit@2"], draws=100)["wins"] == 1
    with pytest.raises(InputError, match=r"no score named 'hits@2'; did you mean hit@K"):
        metrics.parse(["hits@2"])
