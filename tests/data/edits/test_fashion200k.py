"""Fashion200k in its own layout: edits are captions that differ in one word, as TIRG has them."""

import collections

import cv2
import numpy as np
import pytest

from retrieval_jax.data import loading
from retrieval_jax.data.edits import fashion200k
from retrieval_jax.errors import InputError

TRAIN = {
    "dress": [("1", "red lace dress"), ("2", "blue lace dress"), ("3", "red lace dress"), ("4", "long dress in green")],
    "top": [("5", "red silk top"), ("6", "red cotton top"), ("7", "silk red blouse")],
}
TEST = {"dress": [("8", "black dress"), ("9", "white dress"), ("10", "white dress")], "top": [("11", "white top")]}


def path_of(number):
    return f"women/clothes/kind/{number}/{number}_0.jpeg"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "labels").mkdir()
    for part, labels in (("train", TRAIN), ("test", TEST)):
        for category, rows in labels.items():
            text = "".join(f"{path_of(number)}\t0.9\t{caption}\n" for number, caption in rows)
            (tmp_path / f"labels/{category}_{part}_detect_all.txt").write_text(text)
            for number, _ in rows:
                (tmp_path / path_of(number)).parent.mkdir(parents=True)
                cv2.imwrite(str(tmp_path / path_of(number)), np.full((8, 6, 3), 10 * int(number), np.uint8))
    queries = [("8", "9"), ("11", "10")]
    (tmp_path / "test_queries.txt").write_text("".join(f"{path_of(a)} {path_of(b)}\n" for a, b in queries))
    return tmp_path


def load(root, **kwargs):
    return loading.load({"source": "fashion200k", "kwargs": {"root": str(root), **kwargs}})


def test_queries_have_all_pictures_of_the_caption_as_right_answers_and_the_reference_is_no_result(root):
    found = load(root)
    assert found.gallery.ids == [path_of(number) for number in (8, 9, 10, 11)]
    assert found.query.ids == ["query-00001", "query-00002"]
    assert found.query.column("words") == ["replace black with white", "replace top with dress"]
    assert list(found.query.ids.about) == found.query.column("reference") == [path_of(8), path_of(11)]
    assert [found.truth.relevant(row).tolist() for row in (0, 1)] == [[1, 2], [1, 2]]
    assert [found.query.column_names["kind"][one] for one in found.query.column("kind")] == ["dress", "top"]
    assert found.category_names == (["dress", "top"],) and found.gallery.titles[0] == "black dress"
    np.testing.assert_array_equal(found.query.images[1], found.gallery.images[3])
    (root / "test_queries.txt").write_text(f"{path_of(9)} {path_of(10)}\n")  # one caption: the others that have it
    assert load(root).truth.relevant(0).tolist() == [2]


def test_edits_of_train_are_captions_that_differ_in_one_word(root):
    captions = {path_of(number): caption for rows in TRAIN.values() for number, caption in rows}

    def differ_in_one(one, other):
        """Returns whether both are one word longer than the same text."""
        shorter = [{" ".join(w[:i] + w[i + 1 :]) for i in range(len(w))} for w in (one.split(), other.split())]
        return one != other and bool(shorter[0] & shorter[1])

    found = load(root, pairs_per_listing=50)
    table, ids = found.table("edits", "train"), found.train.ids
    seen = collections.defaultdict(set)
    for row in range(len(table)):
        reference, targets = table.columns["reference"][row], table.columns["targets"][row]
        [caption] = {captions[ids[target]] for target in targets}
        own = captions[ids[reference]]
        assert [one for one in ids if captions[one] == caption] == [ids[target] for target in targets]
        old, new = (set(a.split()) - set(b.split()) for a, b in ((own, caption), (caption, own)))
        assert table.columns["words"][row] == f"replace {old.pop()} with {new.pop()}" and not old and not new
        seen[own].add(caption)
    expected = {
        one: {other for other in captions.values() if differ_in_one(one, other)} for one in set(captions.values())
    }
    assert seen == {one: others for one, others in expected.items() if others}
    assert seen["red silk top"] == {"red cotton top"}
    few = load(root, pairs_per_listing=1)
    assert len(few.table("edits", "train")) == 5 and list(load(root).tables) == ["edits/train"]


def test_an_edit_is_worded_as_published():
    assert fashion200k.replaced("red lace dress", "dress in lace blue") == "replace red with in"
    assert fashion200k.replaced("red red dress", "red dress") == "replace dress with dress"


def test_bad_lines_are_set_aside(root):
    with open(root / "labels/dress_train_detect_all.txt", "a") as file:
        file.write("women/one/field.jpeg\n\n../outside.jpeg\t0.5\tred dress\n" + path_of(99) + "\t0.5\tred dress\n")
    with open(root / "test_queries.txt", "a") as file:
        file.write(f"{path_of(8)}\n{path_of(8)} {path_of(98)}\n{path_of(9).upper()} {path_of(8)}\n")
    (root / path_of(10)).write_text("no picture")
    found = load(root, max_bad_share=0.7)
    bad = [(one["file"], one["row"], one["reason"]) for one in found.set_aside]
    labels = "labels/dress_train_detect_all.txt"
    for row in (
        (labels, 5, "wrong number of fields"),
        (labels, 7, "path leaves the root"),
        (labels, 8, "missing image file"),
        ("test_queries.txt", 3, "wrong number of fields"),
        ("test_queries.txt", 4, "unknown listing"),
        ("test_queries.txt", 5, "unknown listing"),
    ):
        assert row in bad
    assert any(f"there is '{path_of(9)}'" in one["sentence"] for one in found.set_aside)
    for count in found.counts.values():
        assert count["read"] == count["kept"] + sum(count["set_aside"].values())
    assert found.truth.relevant(0).tolist() == [1] and len(found.query) == 2
    with pytest.raises(InputError, match="too many bad rows"):
        load(root)


def test_arguments_and_missing_files_are_reported(root):
    (root / "test_queries.txt").rename(root / "queries.txt")
    with pytest.raises(
        InputError, match=r"test_queries.txt: there is no such file; TIRG published it .*queries = None"
    ):
        load(root)
    assert load(root, queries="queries.txt").query.ids == ["query-00001", "query-00002"]
    assert load(root, queries=None).query is None
    for kwargs, says in (
        ({"queries": "../queries.txt"}, "the file '../queries.txt' leaves the root"),
        ({"pairs_per_listing": 0}, "pairs_per_listing is 0; give a number from 1 to 1000"),
        ({"query": "x"}, "'query'.*did you mean queries"),
    ):
        with pytest.raises(InputError, match=says):
            load(root, **kwargs)
    (root / "queries.txt").write_text("one two\n")
    with pytest.raises(InputError, match="queries.txt: no line names two test pictures"):
        load(root, queries="queries.txt")
    for file in (root / "labels").glob("*_train_*"):
        file.unlink()
    found = load(root, queries=None)
    assert found.train is None and not found.tables and found.category_levels == ()
    (root / "labels/top_train_detect_all.txt").write_text(f"{path_of(5)}\t1\tred top\n")
    with pytest.raises(InputError, match="no two captions differ in one word"):
        load(root, queries=None)
    for file in (root / "labels").glob("*"):
        file.unlink()
    with pytest.raises(
        InputError, match=r"labels: there is no file such as dress_train_detect_all.txt .*found: nothing"
    ):
        load(root)
