"""Conditions: read from JSON and configs, refused with a sentence, and what unknown means."""

import json

import ml_collections
import numpy as np
import pytest

from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.index import attribute
from retrieval_jax.index.attribute import Clause, Conditions, Field, parse

WHOLE = {
    "required": [{"field": "material", "values": ["leather"]}, {"field": "price", "low": None, "high": 100.0}],
    "preferred": [{"field": "colour", "values": ["black", "brown"], "unknown": True}],
    "excluded": [{"field": "brand", "values": ["Acme"]}],
}


@pytest.fixture(scope="module")
def index():
    """Four listings: two of leather (one black), one of another material, one about which nothing is known."""
    fields = {
        "material": Field.of(["leather", "leather", "cotton", None]),
        "colour": Field.of(["black", None, "red", None]),
        "kind": Field.of(["polo", "shirt", "shoe", None], {"polo": "shirt", "shirt": "clothes"}),
        "price": np.array([50, 150, 20, np.nan]),
    }
    return attribute.Index(np.eye(4, dtype=np.float32) + 1, list("abcd"), fields=fields)


def matches(index, **given):
    """Returns the rows that meet conditions."""
    rows = index.find(np.ones((1, index.exact.gallery.shape[1])), 4, given).ranking.item_rows[0]
    return sorted(int(row) for row in rows if row >= 0)


def test_json_config_pairs_and_objects_are_the_same_conditions():
    made = parse(json.dumps(WHOLE))
    assert made == parse(WHOLE) == parse(made) and parse(made.to_json()) == made
    pairs = {
        "required": (("material", ("leather",)), ("price", None, 100)),
        "preferred": ({"field": "colour", "values": ("black", "brown"), "unknown": True},),
        "excluded": (("brand", "Acme"),),
    }
    assert parse(pairs) == parse(ml_collections.ConfigDict(pairs)) == made
    assert str(made) == (
        "required material: leather; required price <= 100; preferred colour: black or brown (or unknown); "
        "excluded brand: Acme"
    )
    assert parse(None) == Conditions() and not parse({}) and str(parse({})) == "no conditions"
    assert parse({"required": [("price", float("-inf"), 3)]}).required == (Clause("price", (), None, 3.0),)


