"""The title rule against the runner-up's own tokens, and the fast path against the reference on arbitrary text."""

import csv
import gzip
import json
import random

import hypothesis
import pytest
from hypothesis import strategies

import reference
from retrieval_jax.attributes import titles


def _many(texts: list[str]) -> list[list[str]]:
    found = [[] for _ in texts]
    for title, token in titles.tokenize_many(texts).rows():
        found[title].append(token)
    return found


def _random_texts(num: int) -> list[str]:
    rng = random.Random(0)
    odd = "w/ -.|'_ΣσςİıǅẞͅéK Ａ０Ⅷ²½中क्ा\u200d\u00a0\u2028\x1c\t\r\n\0"

    def character() -> str:
        code = rng.choice([rng.randrange(0x110000), rng.randrange(0x3000), rng.randrange(256), ord(rng.choice(odd))])
        return chr(code)

    return ["".join(character() for _ in range(rng.randrange(30))) for _ in range(num)]


@pytest.mark.parametrize(
    ("title", "tokens"),
    [
        ("Numero Uno Men's T-Shirt", ["numero", "uno", "men's", "t-shirt"]),
        ("NEW w/tags, size 5.5 | a/b", ["new", "tags", "size", "5.5", "|", "a/b"]),
        ("new/old", ["ne", "old"]),  # "w/" is removed anywhere, as in the original
        ("", []),
        (" \t--- ", ["---"]),
    ],
)
def test_rule(title, tokens):
    assert titles.tokenize(title) == tokens


def test_equal_to_the_published_rule():
    with gzip.open(reference.path("parity/title_tokens.jsonl.gz"), "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    assert len(rows) > 1000
    assert [titles.tokenize(row["title"]) for row in rows] == [row["tokens"] for row in rows]
    assert _many([row["title"] for row in rows]) == [row["tokens"] for row in rows]


def test_fast_path_equals_the_rule_on_random_text():
    texts = _random_texts(20_000)
    assert _many(texts) == [titles.tokenize(text) for text in texts]


_PARTS = [
    "w/",
    "\n",
    " ",
    "-",
    "'",
    "Σ",
    "ΑΣ",
    "İ",
    "ß",
    "ﬃ",
    "e\u0301",
    "\u200d",
    "\ud800",
    "\udc00",
    "\x1c",
    "\0",
    "\x01",
]
_TITLE = strategies.lists(
    strategies.sampled_from(_PARTS) | strategies.text() | strategies.text(strategies.characters(exclude_categories=()))
).map("".join)  # lone surrogates too


@hypothesis.settings(max_examples=150, deadline=None, derandomize=True)
@hypothesis.given(strategies.lists(_TITLE, max_size=8))
def test_fast_path_equals_the_rule_on_fuzzed_titles(texts):
    assert _many(texts) == [titles.tokenize(text) for text in texts]


@pytest.mark.long
@hypothesis.settings(max_examples=50_000, deadline=None)
@hypothesis.given(strategies.lists(_TITLE, max_size=20))
def test_fast_path_equals_the_rule_on_many_fuzzed_titles(texts):
    assert _many(texts) == [titles.tokenize(text) for text in texts]


def test_fast_path_equals_the_rule_on_every_character():
    words = [f"a{chr(code)}b" for code in range(0x110000)]
    texts = [" ".join(words[start : start + 500]) for start in range(0, len(words), 500)]
    assert _many(texts) == [titles.tokenize(text) for text in texts]


def test_fast_path_equals_the_rule_on_real_titles():
    with gzip.open(reference.path("data/icecat_titles.csv.gz"), "rt", encoding="utf-8", newline="") as file:
        texts = [row["title"] for row in csv.DictReader(file)]
    assert _many(texts) == [titles.tokenize(text) for text in texts]


def test_fast_path_equals_the_rule_on_the_fashion_titles():
    found = []
    for split in ("train", "val"):
        with open(reference.fashion_root() / f"metadata/{split}.csv", encoding="utf-8", newline="") as file:
            found += [row["AUCT_TITL"] for row in csv.DictReader(file)]
    assert len(found) > 25_000
    assert _many(found) == [titles.tokenize(text) for text in found]


def test_fast_path_without_tokens():
    assert _many([]) == []
    assert _many([""]) == [[]]


def test_stop_words():
    assert {"i", "the", "with", "don't", "won", "should've"} <= titles.STOP_WORDS
    assert 150 <= len(titles.STOP_WORDS) <= 200
    assert all(titles.tokenize(word) == [word] for word in titles.STOP_WORDS)
    assert [token in titles.DROPPED for token in ("red", "the", "-", "w", ".", "--")] == [False, *4 * [True], False]
