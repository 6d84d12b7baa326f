"""Fields of attributes: from labels and predictions, which values are learned, and what is unknown."""

import logging

import numpy as np
import pytest

from retrieval_jax.data import fields
from retrieval_jax.data import info as info_lib
from retrieval_jax.data.catalog import Catalog, Split
from retrieval_jax.data.examples import Ragged
from retrieval_jax.data.shop import loading
from retrieval_jax.errors import InputError


def make_catalog(colour=(0, 1, 0, -1, 2), parts=((0, 1), (), (1, 1), (0,), ())) -> Catalog:
    rows = len(colour)
    split = Split(
        "train",
        [f"item{row}" for row in range(rows)],
        None,
        np.array([[0, 0], [0, 1], [1, 2], [1, -1], [-1, -1]], np.int32)[:rows],
        np.zeros((rows, 2, 2, 3), np.uint8),
        columns={
            "colour": np.array(colour, np.int32),
            "parts": Ragged.of(parts),
            "price": np.array([1, 2, np.nan, 4, 5], np.float32)[:rows],
        },
    )
    names = {"colour": ["blue", "red", "teal"], "parts": ["hood", "zip"]}
    levels = (["shoes", "tops"], ["boots", "sandals", "shirts"])
    return Catalog("c", train=split, category_levels=("top", "leaf"), category_names=levels, column_names=names)


SPLIT = make_catalog().train


def rows_of(field) -> list[list[str]]:
    found = [field.value_ids[start:end] for start, end in zip(field.indptr[:-1], field.indptr[1:], strict=True)]
    return [[field.values[value] for value in row] for row in found]


def test_columns_levels_and_mined_words_are_fields_side_by_side():
    mined = ["cotton", "soft"], Ragged.of([(0,), (), (1, 0), (), ()])
    found = fields.of_split(SPLIT, ["colour", "parts", "leaf", "mined", "price", "category"], mined)
    assert rows_of(found["colour"]) == [["blue"], ["red"], ["blue"], [], ["teal"]] and not found["colour"].many
    assert rows_of(found["parts"]) == [["hood", "zip"], [], ["zip"], ["hood"], []] and found["parts"].many
    assert rows_of(found["leaf"]) == [["boots"], ["sandals"], ["shirts"], [], []]
    assert rows_of(found["mined"]) == [["cotton"], [], ["cotton", "soft"], [], []]
    assert found["price"] is SPLIT.columns["price"]
    category = found["category"]
    expected = [["shoes > boots"], ["shoes > sandals"], ["tops > shirts"], ["tops"], []]
    assert rows_of(category) == expected and category.values[:2] == ["shoes", "tops"]
    parents = {name: category.values[parent] if parent >= 0 else "" for name, parent in
               zip(category.values, category.parents.tolist(), strict=True)}  # fmt: skip
    assert parents["shoes > boots"] == "shoes" and parents["tops > shirts"] == "tops" and parents["shoes"] == ""


def test_fields_of_some_listings_are_in_the_order_asked_for():
    found = fields.of_split(SPLIT, ["parts", "price", "category"], ids=["item3", "item0"])
    assert rows_of(found["parts"]) == [["hood"], ["hood", "zip"]] and found["parts"].many
    assert found["price"].tolist() == [4, 1] and rows_of(found["category"]) == [["tops"], ["shoes > boots"]]
    chances = fields.Field(["a", "b"], np.array([0, 2, 3]), np.array([0, 1, 1]), np.array([0.1, 0.2, 0.3])).take([1, 0])
    assert rows_of(chances) == [["b"], ["a", "b"]] and chances.probability.tolist() == [0.3, 0.1, 0.2]
    with pytest.raises(InputError, match="1 listings of the gallery, first 'other', are not in the catalogue"):
        fields.of_split(SPLIT, ["parts"], ids=["item3", "other"])


def test_a_split_without_the_column_has_unknown_values_and_an_unknown_field_near_names():
    bare = make_catalog()
    bare.train.columns = {}
    assert rows_of(fields.read(bare.train, "colour")) == [[]] * 5
    with pytest.raises(InputError, match="'color' does not exist.*colour"):
        fields.read(SPLIT, "color")
    with pytest.raises(InputError, match="'price' is a column of text or numbers"):
        fields.read(SPLIT, "price")


def test_rare_values_are_set_aside_and_counted(caplog):
    with caplog.at_level(logging.WARNING):
        info = fields.learned({"colour": fields.read(SPLIT, "colour")}, 2, ("colour",), 0)
    assert info.label_names == ["colour=blue"] and "2 values with fewer than 2" in caplog.text
    given = {name: fields.read(SPLIT, name) for name in ("colour", "parts")}
    info = fields.learned(given, 1, ("parts",), 0)
    assert info.label_names == ["colour=blue", "colour=red", "colour=teal", "parts=hood", "parts=zip"]
    assert info.label_counts.tolist() == [2, 1, 1, 2, 2]
    colour, parts = info.fields
    assert (colour.known, colour.unknown, colour.set_aside, colour.most, colour.many) == (4, 1, 0, 1, False)
    assert (parts.known, parts.unknown, parts.set_aside, parts.most, parts.many) == (5, 0, 0, 2, True)
    for one in info.fields:
        assert one.known + one.unknown + one.set_aside == len(SPLIT)
    with pytest.raises(InputError, match="'colour' has 1 values with 2 or more"):
        fields.learned(given, 2, (), 0)
    with pytest.raises(InputError, match="optional_fields has 'part'.*parts"):
        fields.learned(given, 1, ("part",), 0)