@pytest.mark.parametrize(
    "given, words",
    [
        ({"required": [("price", 5, 1)]}, "the range of price is empty, from 5 to 1: swap its ends"),
        ({"required": [("price", 1, 2), ("price", 3, 4)]}, "ranges of price have no number in common"),
        (
            {"required": [("colour", ["red"])], "excluded": [("colour", ["blue", "red"])]},
            "'red' is required and excluded",
        ),
        ({"preferred": [("colour", ["red"])], "excluded": [("colour", ["red"])]}, "'red' is preferred and excluded"),
        ({"required": [("price", 2, 3)], "excluded": [("price", None, 9)]}, "'2 <= price <= 3', which is required"),
        ({"required": [("colour", [])]}, "neither values nor a range"),
        ({"required": [{"field": "price"}]}, "neither values nor a range"),
        ({"required": [("price", float("-inf"), None)]}, "the range of price has no end"),
        ({"required": [("price", float("-inf"), float("inf"))]}, "the range of price has no end"),
        ({"required": [("price", float("inf"), None)]}, "the range of price lies at infinity"),
        ({"required": [("price", float("nan"), 1)]}, "low=nan, expected a finite number"),
        ({"required": [("price", "1", 2)]}, "low='1'"),
        ({"required": [("colour", [3])]}, "values=3"),
        ({"required": [{"field": "colour", "values": ["red"], "low": 1}]}, "values and a range: give two clauses"),
        ({"required": [{"field": "colour", "value": ["red"]}]}, "has 'value': a clause has field, values, low"),
        ({"required": ["red"]}, r"required\[0\] is 'red': write \(field, values\)"),
        ({"required": "red"}, "give a list of clauses"),
        ({"require": []}, "has 'require': give required, preferred, excluded"),
        ('{"required": [{"field": 3}]}', "unexpected content"),
        ("{", "not readable JSON"),
        ([("colour", "red")], "expected a dict"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_a_sentence(given, words):
    with pytest.raises(InputError, match=words):
        parse(given)


@pytest.mark.parametrize(
    "given, words",
    [
        ({"required": [("color", ["red"])]}, "no field 'color'; did you mean colour"),
        ({"preferred": [("colour", ["blak"])]}, "preferred: no listing has colour 'blak'; did you mean black"),
        ({"required": [("price", ["red"])]}, "'price' is a number: give a range"),
        ({"required": [("colour", 1, 2)]}, "'colour' is not a number: give values"),
        (
            {"required": [("kind", ["polo"])], "excluded": [("kind", ["clothes"])]},
            "but all of it is excluded",
        ),
    ],
)
def test_what_the_index_does_not_have_gets_near_names(index, given, words):
    with pytest.raises(InputError, match=words):
        index.find(np.ones((1, 4)), 4, given)
    with pytest.raises(InputError, match=words):
        attribute.Index(index.exact.gallery, fields=index.table, conditions=given)


def test_unknown_is_not_no(index):
    assert matches(index, required=[("material", ["leather"])]) == [0, 1]
    assert matches(index, excluded=[("material", ["leather"])]) == [2, 3]  # d may be of leather or not: it stays
    unknown = {"field": "material", "values": ["leather"], "unknown": True}
    assert matches(index, required=[unknown]) == [0, 1, 3]
    assert matches(index, excluded=[unknown]) == [2]
    assert matches(index, required=[("price", None, 100)]) == [0, 2]
    assert matches(index, required=[{"field": "price", "high": 100, "unknown": True}]) == [0, 2, 3]
    assert matches(index, excluded=[("price", None, 100)]) == [1, 3]


def test_a_parent_stands_for_its_children(index):
    assert matches(index, required=[("kind", ["clothes"])]) == [0, 1]
    assert matches(index, required=[("kind", ["clothes"])], excluded=[("kind", ["polo"])]) == [1]
    assert index.facets(fields=["kind"])["kind"] == [("clothes", 2), ("shirt", 2), ("polo", 1), ("shoe", 1)]


def test_preferred_clauses_are_relaxed_last_first_and_the_result_says_so(index):
    wanted = {"preferred": [("material", ["leather"]), ("colour", ["black"])]}
    found = index.find(np.ones((1, 4)), 2, wanted)
    assert found.ranking.item_rows.tolist() == [[0, 1]] and found.relaxed.tolist() == [[0, 1]]
    assert found.relaxed_clauses(0) == (Clause("colour", ("black",)),)
    found = index.find(np.ones((1, 4)), 4, wanted)
    assert [clause.field for clause in found.relaxed_clauses(0)] == ["colour", "material"]
    assert found.ranking.item_rows[0][:2].tolist() == [0, 1] and found.relaxed[0].tolist() == [0, 1, 2, 2]
    assert not index.find(np.ones((1, 4)), 1, wanted).note(0)


def test_an_empty_match_is_a_short_result_with_a_note(index):
    found = index.find(np.ones((2, 4)), 3, [{"required": [("kind", ["shoe"]), ("price", 100, None)]}, None])
    assert found.ranking.item_rows.tolist()[0] == [-1, -1, -1] and found.matches.tolist() == [0, 4]
    assert found.note(0) == "what is required is met by no listing, fewer than the 3 asked for" and not found.note(1)
    with pytest.raises(InputError, match="1 conditions for 2 queries"):
        index.find(np.ones((2, 4)), 3, [None])


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((["a", "a"], [0], []), "'a' is in `values` twice"),
        ((["a"], [0, 2], [0]), "indptr must ascend from 0"),
        ((["a"], [0, 1], [1]), "value_ids from 1 to 1, but there are 1 values"),
        ((["a"], [0, 1], [0], [1.5]), "probability needs one number above 0"),
        ((["a"], [0, 1], [0], None, [1]), "parents needs one row"),
        ((["a\ud800"], [0, 1], [0]), "the value .*ud800.* is not valid Unicode: rename it"),
    ],
)
def test_fields_that_do_not_fit_are_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        Field(*arguments)


def test_names_of_fields_that_no_file_can_hold_are_refused():
    for field in (Field.of(["a"]), [1.0]):
        with pytest.raises(InputError, match="the field .*udc80.* is not valid Unicode"):
            attribute.build({"a\udc80": field}, 1)


def test_ranges_that_let_the_unknown_pass_do_not_contradict_an_exclusion(index):
    wanted = {"field": "price", "high": 100, "unknown": True}
    out = {"field": "price", "high": 200}
    assert matches(index, required=[wanted], excluded=[out]) == [3]  # no price is left, the unknown one is
    for given in ({"required": [{**wanted, "unknown": False}]}, {"preferred": [wanted], "unknown": True}):
        excluded = {**out, "unknown": given.pop("unknown", False)}
        with pytest.raises(InputError, match="are excluded by"):
            parse({**given, "excluded": [excluded]})


def test_prices_are_compared_as_the_numbers_they_are_kept_as():
    prices = np.array([19.99, 20, 20.01])  # kept as float32, where 19.99 is a little less than 19.99
    index = attribute.Index(np.ones((3, 2)), fields={"price": prices})
    assert matches(index, required=[("price", 19.99, 20)]) == [0, 1]
    with pytest.raises(InputError, match="infinite in row 1"):
        attribute.Index(np.ones((2, 2)), fields={"price": [1, np.inf]})


FIELDS = {
    "colour": ["red", "Navy Blue", "blue"],
    "second_colour": ["red", "white"],
    "pattern": ["striped", "plain"],
    "neck": ["v-neck"],
}


@pytest.mark.parametrize(
    "words, rest, required, excluded",
    [
        ("the same shirt", "the same shirt", {}, {}),
        ("the same -striped", "the same", {}, {"pattern": ["striped"]}),
        ('-"navy blue", please', "please", {}, {"colour": ["Navy Blue"]}),
        ("Pattern:STRIPED in blue", "in blue", {"pattern": ["striped"]}, {}),
        ('colour:"navy blue" dress', "dress", {"colour": ["Navy Blue"]}, {}),
        ("-red.", "", {}, {"colour": ["red"], "second_colour": ["red"]}),  # no red at all
        ("-second_colour:red colour:red", "", {"colour": ["red"]}, {"second_colour": ["red"]}),
        ("-v-neck t-shirt - cheap", "t-shirt - cheap", {}, {"neck": ["v-neck"]}),
        ("\u2212striped \u2013plain", "", {}, {"pattern": ["striped", "plain"]}),
        ("navy blue -blue", "navy blue", {}, {"colour": ["blue"]}),
        ('14" wheel, not red', '14" wheel, not red', {}, {}),  # other words are a network's to understand
        ("", "", {}, {}),
    ],
)
def test_words_become_conditions_and_the_rest_stays(words, rest, required, excluded):
    left, given = attribute.from_words(words, FIELDS)
    assert left == rest
    for wanted, clauses in ((required, given.required), (excluded, given.excluded)):
        assert [(one.field, one.values[0]) for one in clauses] == [
            (field, value) for field, several in wanted.items() for value in several
        ]
    assert parse(json.dumps(given.to_json())) == given


@pytest.mark.parametrize(
    "words, says",
    [
        ("red -red", "ask for 'red' and exclude it: remove one of the two"),
        ('in navy blue, -"navy blue"', "ask for 'Navy Blue' and exclude it"),
        ("colour:red -red", "colour 'red' is required and excluded: remove it from one of them"),
        ("-strped", "'-strped' names the value 'strped', which does not exist; did you mean striped"),
        ("color:red", "names the field 'color', which does not exist; did you mean colour"),
        ("colour:white", r"names the value 'white', which does not exist \(available: Navy Blue, blue, red\)"),
        ('-"navy blue', "'-\"navy' has a quotation mark that is not closed: add one"),
        ('-""', "names the value '', which does not exist"),
    ],
)
def test_words_that_contradict_or_are_unknown_are_refused(words, says):
    with pytest.raises(InputError, match=says):
        attribute.from_words(words, FIELDS)


def test_queries_may_have_conditions_of_their_own(index):
    gallery = Embeddings(list("abcd"), index.exact.gallery)
    common, own = {"required": [("price", None, 100)]}, {"q1": '{"excluded": [{"field": "colour", "values": ["red"]}]}'}
    made = attribute.Index(gallery, fields=index.table, conditions=common, conditions_of=own)
    with pytest.warns(
        UserWarning, match=r"conditions of 1 of 2 queries could not be met as asked, first query 1 \(q1\)"
    ):
        found = made.search(Embeddings(["q0", "q1"], np.ones((2, 4))), 2)
    assert [sorted(row for row in rows if row >= 0) for rows in found.item_rows.tolist()] == [[0, 2], [0]]
    with pytest.raises(InputError, match="conditions of the query q7.*no field 'color'; did you mean colour"):
        attribute.Index(gallery, fields=index.table, conditions_of={"q7": {"excluded": [("color", ("red",))]}})
    with pytest.raises(InputError, match="conditions of the query q7: colour 'red' is required and excluded"):
        given = {"required": [("colour", ("red",))]}
        attribute.Index(gallery, fields=index.table, conditions=given, conditions_of={"q7": own["q1"]})


def test_words_of_queries_are_conditions_on_the_fields_of_the_index(index):
    gallery = Embeddings(list("abcd"), index.exact.gallery)
    values = index.table.values()
    assert list(values) == list(index.table.kinds) and "red" in values["colour"] and values["price"] == []
    own = {"q1": '{"required": [{"field": "price", "high": 100}]}', "q3": "  "}
    made = attribute.Index(gallery, fields=index.table, conditions_of=own, words_of={"q1": "cheap -red", "q2": "-red"})
    without = [row for row in range(4) if row not in matches(index, required=[("colour", ("red",))])]
    with pytest.warns(UserWarning, match="could not be met as asked"):
        found = made.search(Embeddings(["q0", "q1", "q2", "q3"], np.ones((4, 4))), 4).item_rows
    have = [sorted(row for row in rows if row >= 0) for rows in found.tolist()]
    cheap = matches(index, required=[("price", None, 100)])
    assert have == [[0, 1, 2, 3], [row for row in without if row in cheap], without, [0, 1, 2, 3]]
    with pytest.raises(InputError, match="conditions of the query q1: the words '-seen': .* the value 'seen'"):
        attribute.Index(gallery, fields=index.table, words_of={"q1": "-seen"})
    with pytest.raises(InputError, match="conditions of the query q1: colour 'red' is required and excluded"):
        given = {"required": [("colour", ("red",))]}
        attribute.Index(gallery, fields=index.table, conditions=given, words_of={"q1": "-red"})
