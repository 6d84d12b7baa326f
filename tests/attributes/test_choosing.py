"""Decisions about words: phrases, uninformative words, rare but informative ones, and overrules."""

import functools
import math

import numpy as np
import polars as pl
import pytest

from retrieval_jax.attributes import choosing, kinds, phrases, statistics, telling, vocabulary, words
from retrieval_jax.attributes import overrules as overrules_lib
from retrieval_jax.errors import InputError
from retrieval_jax.pages import mined as mined_page

PLAIN = {"threshold": 5}
ON = {
    "threshold": 5,
    "normalise": True,
    "segment": True,
    "variants": {"on": True},
    "phrases": {"on": True},
    "uninformative": {"on": True, "pictures": 0},
    "rare": {"on": True},
    "categories": {"on": True},
}


def _titles():
    """Returns titles and categories: 40 titles for each of six kinds of product, with words to decide about."""
    titles, categories = [], []
    things = ["running shoes", "stainless steel pan", "memory card 8 GB", "kurta", "lamp", "socks"]
    for category, thing in enumerate(things):
        for i in range(40):
            colour = ["red", "blue", "green", "black"][i % 4]
            words_ = [
                f"brand{category}",
                colour,
                thing,
                "free shipping" if i % 3 == 0 else "",
                "zari" if i < 4 and category == 3 else "",
                "steel lamp" if category == 4 and i % 2 else "",
                "shoes" if i == 1 else "",
            ]
            titles.append(" ".join(filter(None, words_)))
            categories.append(category)
    return titles, categories


def _decide(settings=ON, overrules=choosing.NO_OVERRULES, pictures=None):
    titles, categories = _titles()
    pairs, by_category = choosing.needs(settings | {"overrules": "x"})
    tokenize = functools.partial(words.of_titles, rules=choosing.base_rules(settings))
    counted = statistics.count(
        [titles], categories=[categories] if by_category else None, pairs=pairs, tokenize=tokenize
    )
    return choosing.decide(counted, settings, overrules, pictures)


def _of(made, word):
    return made.table.filter(pl.col("word") == word).select("decision", "rule").row(0)


def test_all_switches_off_gives_the_plain_vocabulary():
    titles, _ = _titles()
    plain = vocabulary.build(statistics.count([titles]).tokens, len(titles), 5)
    made = _decide(PLAIN)
    assert made.tokens == plain.tokens and not made.rules.beyond_tokens


def test_decisions():
    made = _decide()
    assert {"8gb", "running shoes", "stainless steel", "memory card", "red", "shoes", "steel"} <= set(made.tokens)
    assert "gb" not in made.tokens and "8" not in made.tokens
    assert _of(made, "stainless") == ("dropped", "phrases") and _of(made, "running") == ("dropped", "phrases")
    assert _of(made, "zari") == ("kept", "categories")  # in a tenth of the kurtas
    assert _of(_decide(ON | {"rare": {"on": True, "most_p": 0.01}}), "zari") == ("kept", "rare")
    assert "zari" not in _decide(ON | {"rare": {"on": True, "most_p": 1e-9}, "categories": {}}).tokens
    # "steel" also occurs outside its phrase, so it stays beside it.
    assert _of(made, "steel") == ("kept", "threshold")
    for colour in ("red", "blue", "green", "black"):  # spread over all categories, but visible in pictures
        assert _of(made, colour) == ("kept", "threshold")


def test_seller_jargon_is_dropped_unless_a_phrase_or_category_supports_it():
    settings = ON | {"phrases": {"on": False}}
    made = _decide(settings)
    assert _of(made, "free") == _of(made, "shipping") == ("dropped", "uninformative")
    made = _decide()  # a phrase of two such words is dropped as well
    assert _of(made, "free shipping") == ("dropped", "uninformative") and "free" not in made.tokens
    # "new" in one category only is not jargon.
    counted = statistics.count([["new lamp"] * 30 + ["old hat"] * 30], categories=[[0] * 30 + [1] * 30], pairs=True)
    assert "new" in choosing.decide(counted, settings).tokens


def test_words_merged_into_a_dropped_word_are_listed():
    counted = statistics.count([["seller lamp"] * 10 + ["sellers lamp"] * 8 + ["red lamp"] * 10], pairs=True)
    settings = {"threshold": 5, "variants": {"on": True, "least_likeness": 0.0}, "uninformative": {"on": True}}
    made = choosing.decide(counted, settings)
    assert made.tokens == ["lamp", "red"] and not made.rules.merges and made.rarer == 0
    assert _of(made, "seller") == ("dropped", "uninformative") and _of(made, "sellers") == ("merged", "variants")


