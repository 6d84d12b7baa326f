"""Boxes: overlaps, what is dropped, and average precision against a case worked out by hand."""

import numpy as np
import pytest

from retrieval_jax.errors import InputError
from retrieval_jax.scoring import boxes

LEFT, RIGHT, LOW = (0.0, 0.0, 1.0, 0.5), (0.0, 0.5, 1.0, 1.0), (0.5, 0.0, 1.0, 1.0)


def found(*entries):
    """Returns the boxes of one picture: (box, score, type) each."""
    columns = zip(*entries, strict=True) if entries else ((), (), ())
    box, score, kind = (np.asarray(column, float) for column in columns)
    return {"boxes": box.reshape(-1, 4), "scores": score, "types": kind.astype(int)}


def test_overlap_by_hand():
    expected = [[1.0, 0.0, 0.25 / 0.75]]
    np.testing.assert_allclose(boxes.iou([LEFT], [LEFT, RIGHT, LOW]), expected)
    assert boxes.iou([(0.2, 0.2, 0.2, 0.2)], [LEFT])[0, 0] == 0


def test_a_worse_box_of_the_same_type_on_the_same_place_is_dropped():
    near = (0.0, 0.0, 1.0, 0.45)
    raw = {"boxes": np.array([[LEFT, near, near, RIGHT]]), "scores": np.array([[0.6, 0.9, 0.7, 0.1]]),
           "types": np.array([[0, 0, 1, 0]])}  # fmt: skip
    (one,) = boxes.regions(raw)
    assert one["scores"].tolist() == [0.9, 0.7, 0.1]
    (one,) = boxes.regions(raw, least_score=0.5)
    assert one["scores"].tolist() == [0.9, 0.7]
    (one,) = boxes.regions(raw, given=[[1]])
    assert one["types"].tolist() == [1]
    assert len(boxes.regions(raw, given=[[2]])[0]["boxes"]) == 0
    assert len(boxes.regions(raw, given=[[]])[0]["boxes"]) == 3  # no guidance
    with pytest.raises(InputError, match="as many lists of types"):
        boxes.regions(raw, given=[[1], [2]])


def test_a_picture_without_a_box_falls_back_to_the_whole():
    main, there = boxes.main_box([found((LEFT, 0.4, 1), (RIGHT, 0.2, 0)), found()])
    np.testing.assert_array_equal(main, [LEFT, boxes.WHOLE])
    assert there.tolist() == [True, False]


def test_average_precision_by_hand():
    """Type 0: three true boxes, found: right (.9), wrong (.8), right (.7), and one that a better box has taken (.6).

    Precision at the hits is 1 and 2/3, of a third of the true boxes each: (1 + 2/3) / 3. Type 1 is never found, and a
    type without a true box does not count.
    """
    true = [
        {"boxes": np.array([LEFT, RIGHT]), "types": np.array([0, 1])},
        {"boxes": np.array([LEFT, RIGHT]), "types": np.array([0, 0])},
    ]
    ours = [found((LEFT, 0.9, 0), (LEFT, 0.6, 0), (LEFT, 0.5, 2)), found((LOW, 0.8, 0), (RIGHT, 0.7, 0))]
    scores = boxes.average_precision(ours, true)
    assert np.isclose(scores["per_type"][0], (1 + 2 / 3) / 3) and scores["per_type"][1] == 0
    assert np.isclose(scores["map"], scores["per_type"][0] / 2) and set(scores["per_type"]) == {0, 1}
    guided = boxes.average_precision(
        [boxes.regions({name: value[None] for name, value in one.items()}, given=[kinds])[0]
         for one, kinds in zip(ours, ([0, 1], [0]), strict=True)], true
    )  # fmt: skip
    assert guided["map"] == scores["map"]
    with pytest.raises(InputError, match="no true box"):
        boxes.average_precision([found()], [{"boxes": np.zeros((0, 4)), "types": np.zeros(0, int)}])
