"""Near-duplicates by thumbnails against all pairs in floating point; resized copies are caught, recoloured are not."""

import cv2
import numpy as np
import pytest

from retrieval_jax.data.pictures.noted import thumbnail
from retrieval_jax.duplicates import thumbnails
from retrieval_jax.scoring.ranking import Truth


def naive(first, second, limit):
    found = []
    for row, one in enumerate(first.astype(float)):
        differences = np.sqrt(np.square(second.astype(float) - one).mean(1))
        nearest = int(differences.argmin())
        if differences[nearest] <= limit * one.std():
            found.append((row, nearest, differences[nearest] / one.std() if one.std() else 0.0))
    return found


@pytest.mark.parametrize("limit", [0.0, 0.05, 0.3, 2.0])
def test_equals_all_pairs(limit, monkeypatch):
    monkeypatch.setattr(thumbnails, "_BLOCK", 7)
    monkeypatch.setattr(thumbnails, "_WINDOW", 5)
    rng = np.random.default_rng(0)
    second = rng.integers(0, 256, (60, 192), dtype=np.uint8)
    second[40:] = second[40:] // 8 + 220  # pale pictures, close to each other
    second[7] = second[3]  # a tie
    second[9] = 255
    first = np.clip(
        second[rng.integers(0, 60, 50)] + rng.integers(-9, 10, (50, 192)) * (rng.random((50, 1)) < 0.7), 0, 255
    ).astype(np.uint8)
    first[4], first[5] = 255, 254
    found = list(zip(*thumbnails.find(first, second, limit), strict=True))
    expected = naive(first, second, limit)
    assert [(int(a), int(b)) for a, b, _ in found] == [(a, b) for a, b, _ in expected] and len(found) > 3
    np.testing.assert_allclose([d for _, _, d in found], [d for _, _, d in expected], atol=1e-9)


def test_nothing_to_compare():
    some = np.zeros((3, 192), np.uint8)
    assert all(len(part) == 0 for part in thumbnails.find(some, some[:0]))
    assert all(len(part) == 0 for part in thumbnails.find(some[:0], some))


def test_a_resized_recompressed_picture_is_found_and_another_colour_is_not():
    rng = np.random.default_rng(1)
    pictures = [
        cv2.resize(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8), (120, 160), interpolation=cv2.INTER_CUBIC)
        for _ in range(20)
    ]
    gallery = np.stack([thumbnail(picture) for picture in pictures])
    copies = [
        cv2.imdecode(
            cv2.imencode(
                ".jpg", cv2.resize(picture, (75, 100), interpolation=cv2.INTER_AREA), [cv2.IMWRITE_JPEG_QUALITY, 60]
            )[1],
            1,
        )
        for picture in pictures
    ]
    rows, nearest, _ = thumbnails.find(np.stack([thumbnail(copy) for copy in copies]), gallery)
    assert rows.tolist() == nearest.tolist() == list(range(20))
    recoloured = np.stack([thumbnail(picture[..., ::-1]) for picture in pictures])
    assert not len(thumbnails.find(recoloured, gallery)[0])


def test_a_query_in_the_gallery_gets_the_next_nearest(monkeypatch):
    monkeypatch.setattr(thumbnails, "_WINDOW", 3)
    gallery = np.random.default_rng(0).integers(0, 256, (9, 192), dtype=np.uint8)
    gallery[[2, 6]] = gallery[4]
    truth = Truth.from_lists(["g2", "x", "g0"], [f"g{row}" for row in range(9)], [["g6"], ["g2"], ["g1"]])
    entry, rows = thumbnails.of_queries(gallery[[4, 4, 0]], gallery, truth, 0.05)
    assert rows.tolist() == [0, 1] and [example["gallery"] for example in entry["examples"]] == ["g4", "g2"]
    rows, nearest, _ = thumbnails.find(gallery, gallery, 0.05, np.arange(9))
    assert rows.tolist() == [2, 4, 6] and nearest.tolist() == [4, 2, 2]


def test_counts_and_sentences():
    gallery = np.random.default_rng(0).integers(0, 256, (5, 192), dtype=np.uint8)
    truth = Truth.from_lists(["a", "b", "c", "g4"], [f"g{row}" for row in range(5)], [["g0"], ["g0"], ["g2"], ["g1"]])
    entry, rows = thumbnails.of_queries(gallery[[0, 1, 0, 4]], gallery, truth, 0.05)
    assert rows.tolist() == [0, 1, 2] and entry["found"] == 3 and entry["relevant"] == 1  # g4 is itself in the gallery
    assert entry["examples"][0] == {"query": "a", "gallery": "g0", "difference": 0.0, "relevant": True}
    text = thumbnails.sentence("query", entry)
    assert text.startswith("WARNING: 3 of 4 query listings (75.0 %) have nearly the same picture in the gallery: 1 as")
    assert "a = g0, b = g1" in text
    entry = thumbnails.of_train(255 - gallery, list("vwxyz"), 900, gallery, truth.gallery_ids, 0.05)
    assert thumbnails.sentence("train", entry) == (
        "0 of 5 train listings (0.0 %) have nearly the same picture in the gallery (checked 5 of 900)"
    )


def test_a_train_listing_of_the_gallery_is_not_its_own_duplicate():
    rng = np.random.default_rng(0)
    gallery = rng.integers(0, 256, (6, 192), dtype=np.uint8)
    gallery[5] = gallery[1]
    ids = [f"g{row}" for row in range(6)]
    found = thumbnails.of_train(gallery[:3], ids[:3], 3, gallery, ids, 0.05)
    assert found["found"] == 1 and found["examples"] == [{"train": "g1", "gallery": "g5", "difference": 0.0}]
