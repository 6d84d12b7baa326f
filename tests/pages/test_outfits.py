"""The report's section of outfits: blanks with their answers, and completed looks."""

import types

import numpy as np

from retrieval_jax.data.outfits import sets
from retrieval_jax.data.shop import loading
from retrieval_jax.index.attribute.looks import Look
from retrieval_jax.pages import outfits

ASKED = sets.Questions(
    np.array([[0, 1, -1], [2, -1, 3]]), np.zeros((2, 3), np.int32), np.array([[4, 5], [6, 7]]), np.array([1, 0])
)


def picture(split: str, row: int) -> str:
    return f"data:{split}-{row}."


def judged(**given):
    looks = [Look({"shoes": 4, "bags": 5}, {}, 0.75), Look({"shoes": 6}, {}, 0.5)]
    found = {"auc": 0.625, "outfits": 1234, "questions": ASKED, "filled": np.array([1.0, 0.0])}
    found |= {"sums": np.array([[2.0, 1.0], [3.0, 2.5]]), "completed": [(0, [8, 9], looks)]}
    return types.SimpleNamespace(**found | given)


def test_answers_stand_nearest_first_and_looks_above_the_outfit():
    catalog = loading.load(seed=0, num_train=4, num_val=0, num_query=0, num_gallery=12, image_size=16)
    (section,) = outfits.sections(judged(), catalog, picture, {"rows": 5, "seed": 0})
    text = str(section.body)
    assert "Fill in the blank: 50.0 % of 2 questions, by chance 50.0 %. AUC of 1,234 outfits: 0.625" in text
    shown = [part.partition(".")[0] for part in text.split('src="data:gallery-')[1:]]
    assert shown == ["0", "1", "5", "4", "2", "3", "7", "6", "0", "4", "5", "6", "8", "9"]
    assert text.count("sum of distances") == 4 and "Look 1, 0.750" in text and "Look 2, 0.500" in text
    right = [part for part in text.split('class="item ') if part.startswith("relevant")]
    assert ["gallery-5." in right[0], "gallery-6." in right[1]] == [True, True] and len(right) == 2


def test_a_run_that_learned_no_outfits_has_no_section():
    assert outfits.sections(None, None, picture, {"rows": 5, "seed": 0}) == []
