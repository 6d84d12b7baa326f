"""BM25 against plain loops: scores, ties, unknown words, scripts, misspelt words, saving."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.index import lexical
from retrieval_jax.index.lexical import words


def brute_force(query, texts, ids, k, k1=1.5, b=0.75):
    """Returns [(row, score)] by Lucene's BM25, ties by id."""
    listed = [words.split(text) for text in texts]
    mean = sum(map(len, listed)) / len(listed)
    out = []
    for row, own in enumerate(listed):
        score = 0.0
        for word in words.split(query):
            having = sum(word in other for other in listed)
            if word in own:
                idf = math.log(1 + (len(texts) - having + 0.5) / (having + 0.5))
                many = own.count(word)
                score += idf * many / (many + k1 * (1 - b + b * len(own) / mean))
        if score > 0:
            out.append((-score, ids[row], row))
    return [(row, -score) for score, _, row in sorted(out)[:k]]


WORDS = st.lists(st.sampled_from(["red", "blue", "shoe", "bag", "xl", "no", "7"]), max_size=6).map(" ".join)


@given(st.lists(WORDS, min_size=1, max_size=12), st.lists(WORDS, min_size=1, max_size=4), st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_equals_plain_loops(texts, queries, k):
    ids = [f"g{17 * n % 29}" for n in range(len(texts))]
    found = lexical.Index(texts, ids, typos=False).search(queries, k)
    for query, rows, scores in zip(queries, found.item_rows, found.scores, strict=True):
        expected = brute_force(query, texts, ids, k)
        np.testing.assert_allclose(scores[: len(expected)], [score for _, score in expected], rtol=1e-5)
        assert (rows[len(expected) :] == -1).all()
        if len({round(score, 4) for _, score in expected}) == len(expected):
            assert rows[: len(expected)].tolist() == [row for row, _ in expected]


def test_a_search_among_some_texts_is_the_ranking_of_all_without_the_others():
    texts = [f"shoe {'red ' * (row % 3)}{row}" for row in range(40)]
    index, masks = lexical.Index(texts), [np.arange(40) % 2 == 0, None]
    found = index.search(["red shoe", "red"], 15, among=masks)
    for number, mask in enumerate(masks):
        whole = index.search([["red shoe", "red"][number]], 40).item_rows[0]
        there = [row for row in whole.tolist() if row >= 0 and (mask is None or mask[row])][:15]
        assert [row for row in found.item_rows[number].tolist() if row >= 0] == there
    with pytest.raises(InputError, match="a mask of 40 rows, or None, for each of 1 queries"):
        index.search(["red"], among=[masks[0][1:]])


def test_ties_go_by_id_and_a_query_does_not_find_itself():
    index = lexical.Index(["red shoe"] * 5 + ["bag"], list("ecadb") + ["f"])
    assert index.search(["shoe"], 3).item_rows.tolist() == [[2, 4, 1]]
    assert index.search(["shoe"], 5, query_ids=["a"]).item_rows.tolist() == [[4, 1, 3, 0, -1]]


def test_the_bits_do_not_depend_on_the_block_of_queries(monkeypatch):
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(["a", "bb", "ccc", "dd", "e"], 6)) for _ in range(200)]
    index = lexical.Index(texts)
    expected = index.search(texts, 10)
    monkeypatch.setattr(lexical, "PAIRS", 300)
    found = index.search(texts, 10)
    assert np.array_equal(found.item_rows, expected.item_rows) and np.array_equal(found.scores, expected.scores)


@pytest.mark.parametrize("query", ["", "   ", "\x00\x01", "zzz", "\ud800", "🙂", "a" * 1_000_000, "?" * 1_000_000])
def test_a_query_without_known_words_gets_an_empty_ranking(query):
    found = lexical.Index(["red shoe", ""], ["a", "b"]).search([query, "shoe"], 2)
    assert (found.item_rows[0] == -1).all() and np.isneginf(found.scores[0]).all()
    assert found.item_rows[1].tolist() == [0, -1]


def test_a_gallery_without_words():
    for texts in ([], ["", "!?"]):
        assert (lexical.Index(texts).search(["red"], 2).item_rows == -1).all()


