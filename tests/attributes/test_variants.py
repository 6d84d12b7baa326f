"""Words that are used alike are merged; traps, which only look alike, are not."""

import functools

import pytest

from retrieval_jax.attributes import statistics, variants, words


def _found(titles, categories=None, **kwargs):
    counted = statistics.count(
        [titles],
        categories=[categories] if categories else None,
        pairs=True,
        tokenize=functools.partial(words.of_titles, rules=words.Rules()),
    )
    return {row[0]: (row[1], row[2]) for row in variants.find(counted, **kwargs).rows()}


def _shop():
    titles, categories = [], []
    for title, category, number in [
        ("black running shoes", 0, 40),
        ("black running shoe", 0, 12),
        ("blue denim shorts", 1, 30),
        ("long short kurta", 2, 30),
        ("tempered glass protector", 3, 30),
        ("round sun glasses", 4, 25),
        ("cotton t-shirt red", 5, 40),
        ("cotton tshirt red", 5, 10),
        ("striped briefs pack", 6, 60),
        ("striped breifs pack", 6, 3),
        ("canon camera", 7, 60),
        ("cannon pirate toy", 8, 3),
        ("laser printer wifi", 9, 60),
        ("laser pointer pen", 10, 3),
        ("sku 123456 cable", 11, 60),
        ("sku 123457 cable", 11, 3),
        ("pan 8gbx stick", 11, 40),
        ("pan 9gbx stick", 11, 2),
    ]:
        titles += [f"{title} {i % 3}" for i in range(number)]
        categories += [category] * number
    return titles, categories


def test_plurals_hyphens_and_typing_errors():
    found = _found(*_shop())
    assert found["shoe"] == ("shoes", "plural") and found["tshirt"] == ("t-shirt", "hyphen")
    assert found["breifs"] == ("briefs", "typing error")
    for word in ("short", "shorts", "glass", "glasses", "canon", "cannon", "pointer", "printer", "123457", "9gbx"):
        assert word not in found, word


def test_neighbours_decide_without_categories():
    titles = _shop()[0]
    found = _found(titles)
    assert found["shoe"] == ("shoes", "plural") and found["breifs"] == ("briefs", "typing error")
    for word in ("short", "shorts", "glass", "glasses", "canon", "cannon", "pointer", "printer"):
        assert word not in found, word


def test_without_evidence_only_hyphens_are_merged():
    counted = statistics.count([["shoe"] * 3 + ["shoes"] * 9 + ["wall-mount"] * 2 + ["wallmount"] * 5], pairs=True)
    assert [row[:2] for row in variants.find(counted).rows()] == [("wall-mount", "wallmount")]


def test_chains_end_at_the_most_frequent():
    titles = ["red cotton t-shirt"] * 50 + ["red cotton tshirt"] * 20 + ["red cotton tshirts"] * 6
    assert _found(titles, [0, 1] * 38) == {"tshirt": ("t-shirt", "hyphen"), "tshirts": ("t-shirt", "plural")}


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("briefs", "breifs", True),
        ("provogue", "provouge", True),
        ("turquoise", "turqoise", True),
        ("adapter", "adaptor", True),
        ("striped", "striper", False),
        ("stripe", "striped", False),
        ("canon", "cannon", True),
        ("silver", "sliver", True),
        ("silver", "silver", False),
        ("pointer", "printer", True),
        ("brief", "chief", False),
    ],
)
def test_one_edit(one, other, expected):
    assert variants.one_edit(one, other) is variants.one_edit(other, one) is expected


def test_typing_errors_equal_brute_force():
    vocabulary = [
        "briefs",
        "breifs",
        "brief",
        "sandals",
        "sandal",
        "shandals",
        "turquoise",
        "turqoise",
        "turquois",
        "leather",
        "lether",
        "feather",
        "weather",
    ]
    counts = [400, 3, 50, 300, 40, 2, 200, 5, 4, 500, 6, 90, 20]
    titles = [" ".join([word] * count) for word, count in zip(vocabulary, counts, strict=True)]
    table = statistics.count([titles]).tokens
    number = dict(zip(vocabulary, counts, strict=True))
    expected = {
        (typo, word)
        for typo in vocabulary
        for word in vocabulary
        if number[word] >= 20 * number[typo] and variants.one_edit(typo, word)
    }
    assert set(variants._typing_errors(table, 2, 6, 20.0)) == expected and ("lether", "leather") in expected
