"""What is remembered of examples: any change of any column is noticed, and nothing else is."""

import numpy as np
import pytest

from retrieval_jax.data.contents import Contents
from retrieval_jax.data.examples import Pictures, Ragged
from retrieval_jax.data.pictures.noted import Noted

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 9, 8, 3), dtype=np.uint8)
ROWS = np.arange(4)


def columns(images=IMAGES, sets=((0, 1), (2, -1), (3, 3), (-1, -1)), words=((1, 2), (), (3,), (4, 5, 6))):
    return {
        "image": Pictures(images, np.arange(4)),
        "set": Pictures(images, np.array(sets)),
        "words": Ragged.of(words),
        "price": np.array([1.0, 2.0, 3.0, 4.0], np.float32),
    }


def test_what_is_noted_of_one_picture_per_listing_is_what_pictures_note():
    notes = Contents({"image": Pictures(IMAGES)}).notes(ROWS)
    fingerprints, thumbnails = Noted(IMAGES).notes(ROWS)
    assert np.array_equal(notes["fingerprints"], fingerprints) and np.array_equal(notes["thumbnails"], thumbnails)
    assert Contents({"words": Ragged.of([[1]])}).notes(np.arange(1)).keys() == {"fingerprints"}


def test_every_column_counts():
    notes = Contents(columns()).notes(ROWS)
    assert notes["fingerprints"].shape == (4, 3 + 6 + 2 + 2) and notes["thumbnails"].shape == (4, 192 * 3)
    again = Contents(dict(reversed(columns().items())))
    assert again.unchanged(ROWS, notes).all()
    assert all(np.array_equal(value, notes[name]) for name, value in again.notes(ROWS).items())
    some = np.array([3, 1])
    assert Contents(columns()).unchanged(some, {name: value[some] for name, value in notes.items()}).all()


@pytest.mark.parametrize(
    "change, wrong",
    [
        ({"words": ((1, 2), (0,), (3,), (4, 5, 7))}, [1, 3]),
        ({"sets": ((0, 1), (2, 0), (3, -1), (-1, -1))}, [1, 2]),
        ({"sets": ((1, 0), (2, -1), (3, 3), (-1, -1))}, [0]),
        ({"images": np.where(np.arange(5)[:, None, None, None] == 3, 255 - IMAGES, IMAGES)}, [2, 3]),
    ],
)
def test_changes_are_noticed_in_their_rows(change, wrong):
    notes = Contents(columns()).notes(ROWS)
    assert np.flatnonzero(~Contents(columns(**change)).unchanged(ROWS, notes)).tolist() == wrong


def test_more_or_fewer_pictures_per_example_are_a_change():
    notes = Contents({"items": Pictures(IMAGES, np.array([[0, 1, 2], [3, 0, -1]]))}).notes(np.arange(2))
    for rows in ([[0, 1], [3, 0]], [[0, 1, 2, -1], [3, 0, -1, -1]]):
        assert not Contents({"items": Pictures(IMAGES, np.array(rows))}).unchanged(np.arange(2), notes).any()


def test_several_models_read_a_picture_once():
    class Counting:
        reads = 0

        def __len__(self):
            return len(IMAGES)

        def __getitem__(self, row):
            self.reads += 1
            return IMAGES[row]

    source, seen = Counting(), {}
    first = Contents({"image": Pictures(source)}, 2**20, seen)
    pictures = [first.columns["image"].source[row] for row in ROWS]
    assert all(np.array_equal(*pair) for pair in zip(pictures, IMAGES, strict=False))
    second = Contents({"image": Pictures(source)}, 2**20, seen)
    second.notes(ROWS)
    assert second.columns["image"].source[2] is pictures[2] and source.reads == 4
