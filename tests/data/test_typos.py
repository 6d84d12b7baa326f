"""Typing errors: of the four kinds, in any script, and the same for the same generator."""

import numpy as np
import pytest

from retrieval_jax.data import typos
from retrieval_jax.errors import InputError


def misspelt(text, count=200, seed=0):
    return set(typos.with_typos([text] * count, np.random.default_rng(seed), 1.0))


def test_a_word_of_three_letters_has_exactly_these_errors():
    near = {f"{key}at" for key in "xdfv"} | {f"c{key}t" for key in "qwsz"} | {f"ca{key}" for key in "rfgy"}
    dropped, doubled, swapped = {"at", "ct", "ca"}, {"ccat", "caat", "catt"}, {"act", "cta"}
    assert misspelt("cat", 3000) == near | dropped | doubled | swapped


@pytest.mark.parametrize("text", ["running shoes", "тёплая куртка", "走る靴", "ผ้าไหม", "नमस्ते", "فستان أحمر", "straße"])
def test_every_script_gets_one_error(text):
    found = misspelt(text)
    assert len(found) > 4 and text not in found
    for one in found:
        assert abs(len(one) - len(text)) <= 4 and one.count(" ") == text.count(" ")


def test_marks_stay_with_their_letter():
    accented = "xe\u0301ye\u0301z"  # x, y and z never carry the accent, unless another key took the place of e
    for one in misspelt(accented):
        before = {one[at - 1] for at, letter in enumerate(one) if letter == "\u0301"}
        assert before == {"e"} and not one.startswith("\u0301")


@pytest.mark.parametrize("text", ["", "xl", "42 xl 8", "nike90 w32", "- &"])
def test_sizes_models_and_short_words_stay(text):
    assert misspelt(text) == {text}


def test_the_share_and_the_generator_decide():
    texts = [f"shoe boots {number}" for number in range(4000)]
    one, two = (typos.with_typos(texts, np.random.default_rng(1), 0.25) for _ in range(2))
    assert one == two
    assert 0.22 < np.mean([a != b for a, b in zip(one, texts, strict=True)]) < 0.28
    assert typos.with_typos(texts, np.random.default_rng(1), 0.0) == texts
    # which text it is does not change what happens to the others
    other = typos.with_typos(["xl", *texts[1:]], np.random.default_rng(1), 0.25)
    assert other[1:] == one[1:]


def test_a_share_out_of_range_is_refused():
    with pytest.raises(InputError, match="share is 2"):
        typos.with_typos([], np.random.default_rng(0), 2)
