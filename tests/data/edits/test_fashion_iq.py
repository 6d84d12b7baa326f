"""Fashion IQ in its own layout: queries, gallery and table of edits, and a sentence for whatever is missing."""

import json

import cv2
import numpy as np
import pytest

from retrieval_jax.data import loading
from retrieval_jax.data.edits import fashion_iq
from retrieval_jax.errors import InputError

LISTS = {
    "dress.train": ["D1", "D2", "D3"],
    "dress.val": ["V1", "V2", "V3", "V4"],
    "dress.test": ["T1", "T2"],
    "shirt.train": ["S1", "B1"],
    "toptee.train": ["B1", "P1"],
}
PAIRS = {
    "dress.train": [("D1", "D2", ["is red", " Is longer. "]), ("D3", "D1", ["", "is blue"])],
    "dress.val": [("V1", "V2", ["is solid black", "has no sleeves"]), ("V1", "V3", ["pink.", "pink"])],
    "dress.test": [("T1", None, ["is short", "is white"])],
    "shirt.train": [("S1", "B1", ["has a collar", "is darker"])],
    "toptee.train": [("P1", "B1", ["is plain", "has stripes"])],
}


@pytest.fixture
def root(tmp_path):
    for name in ("captions", "image_splits", "images"):
        (tmp_path / name).mkdir()
    for name, ids in LISTS.items():
        (tmp_path / f"image_splits/split.{name}.json").write_text(json.dumps(ids))
        for number, one in enumerate(ids):
            picture = np.full((8, 6, 3), 20 * number, np.uint8)
            ending = "png" if one in ("V2", "T1") else "jpg"
            cv2.imwrite(str(tmp_path / f"images/{one}.{ending}"), picture)
    for name, pairs in PAIRS.items():
        write_pairs(tmp_path, name, pairs)
    return tmp_path


def write_pairs(root, name, pairs):
    entries = [
        {"candidate": one, **({"target": other} if other else {}), "captions": captions}
        for one, other, captions in pairs
    ]
    (root / f"captions/cap.{name}.json").write_text(json.dumps(entries))


def load(root, **kwargs):
    return loading.load({"source": "fashion_iq", "kwargs": {"root": str(root), **kwargs}})


def test_queries_are_a_picture_with_both_sentences_and_the_candidate_is_no_result(root):
    found = load(root)
    assert found.query.ids == ["dress-val-00001", "dress-val-00002"] and list(found.query.ids.about) == ["V1", "V1"]
    assert found.query.column("words") == ["is solid black and has no sleeves", "pink and pink"]
    assert found.query.column("reference") == ["V1", "V1"]
    assert found.gallery.ids == ["V1", "V2", "V3", "V4"] and found.truth.rows.tolist() == [1, 2]
    np.testing.assert_array_equal(found.query.images[0], found.gallery.images[0])
    assert found.gallery.images[1].shape == (8, 6, 3)  # a PNG
    assert found.category_names == (["dress", "shirt", "toptee"],)
    assert found.query.categories.tolist() == [[0], [0]] and found.gallery.categories.tolist() == [[0]] * 4


def test_train_has_both_sentences_and_each_alone_and_pictures_of_two_categories_once(root):
    found = load(root)
    assert found.train.ids == ["D1", "D2", "D3", "S1", "B1", "P1"]
    assert found.counts["train"]["set_aside"] == {"in two categories": 1} and found.counts["train"]["read"] == 7
    table = found.table("edits", "train")
    words = ["is red and Is longer", "is red", "Is longer", "is blue"]
    shirts = ["has a collar and is darker", "has a collar", "is darker"]
    assert table.columns["words"] == [*words, *shirts, "is plain and has stripes", "is plain", "has stripes"]
    assert table.columns["reference"].tolist() == [0, 0, 0, 2, 3, 3, 3, 5, 5, 5]
    assert table.columns["targets"].values.tolist() == [1, 1, 1, 0, 4, 4, 4, 4, 4, 4]
    alone = load(root, train="dress")
    assert alone.train.ids == ["D1", "D2", "D3"] and alone.category_names == (["dress"],)


def test_the_gallery_may_be_the_pictures_of_pairs_and_test_is_searched_without_a_truth(root):
    assert load(root, gallery="pairs").gallery.ids == ["V1", "V2", "V3"]
    found = load(root, split="test", train=())
    assert found.truth is None and found.gallery.ids == ["T1", "T2"] and found.train is None
    assert found.query.column("words") == ["is short and is white"] and not found.tables
    write_pairs(root, "dress.test", [("T1", "T2", ["is short", "is white"])])
    assert load(root, split="test", train=()).truth.rows.tolist() == [1]