def test_labels_are_ascending_and_unknown_is_not_absent():
    given = {name: fields.read(SPLIT, name) for name in ("colour", "parts")}
    info = fields.learned(given, 1, ("parts",), 0)
    ids, known = fields.encode(given, info)
    assert [ids[row].tolist() for row in range(5)] == [[0, 3, 4], [1], [0, 4], [3], [2]]
    assert known.tolist() == [[True, True], [True, True], [True, True], [False, True], [True, True]]
    strict = fields.learned(given, 1, (), 0)  # an empty list is unknown
    assert fields.encode(given, strict)[1][:, 1].tolist() == [True, False, True, True, False]
    assert fields.encode({"parts": given["parts"]}, info)[1][:, 0].tolist() == [False] * 5
    # a value that was not learned is unknown
    few = fields.learned({"colour": given["colour"], "leaf": fields.read(SPLIT, "leaf")}, 1, (), 0)
    other = fields.Field(["green", "red"], np.array([0, 1, 2]), np.array([0, 1]))
    ids, known = fields.encode({"colour": other}, few)
    assert [ids[row].tolist() for row in range(2)] == [[], [1]] and known[:, 0].tolist() == [False, True]


def test_a_limit_cuts_whole_fields(caplog):
    given = {name: fields.read(SPLIT, name) for name in ("colour", "parts")}
    info = fields.learned(given, 1, ("parts",), 2)
    with caplog.at_level(logging.WARNING):
        ids, known = fields.encode(given, info, length=2)
    assert [ids[row].tolist() for row in range(5)] == [[0], [1], [0, 4], [3], [2]]
    assert not known[0, 1] and known[1:, 1].all() and "1 of 5 listings have more than 2" in caplog.text
    with pytest.raises(InputError, match="length is 1, but 2 fields need"):
        fields.learned(given, 1, (), 1)


def test_guides_are_checked_with_near_names():
    given = {name: fields.read(SPLIT, name) for name in ("colour", "parts")}
    info = fields.learned(given, 1, ("parts",), 0)
    found = fields.guides([{"colour": "red", "parts": ["zip", "hood"]}, {}, {"parts": "zip"}], info)
    assert [found[row].tolist() for row in range(3)] == [[1, 3, 4], [], [4]]
    for wrong, says in (
        ({"color": "red"}, "no field 'color'.*colour"),
        ({"colour": "reed"}, "'colour' has no value 'reed'.*red"),
        ({"colour": ["red", "blue"]}, "'colour' has one value, and 2 are given"),
        ({"colour": 3}, "guides: colour=3, expected a list"),
        ({"colour": None}, "guides: colour=None, expected a list"),
        ({"parts": [3]}, "guides: parts=3, expected a text"),
        ("red", r"guides: given\[0\]='red', expected a dict"),
    ):
        with pytest.raises(InputError, match=says):
            fields.guides([wrong], info)
    with pytest.raises(InputError, match="guides: given=None, expected a list"):
        fields.guides(None, info)


def test_predictions_become_fields_with_probabilities():
    given = {name: fields.read(SPLIT, name) for name in ("colour", "parts")}
    info = fields.learned(given, 1, ("parts",), 0)
    chosen = np.array([[1, 0, 0, 1, 1], [0, 0, 1, 0, 0]], bool)
    probabilities = np.arange(10, dtype=np.float32).reshape(2, 5) / 10
    found = fields.predicted(chosen, probabilities, info)
    assert rows_of(found["colour"]) == [["blue"], ["teal"]] and rows_of(found["parts"]) == [["hood", "zip"], []]
    np.testing.assert_allclose(found["parts"].probability, [0.3, 0.4])


def test_facts_about_fields_are_saved_and_read(tmp_path):
    given = {name: fields.read(SPLIT, name) for name in ("colour", "parts")}
    info = fields.learned(given, 1, ("parts",), 0)
    info_lib.save(tmp_path / "info.json", info)
    assert info_lib.load(tmp_path / "info.json").fields == info.fields
    text = (tmp_path / "info.json").read_text().replace('"values": 3', '"values": 4')
    (tmp_path / "info.json").write_text(text)
    with pytest.raises(InputError, match="other numbers of names"):
        info_lib.load(tmp_path / "info.json")


def test_the_embedded_catalogue_has_its_true_attributes_as_fields():
    catalog = loading.load(num_train=40, num_val=8, num_query=4, num_gallery=12, image_size=16)
    names = ["leaf", "colour", "parts", "category"]
    for split in catalog.splits().values():
        found = fields.of_split(split, names)
        assert all(len(field) == len(split) for field in found.values())
        assert (np.diff(found["colour"].indptr) == 1).all()
    truth = loading.synthetic.attributes(loading.Shop(num_train=40, num_val=8, num_query=4, num_gallery=12,
                                                      image_size=16), "train", np.arange(40))  # fmt: skip
    assert fields.read(catalog.train, "colour").value_ids.tolist() == truth["colour"].tolist()


def test_true_labels_of_a_split():
    info = fields.learned({name: fields.read(SPLIT, name) for name in ("colour", "parts")}, 1, ("parts",), 0)
    true, known = fields.true_labels(SPLIT, info)
    assert [np.flatnonzero(row).tolist() for row in true] == [[0, 3, 4], [1], [0, 4], [3], [2]]
    assert known[:, 0].tolist() == [True, True, True, False, True] and known[:, 1].all()
    assert fields.field_of(info).tolist() == [0, 0, 0, 1, 1]
