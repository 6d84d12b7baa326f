"""Words of titles: units, spellings and scripts; frames equal single titles; traps stay untouched."""

import csv
import gzip
import random

import pytest

import reference
from retrieval_jax.attributes import normalising, segmenting, words
from retrieval_jax.attributes import titles as title_rule
from retrieval_jax.errors import InputError

BOTH = words.Rules(normalise=True, segment=True)
FULL = words.Rules(
    True,
    True,
    {"tshirt": "t-shirt", "cartridges": "cartridge"},
    {("toner", "cartridge"): "toner cartridge", ("flip", "flop"): "flip flops"},
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("8gb", "8 GB"),
        ("8.0 gb", "8 gigabytes"),
        ("1/2 in", '1/2"'),
        ("10-inch", "10 inch"),
        ('17.3"', "17.3 inches"),
        ("grey", "gray"),
        ("1,5 m", "1.5 metres"),
        ("3-ft.", "3 feet"),
        ("6 pc(s)", "6 pieces"),
        ("½ inch", "1/2 inches"),
        ("1 1/2 inch", '1-1/2"'),
        ("1,000 mAh", "1000mah"),
        ("Men's", "mens"),
        ("1440 × 900 pixels", "1440x900 px"),
        ("62.5/125µm", "62.5/125 μm"),
        ("５ｇｂ", "5 gb"),
    ],
)
def test_spellings_of_one_thing_give_one_word(one, other):
    assert words.of_title(one, BOTH) == words.of_title(other, BOTH) and len(words.of_title(one, BOTH)) == 1


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("rt-ac68u", ["rt-ac68u"]),
        ("24-105mm", ["24-105mm"]),
        ("10-m", ["10-m"]),
        ("f/4l", ["f/4l"]),
        ("m/f", ["m/f"]),
        ("2 in 1", ["2", "in", "1"]),
        ("size 8 m", ["size", "8", "m"]),
        ("black/white", ["black", "white"]),
        ("1 tb", ["1tb"]),
        ("1000 gb", ["1000gb"]),
        ("8 gb gb", ["8gb", "gb"]),
        ("5 red m", ["5", "red", "m"]),
        ("100-240v", ["100-240v"]),
        ("o'neill", ["o'neill"]),
        (".5 oz", ["0.5oz"]),
        ("- / '", []),
        ("L@@K red", ["red"]),
    ],
)
def test_traps_are_neither_split_nor_joined(title, expected):
    assert words.of_title(title, BOTH) == expected


def test_units_and_spellings_are_consistent():
    assert all(normalising.UNIT[unit] == unit for unit in normalising.UNITS)
    assert not set(normalising.SPELLINGS) & set(normalising.SPELLINGS.values())
    for word in [*normalising.UNITS, *normalising.SPELLINGS.values(), "8gb", "1-1/2inch"]:
        assert normalising.split_token(word) == (word,), word  # idempotent
    assert normalising.quantity("8gb") == ("8", "gb") and normalising.quantity("rt-ac68u") is None


def test_scripts():
    assert segmenting.segment("iphone用ケース防水の黒色") == ("iphone", "用", "ケース", "防水", "黒色")
    assert segmenting.segment("运动跑步鞋") == ("运动", "动跑", "跑步", "步鞋")
    assert segmenting.segment("운동화") == ("운동화",) and segmenting.segment("รองเท้าผ้าใบ") == ("รองเท้าผ้าใบ",)
    assert segmenting.segment("rt-ac68u") == ("rt-ac68u",) and segmenting.segment("の") == ()
    assert not segmenting.STOP_WORDS & {"die", "man", "hat", "war", "sur", "pour"}


def _check(titles, rules):
    frame = words.of_titles(titles, rules)
    names = set(rules.phrases.values())
    found = {row: [] for row in range(len(titles))}
    for row, token in frame.rows():
        found[row].append(token)
    for row, title in enumerate(titles):
        expected = words.of_title(title, rules)
        plain, phrases = ([word for word in expected if (word in names) == is_one] for is_one in (False, True))
        assert found[row] == plain + phrases, title


def test_frames_equal_titles_on_random_text():
    rng = random.Random(0)
    pieces = [
        "8",
        "gb",
        "GB",
        "1/2",
        "in",
        '"',
        "''",
        ",",
        ".",
        "-",
        "x",
        "×",
        "½",
        "grey",
        "men's",
        "toner",
        "flip",
        "flop",
        "cartridges",
        "t-shirt",
        "tshirt",
        "size",
        "m",
        "防水",
        "の",
        "ケース",
        "µm",
        "&amp;",
        "pc(s)",
        "1,000",
        "w/",
        "|",
        "/",
        "é",
        "\u0301",
        "\ud800",
        "\n",
        "İ",
        "black/white",
        "",
        "12",
        "10-inch",
        "３",
    ]
    titles = [
        "".join(rng.choice(pieces) + rng.choice(["", " ", "  "]) for _ in range(rng.randint(0, 12)))
        for _ in range(1200)
    ]
    for rules in (FULL, BOTH, words.Rules(segment=True), words.Rules(merges=FULL.merges, phrases=FULL.phrases)):
        _check(titles, rules)
    _check(["", "-", "'"], FULL)
    _check([], FULL)


def test_without_rules_words_are_the_tokens():
    titles = ["Red 8 GB, grey", "防水の", "a"]
    assert words.of_titles(titles, words.Rules()).equals(title_rule.tokenize_many(titles))
    assert not words.Rules().beyond_tokens and words.Rules(segment=True).beyond_tokens


@pytest.mark.long
def test_frames_equal_titles_on_the_reference_titles():
    with gzip.open(reference.path("data/icecat_titles.csv.gz"), "rt", encoding="utf-8", newline="") as file:
        _check([row["title"] for row in csv.DictReader(file)], FULL)


def test_rules_are_saved_and_read():
    assert words.Rules.from_json(FULL.as_json(), 2).as_json() == FULL.as_json()
    with pytest.raises(ValueError, match="another version"):
        words.Rules.from_json(FULL.as_json() | {"normalise": "normalised-0"}, 2)
    with pytest.raises(InputError, match="config.mine.rule is 3; give 1 or 2"):
        words.Rules(rule=3)
