"""Text as somebody typed it: each rule by an example, and that nothing raises, whatever it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_jax.data import cleaning
from retrieval_jax.errors import InputError


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", ""),
        (" \t\n ", ""),
        ("red  running\tshoes ", "red running shoes"),
        ("nul\x00 bell\x07 escape\x1b[31m", "nul bell escape [31m"),
        ("half \ud83d of a pair", "half of a pair"),
        ("zero\u200bwidth", "zero width"),
        ("soft\u00adhyphen, \u202eturned\u202c, \ufeffmarked", "softhyphen, turned, marked"),
        ("e\u0301te\u0301", "été"),  # one form for what looks the same
        ("می\u200cخواهم 👩\u200d👩", "می\u200cخواهم 👩\u200d👩"),  # joiners are part of the script
        ("走る靴 नमस्ते тёплая ญี่ปุ่น", "走る靴 नमस्ते тёплая ญี่ปุ่น"),
        ("<mask> </s>", "<mask> </s>"),
    ],
)
def test_rules(text, expected):
    assert cleaning.clean(text) == expected


def test_a_megabyte_is_cut():
    assert cleaning.clean("ab " * 350_000) == ("ab " * 350_000)[: cleaning.MOST_CHARACTERS].strip()


@pytest.mark.parametrize("text", [None, 3, b"bytes"])
def test_what_is_not_text_is_refused(text):
    with pytest.raises(InputError, match="a text is a str, not"):
        cleaning.clean(text)


def test_what_may_be_lost_is_counted():
    texts = ["", "\x00", "fine\n", "a\x07b", "\ud800", "c" * 9000, "été"]
    found = {"empty": 3, "cut": 1, "control characters": 2, "lone surrogates": 1}
    assert cleaning.examine(texts) == found and cleaning.examine(["fine"]) == {}


@given(st.text(st.characters(exclude_categories=())))
def test_whatever_it_is_the_result_is_stable_and_encodes(text):
    once = cleaning.clean(text)
    assert cleaning.clean(once) == once == once.strip()
    once.encode()
    assert "\x00" not in once and "\n" not in once
