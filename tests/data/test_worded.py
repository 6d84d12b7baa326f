"""Pictures with words beside them, as runs and exported models check and mix the two."""

import pathlib

import numpy as np
import pytest

from retrieval_jax.data import worded
from retrieval_jax.errors import InputError

PICTURE = np.zeros((4, 3, 3), np.uint8)


def test_what_is_given_by_itself_is_a_list_of_one_and_several_stay_as_they_are():
    for alone in ("shoe.jpg", pathlib.Path("shoe.jpg"), PICTURE):
        (found,) = worded.listed(alone)
        assert found is alone
    for several in (["shoe.jpg"], np.zeros((2, 4, 3, 3), np.uint8), np.zeros((4, 3, 3), np.float32), np.zeros((2, 5))):
        assert worded.listed(several) is several


def test_pictures_words_and_weight_are_checked():
    pictures, words, weight = worded.given(PICTURE, "in red", 1)
    assert pictures[0] is PICTURE and words == ["in red"] and weight == 1 and weight.dtype == np.float32
    assert len(worded.given(np.zeros((2, 4, 3, 3), np.uint8), ("a", ""), 0)[0]) == 2
    for given, message in (
        (([PICTURE] * 2, "in red", 1), "2 pictures and 1 texts: give one text per picture"),
        (([], [], 1), "0 pictures and 0 texts"),
        (([PICTURE] * 2, ["in red", None], 1), "the words of picture 1 are NoneType: give a text"),
        ((PICTURE, "in red", -1), "weight"),
    ):
        with pytest.raises(InputError, match=message):
            worded.given(*given)


def test_the_weight_goes_from_the_picture_to_the_words_and_beyond():
    out = {"reference": np.float32([[1, 0], [0, 0]]), "embedding": np.float32([[0, 1], [0, 0]])}
    for weight, wanted in ((0, [1, 0]), (1, [0, 1]), (0.5, [0.5**0.5, 0.5**0.5]), (2, [-(0.2**0.5), 0.8**0.5])):
        found = worded.mixed(out, np.float32(weight))
        assert found.dtype == np.float32 and np.allclose(found, [wanted, [0, 0]])