def test_pictures_decide_about_words():
    titles, _ = _titles()
    frame = pl.DataFrame(
        {
            "token": ["brand0", "green", "red"],
            "positives": [40, 60, 60],
            "auc": [0.5, 0.52, 0.9],
            "low": [0.4, 0.45, 0.85],
            "high": [0.58, 0.59, 0.95],
        }
    )
    made = _decide(ON, pictures=frame)
    assert _of(made, "green") == ("dropped", "uninformative") and _of(made, "red") == ("kept", "threshold")
    assert _of(made, "brand0") == ("kept", "threshold")  # informative about the category
    frame = pl.DataFrame({"token": ["free"], "positives": [60], "auc": [0.7], "low": [0.65], "high": [0.75]})
    settings = ON | {"phrases": {"on": False}}
    assert _of(_decide(settings, pictures=frame), "free") == ("kept", "threshold")
    settings |= {"uninformative": {"on": True, "pictures": 0, "most_auc": 0.7}}
    assert _of(_decide(settings, pictures=frame), "free") == ("dropped", "uninformative")


def test_a_new_title_gets_the_same_attributes(tmp_path):
    made = _decide()
    titles, _ = _titles()
    mined = vocabulary.Vocabulary(made.tokens, np.zeros(len(made.tokens), np.int64), len(titles), 5, made.rules)
    mined.save(tmp_path / "vocabulary.json")
    again = vocabulary.Vocabulary.load(tmp_path / "vocabulary.json")
    assert again.hash == mined.hash and again.rules.as_json() == made.rules.as_json()
    indptr, ids = again.encode(["RED Running Shoes, 8.0GB", "grey nothing"])
    assert [again.tokens[i] for i in ids[: indptr[1]]] == ["8gb", "red", "running shoes", "shoes"]
    assert indptr[2] == indptr[1]
    # Each rule is part of the hash, and the hash of the plain rule has not changed.
    plain = vocabulary.Vocabulary(made.tokens, mined.counts, len(titles), 5)
    assert plain.hash != mined.hash
    content = (tmp_path / "vocabulary.json").read_text(encoding="utf-8")
    (tmp_path / "vocabulary.json").write_text(content.replace('"stainless",', '"stainles",'), encoding="utf-8")
    with pytest.raises(InputError, match="hash differs"):
        vocabulary.Vocabulary.load(tmp_path / "vocabulary.json")
    (tmp_path / "vocabulary.json").write_text(content.replace("normalised-1", "normalised-0"), encoding="utf-8")
    with pytest.raises(InputError, match="another version.*mine again"):
        vocabulary.Vocabulary.load(tmp_path / "vocabulary.json")


def _write(tmp_path, text, name="overrules.csv"):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return overrules_lib.load(tmp_path / name)


def test_overrules(tmp_path):
    person = _write(
        tmp_path,
        "# mine\nkeep,stainless\ndrop,red\nsplit,running shoes\nmerge,kurta,lamp\nkeep,steel pan\n\nkeep,zari\n",
    )
    made = _decide(ON, person)
    assert {"stainless", "running", "steel pan"} <= set(made.tokens)
    assert not {"red", "running shoes", "kurta"} & set(made.tokens)
    assert made.rules.merges["kurta"] == "lamp" and _of(made, "red") == ("dropped", "overrules")
    assert "overrules.csv, row 2" in made.table.filter(pl.col("word") == "stainless")["why"][0]
    tabs = _write(tmp_path, "keep\tstainless\nmerge\tkurta\tlamp\n", "overrules.tsv")
    assert tabs.merge == {"kurta": "lamp"} and tabs.keep == {"stainless"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("keep,red\nhold,red\n", "row 2: 'hold,red' is not a decision"),
        ("keep\n", "row 1: 'keep' is not a decision"),
        ("merge,red\n", "row 1: 'merge,red' is not a decision"),
        ("keep,red\ndrop,red\n", "row 2: 'red' has a different decision in .*row 1"),
        ("merge,red,blue\nmerge,red,green\n", "row 2: 'red' has a different decision"),
        ("merge,red,blue\nsplit,red\n", "row 2: 'red' is both split and merged"),
        ("split,red\nkeep,red\ndrop,red\n", "row 3: 'red' has a different decision in .*row 1"),
        (f"keep,{'x' * 200_000}\n", "row 1: .* is not a decision .larger than"),
        ("merge,red,blue\nmerge,blue,green\nmerge,green,red\n", "red -> blue -> green -> red is a cycle"),
        ("merge,red,red\n", "red -> red is a cycle"),
        ("merge,red,blue\ndrop,blue\n", "row 1: 'red' is merged into 'blue', which .*row 2 drops"),
    ],
)
def test_bad_overrules(tmp_path, text, says):
    with pytest.raises(InputError, match=says):
        _write(tmp_path, text)