def test_bad_entries_are_set_aside_with_a_sentence_each(root):
    (root / "images/D2.jpg").unlink()
    (root / "images/V3.jpg").write_bytes(b"\xff\xd8\xff cut off")
    pairs = [*PAIRS["dress.val"], ("V9", "V1", ["x"]), ("V1", "V1", ["x"]), ("V1", "V2", [" ", ""]), ("V2", "", ["x"])]
    write_pairs(root, "dress.val", pairs)
    entries = json.loads((root / "captions/cap.dress.val.json").read_text())
    (root / "captions/cap.dress.val.json").write_text(json.dumps([*entries, 7, {"candidate": 3}]))
    write_pairs(root, "shirt.train", [*PAIRS["shirt.train"], ("S1", "nobody", ["x"])])
    found = load(root, max_bad_share=0.8)
    bad = {(one["file"], one["row"], one["reason"]) for one in found.set_aside}
    captions = "captions/cap.dress.val.json"
    assert {row for file, row, _ in bad if file == captions} == {2, 3, 4, 5, 6, 7, 8}
    assert {
        (captions, 2, "its gallery listings were set aside"),
        (captions, 3, "missing image file"),
        (captions, 4, "target is the candidate"),
        (captions, 5, "missing value"),
        (captions, 6, "missing value"),
        (captions, 7, "not an entry"),
        (captions, 8, "not an entry"),
        ("captions/cap.shirt.train.json", 2, "unknown listing"),
        ("captions/cap.dress.train.json", 1, "its listings were set aside"),
        ("image_splits/split.dress.train.json", 2, "missing image file"),
    } <= bad
    for count in found.counts.values():
        assert count["read"] == count["kept"] + sum(count["set_aside"].values())
    assert found.query.ids == ["dress-val-00001", "dress-val-00002"] and found.truth.rows.tolist() == [1]
    with pytest.raises(InputError, match=r"cap.dress.val.json: 6 of 8 rows are bad"):
        load(root)


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"category": "dresses"}, "category has 'dresses'; did you mean dress"),
        ({"train": ("dress", "top")}, "train has 'top'; did you mean toptee"),
        ({"train": ("dress", "dress")}, "train names a category twice"),
        ({"split": "train"}, "split has 'train'.*val, test"),
        ({"gallery": "all"}, "gallery has 'all'.*list, pairs"),
        ({"image_root": "pictures"}, "pictures: the folder of the pictures does not exist; name it in .*image_root"),
        ({"category": "shirt"}, "cap.shirt.val.json not found: Fashion IQ has captions/, image_splits/ and a folder"),
        ({"galery": "list"}, "'galery'.*did you mean gallery"),
        ({"root": "nowhere"}, "root: nowhere is not a folder"),
    ],
)
def test_arguments_and_missing_files_are_reported(root, kwargs, says):
    with pytest.raises(InputError, match=says):
        load(**{"root": root, **kwargs})


def test_files_of_another_shape_and_paths_out_of_the_root_are_refused(root):
    (root / "image_splits/split.dress.val.json").write_text('{"V1": 1}')
    with pytest.raises(InputError, match=r"split.dress.val.json has an unexpected content"):
        load(root)
    outside = root.parent / "outside.jpg"
    cv2.imwrite(str(outside), np.zeros((8, 8, 3), np.uint8))
    (root / "image_splits/split.dress.val.json").write_text(json.dumps([*LISTS["dress.val"], "../../outside", 5]))
    found = load(root, max_bad_share=0.5)
    assert [one["reason"] for one in found.set_aside if "val" in one["file"]] == ["path leaves the root", "not an id"]
    (root / "images/V4.jpg").unlink()
    (root / "images/V4.jpg").symlink_to(outside)
    found = load(root, max_bad_share=0.6)
    assert [one["reason"] for one in found.set_aside if one["id"] == "V4"] == ["path leaves the root"]


def test_texts_of_sentences():
    assert fashion_iq.texts(["a", "b"]) == ["a and b", "a", "b"]
    assert fashion_iq.texts([" is  red.", "is red"]) == ["is red and is red", "is red"]
    assert fashion_iq.texts(["", " . "]) == [] and fashion_iq.texts(["", "a"]) == ["a"]
