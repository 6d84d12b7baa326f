"""The title rule against the runner-up's own tokens, and the fast path against the reference on arbitrary text."""

import csv
import gzip
import json
import random
import unicodedata

import hypothesis
import pytest
from hypothesis import strategies

import reference
from retrieval_jax.attributes import titles


def _many(texts: list[str], rule: int) -> list[list[str]]:
    found = [[] for _ in texts]
    for title, token in titles.tokenize_many(texts, rule).rows():
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
    assert titles.tokenize(title, 1) == tokens and titles.tokenize(title, 2) == tokens


LAL = "\u0932\u093e\u0932"
SARI = "\u0938\u093e\u0921\u093c\u0940"


@pytest.mark.parametrize(
    ("title", "tokens"),
    [
        (f"{LAL} {SARI}।", [LAL, SARI]),
        ("চামড়ার ব্যাগ", ["চামড়ার", "ব্যাগ"]),
        ("เสื้อสีแดง 2XL", ["เสื้อสีแดง", "2xl"]),
        ("قَمِيص، أزرق", ["قَمِيص", "أزرق"]),
        ("تي\u200cشيرت", ["تيشيرت"]),
        ("שִׂמְלָה", ["שִׂמְלָה"]),
        ("cre\u0300me bru\u0302le\u0301e", ["crème", "brûlée"]),
        ("İSTANBUL istanbul ışık", ["istanbul", "istanbul", "ışık"]),
        ("STRASSE Straße STRAẞE", ["strasse"] * 3),
        ("ΣΟΦΟΣ σοφός σοφος", ["σοφοσ", "σοφόσ", "σοφοσ"]),
        ("ﬁne ﬂannel", ["fine", "flannel"]),
        ("men’s T‑shirt", ["men's", "t-shirt"]),
        ("soft\u00adshell \u200eleft\u2060over\ufeff", ["softshell", "leftover"]),
        ("\u0301 \u0301a -\u0301b", ["a", "-b"]),
        ("☂\ufe0f 1\ufe0f\u20e3 👩\u200d👧", ["1"]),
        ("Men&#39;s &amp; Boys&#039; d&eacute;cor", ["men's", "boys'", "décor"]),
        ("&lt;NEW&gt; caf&#xE9; &ndash; A&amp;amp;B", ["new", "café", "a", "b"]),
        ("A&amp;eacute;B &amp", ["aéb"]),
        ("AT&T jeans&regular salt&pepper &unknown; R&D;", "at t jeans regular salt pepper unknown r d".split()),
        ("<b>Red</b> shoe<br/>new <p class='x'>size <M>", ["red", "shoe", "new", "size", "m"]),
        ("&lt;b&gt;red&lt;/b&gt; &#0;&#xD800;&#99999999;", ["red", "99999999"]),
        ("新しい靴 ドレス", ["新しい靴", "ドレス"]),
        ("ト\u3099レス", ["ドレス"]),
        ("빨간 드레스", ["빨간", "드레스"]),
    ],
)
def test_the_rule_for_any_script(title, tokens):
    assert titles.tokenize(title) == tokens and _many([title], 2) == [tokens]


def test_both_rules_are_the_same_on_plain_ascii():
    texts = ["".join(map(chr, range(128))).replace("&", "").replace("<", ""), "Salt & Pepper w/ AT&T, 5 < 6 > 4"]
    assert [titles.tokenize(text, 1) for text in texts] == [titles.tokenize(text, 2) for text in texts]


def test_case_and_composition_do_not_matter():
    for word in ("Crème", "İstanbul", "Weiß", "Σοφός", "ﬃ", "Ǆ", "ŉa", "ΐ", "Ὀδυσσεύς", "Ⅷ", "ǅ", "한글", "ड़"):
        forms = [form(word) for form in (str.lower, str.upper, str.title, str.swapcase)]
        forms += [unicodedata.normalize(form, word) for form in ("NFC", "NFD")]
        assert len({tuple(titles.tokenize(form)) for form in forms}) == 1, word
        assert len(titles.tokenize(word)) == 1


def test_equal_to_the_published_rule():
    with gzip.open(reference.path("parity/title_tokens.jsonl.gz"), "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    assert len(rows) > 1000
    assert [titles.tokenize(row["title"], 1) for row in rows] == [row["tokens"] for row in rows]
    assert _many([row["title"] for row in rows], 1) == [row["tokens"] for row in rows]


def test_fast_path_equals_the_rule_on_random_text():
    texts = _random_texts(20_000)
    for rule in titles.RULES:
        assert _many(texts, rule) == [titles.tokenize(text, rule) for text in texts]


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
    "&amp;",
    "&#",
    "39;",
    "&eacute",
    "<b>",
    "&lt;",
    "p>",
    "\u0300",
    "\u093f",
    "\ufe0f",
    "’",
]
_TITLE = strategies.lists(
    strategies.sampled_from(_PARTS) | strategies.text() | strategies.text(strategies.characters(exclude_categories=()))
).map("".join)  # lone surrogates too


@hypothesis.settings(max_examples=150, deadline=None, derandomize=True)
@hypothesis.given(strategies.lists(_TITLE, max_size=8))
def test_fast_path_equals_the_rule_on_fuzzed_titles(texts):
    for rule in titles.RULES:
        assert _many(texts, rule) == [titles.tokenize(text, rule) for text in texts]


@pytest.mark.long
@hypothesis.settings(max_examples=50_000, deadline=None)
@hypothesis.given(strategies.lists(_TITLE, max_size=20))
def test_fast_path_equals_the_rule_on_many_fuzzed_titles(texts):
    for rule in titles.RULES:
        assert _many(texts, rule) == [titles.tokenize(text, rule) for text in texts]


def test_fast_path_equals_the_rule_on_every_character():
    codes = [*range(0x20000), *range(0x20000, 0x110000, 61)]  # beyond there are ideographs and private use
    words = [f"a{chr(code)}b" for code in codes]
    texts = [" ".join(words[start : start + 500]) for start in range(0, len(words), 500)]
    for rule in titles.RULES:
        assert _many(texts, rule) == [titles.tokenize(text, rule) for text in texts]


def test_fast_path_equals_the_rule_on_real_titles():
    with gzip.open(reference.path("data/icecat_titles.csv.gz"), "rt", encoding="utf-8", newline="") as file:
        texts = [row["title"] for row in csv.DictReader(file)]
    for rule in titles.RULES:
        assert _many(texts, rule) == [titles.tokenize(text, rule) for text in texts]


def test_fast_path_equals_the_rule_on_the_fashion_titles():
    found = []
    for split in ("train", "val"):
        with open(reference.fashion_root() / f"metadata/{split}.csv", encoding="utf-8", newline="") as file:
            found += [row["AUCT_TITL"] for row in csv.DictReader(file)]
    assert len(found) > 25_000
    plain = [titles.tokenize(text, 1) for text in found]
    assert _many(found, 1) == plain and _many(found, 2) == plain  # the configs of this catalogue keep their numbers


def test_fast_path_without_tokens():
    assert _many([], 2) == []
    assert _many([""], 2) == [[]]


def test_stop_words():
    assert {"i", "the", "with", "don't", "won", "should've"} <= titles.STOP_WORDS
    assert 150 <= len(titles.STOP_WORDS) <= 200
    assert all(titles.tokenize(word) == [word] for word in titles.STOP_WORDS)
    assert [token in titles.DROPPED for token in ("red", "the", "-", "w", ".", "--")] == [False, *4 * [True], False]