def test_overrules_of_unknown_words(tmp_path):
    with pytest.raises(InputError, match="row 2: no title contains 'purpel'"):
        _decide(ON, _write(tmp_path, "keep,red\ndrop,purpel\n"))
    with pytest.raises(InputError, match=r"row 1: no title contains 'lamp kurta' \(both words, adjacent\)"):
        _decide(ON, _write(tmp_path, "keep,lamp kurta\n"))  # each word is in some titles
    for action in ("keep", "drop", "split"):  # with two names for one pair, one of them would match no title
        with pytest.raises(
            InputError, match="row 2: 'running shoes' becomes 'running socks' when its words are merged"
        ):
            _decide(ON, _write(tmp_path, f"merge,shoes,socks\n{action},running shoes\n"))
    with pytest.raises(InputError, match="no such file"):
        overrules_lib.load(tmp_path / "nothing.csv")
    (tmp_path / "latin.csv").write_bytes(b"keep,\xe9t\xe9\n")
    with pytest.raises(InputError, match="not a text file in UTF-8"):
        overrules_lib.load(tmp_path / "latin.csv")


def test_association_of_phrases():
    counted = statistics.count([["a1 b1 c1"] * 10 + ["c1 d1"] * 10 + ["d1 a1x"] * 20], pairs=True)
    found = {
        row[:2]: row[3]
        for row in phrases.find(counted, threshold=5, least_score=-1)
        .select("first", "second", "titles", "score")
        .rows()
    }
    assert found["a1", "b1"] == pytest.approx(1.0)
    expected = math.log((10 / 40) / ((20 / 40) * (30 / 40))) / -math.log(10 / 40)
    assert found["c1", "d1"] == pytest.approx(expected)


def test_information_from_pictures():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(600, 8)).astype(np.float32)
    rows = [(i, "red") for i in range(600) if vectors[i, 0] > 0.5] + [(i, "free") for i in range(0, 600, 3)]
    table = pl.DataFrame(rows, schema=["title", "token"], orient="row")
    found = telling.of_pictures(vectors, table, ["red", "free", "no"])
    by = {row[0]: row[1:] for row in found.rows()}
    assert by["red"][1] > 0.9 and by["free"][2] < 0.5 < by["free"][3] and "no" not in by
    for few in (0, 1, 4):  # fewer listings than folds
        few_rows = table.filter(pl.col("title") < few)
        assert telling.of_pictures(vectors[:few], few_rows, ["red", "free"]).is_empty()


def test_information_about_categories():
    titles = ["lamp x"] * 50 + ["shoe x"] * 50
    counted = statistics.count([titles], categories=[[0] * 50 + [1] * 50])
    by = {row[0]: row[1:] for row in telling.of_categories(counted, counted.tokens["token"]).rows()}
    assert by["lamp"][0] == pytest.approx(1.0, abs=0.01) and by["lamp"][4] < 1e-10
    assert by["x"][0] == pytest.approx(0.0, abs=0.02) and by["x"][4] == 1.0


def test_kinds_are_guessed_from_neighbours():
    titles = [
        f"men {colour} {thing}"
        for colour in ("black", "red", "blue", "green", "cerise", "fuchsia")
        for thing in ("shirt", "hat", "sock", "shoe", "belt", "tie")
    ] + ["8gb card"] * 3
    made = kinds.guess(statistics.count([titles], pairs=True), ["cerise", "fuchsia", "red", "shirt", "8gb"])
    assert dict(made.select("word", "kind").rows()) == {
        "8gb": "quantity",
        "cerise": "colour",
        "fuchsia": "colour",
        "red": "colour",
    }


def test_page_is_escaped_and_shows_how_to_overrule():
    made = _decide()
    evil = "<script>alert(1)</script>"
    text = mined_page.page(made, num_titles=240, threshold=5, switches=["phrases"], examples={"running shoes": evil})
    assert text.count("<script") == 1 and "&lt;script&gt;alert" in text and "http:" not in text
    assert "<code>split,running shoes</code>" in text and "<code>keep,stainless</code>" in text
    assert text == mined_page.page(
        made, num_titles=240, threshold=5, switches=["phrases"], examples={"running shoes": evil}
    )