@pytest.mark.parametrize(
    "text, expected",
    [
        ("Women's T-Shirt, 38mm", ["women", "s", "t", "shirt", "38mm"]),
        ("Café CRÈME ﬁne", ["cafe", "creme", "fine"]),
        ("红色运动鞋", ["红色", "色运", "运动", "动鞋"]),
        ("鞋 nike", ["鞋", "nike"]),
        ("लाल जूते", ["लाल", "जूते"]),
        ("รองเท้า"[:3], ["รอ", "อง"]),
        ("Красные туфли", ["красные", "туфли"]),
        ("أحمر حذاء", ["أحمر", "حذاء"]),
        ("Straße", ["strasse"]),
    ],
)
def test_words_of_any_script(text, expected):
    import unicodedata

    assert words.split(text) == [unicodedata.normalize("NFKD", word) for word in expected]
    assert lexical.Index([text, "other"]).search([text], 1).item_rows.tolist() == [[0]]


@pytest.mark.parametrize(
    "typed, meant",
    [
        ("sheos", "shoes"),
        ("shoe", "shoes"),
        ("shoess", "shoes"),
        ("shqes", "shoes"),
        ("shoes", "shoes"),
        ("qqqqq", None),
    ],
)
def test_a_misspelt_word_is_read_as_the_known_one_next_to_it(typed, meant):
    spelling = words.Spelling({"shoes": 5, "shows": 2, "42": 3})
    assert spelling.known(typed) == meant
    assert spelling.known("43") is None  # a number is not a misspelt one
    found = lexical.Index(["red shoes", "bag"], typos=False).search([typed], 1)
    assert (found.item_rows[0, 0] == 0) == (typed == "shoes")


@given(st.text("abc", min_size=4, max_size=6), st.lists(st.text("abc", min_size=4, max_size=6), min_size=1, max_size=8))
@settings(max_examples=200, deadline=None)
def test_spelling_equals_comparing_with_every_word(word, known):
    def near(one, other):
        swaps = {one[:n] + one[n + 1] + one[n] + one[n + 2 :] for n in range(len(one) - 1)}
        changed = {one[:n] + c + one[n + 1 :] for n in range(len(one)) for c in "abc"}
        more = {one[:n] + c + one[n:] for n in range(len(one) + 1) for c in "abc"}
        return other in swaps | changed | more | {one[:n] + one[n + 1 :] for n in range(len(one))}

    expected = word if word in known else min([one for one in known if near(word, one)], default=None)
    assert words.Spelling(dict.fromkeys(known, 1)).known(word) == expected


def test_what_each_word_gave_adds_up_to_the_score():
    index = lexical.Index(["red running shoes", "red bag"])
    found = index.search(["red runing shoes"], 1)
    given_ = index.explain("red runing shoes", 0)
    assert set(given_) == {"red", "running", "shoes"}
    assert sum(given_.values()) == pytest.approx(found.scores[0, 0], rel=1e-6)


def test_an_index_is_saved_without_pickles_and_read_back(tmp_path):
    texts, ids = ["red shoes", "blue bag", "红鞋"], ["a", "b", "c"]
    index = lexical.Index(texts, ids, k1=1.2, b=0.5)
    index.save(tmp_path / "index")
    for file in (tmp_path / "index").glob("*.npy"):
        np.load(file, allow_pickle=False)
    read, asked = lexical.Index.load(tmp_path / "index"), ["red shoes", "红鞋", "bga blue"]
    first, second = index.search(asked, 3), read.search(asked, 3)
    assert np.array_equal(first.item_rows, second.item_rows) and np.array_equal(first.scores, second.scores)
    assert first.gallery_sha256 == second.gallery_sha256
    np.save(tmp_path / "index" / "indices.npy", np.full(5, 99))
    with pytest.raises(InputError, match="do not match"):
        lexical.Index.load(tmp_path / "index")
    about = json.loads((tmp_path / "index" / "index.json").read_text())
    (tmp_path / "index" / "index.json").write_text(json.dumps(about | {"format": 9}))
    with pytest.raises(InputError, match="format 9"):
        lexical.Index.load(tmp_path / "index")


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="expected texts"):
        lexical.Index(Embeddings(["a"], np.ones((1, 2))))
    with pytest.raises(InputError, match=r"gallery\[1\] is a int"):
        lexical.Index(["a", 3])
    with pytest.raises(InputError, match="one id per text"):
        lexical.Index(["a"], ["x", "y"])
    with pytest.raises(InputError, match="b="):
        lexical.Index(["a"], b=2)
    with pytest.raises(InputError, match="one id per query"):
        lexical.Index(["a"]).search(["a"], 1, query_ids=[])
