"""Pairs that hashes propose against all pairs; altered copies that are caught, and other products that are not."""

import cv2
import numpy as np
import pytest

from retrieval_jax.data.pictures import noted
from retrieval_jax.data.shop import synthetic
from retrieval_jax.duplicates import hashes as thumbnail_hashes
from retrieval_jax.duplicates import thumbnails as near_duplicates


def photos(count, seed, side=5):
    """Smooth pictures, 80 x 80, of some hundred shapes: many are alike, as those of a shop are."""
    rng = np.random.default_rng(seed)
    shapes = np.random.default_rng(0).normal(size=(100, side, side, 3))
    coarse = shapes[rng.integers(0, 100, count)] + 0.25 * rng.normal(size=(count, side, side, 3))
    coarse = np.clip(128 + 50 * coarse, 0, 255).astype(np.uint8)
    return [cv2.resize(one, (80, 80), interpolation=cv2.INTER_CUBIC) for one in coarse]


def thumbnails(pictures):
    return np.stack([noted.thumbnail(np.ascontiguousarray(picture)) for picture in pictures])


def jpeg(picture, quality):
    return cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1)


@pytest.fixture(scope="module")
def gallery():
    return thumbnails(photos(3000, 1))


@pytest.mark.parametrize("limit", [0.02, 0.05, 0.15])
def test_equals_the_exact_search_but_for_one_in_a_hundred(gallery, limit):
    rng = np.random.default_rng(2)
    noise = rng.normal(size=(900, 192)) * rng.uniform(0, 12, (900, 1))
    first = np.clip(gallery[rng.integers(0, 3000, 900)] + noise, 0, 255).astype(np.uint8)
    rows, others, differences = near_duplicates.find(first, gallery, limit)
    found = thumbnail_hashes.find(first, thumbnail_hashes.Table(gallery), limit, mirrored=False)
    assert len(rows) > 50 and found.cut == 0 and found.proposed < 900 * 3000 / 5
    assert np.isin(found.rows, rows).all() and len(found.rows) >= 0.99 * len(rows)
    expected = dict(zip(rows.tolist(), zip(others.tolist(), differences, strict=True), strict=True))
    same = [expected[row][0] == other for row, other in zip(found.rows.tolist(), found.others.tolist(), strict=True)]
    assert np.mean(same) >= 0.99
    np.testing.assert_allclose(
        found.differences[same], [expected[row][1] for row in found.rows[same].tolist()], atol=1e-6
    )


def test_a_picture_is_no_duplicate_of_itself_and_ties_go_by_row(gallery):
    some = gallery[:200].copy()
    some[[150, 190]] = some[20]
    some[7] = 255
    own = np.arange(200)
    found = thumbnail_hashes.find(some, thumbnail_hashes.Table(some), 0.01, own)
    expected = near_duplicates.find(some, some, 0.01, own)
    assert found.rows.tolist() == expected[0].tolist() and found.others.tolist() == expected[1].tolist()
    assert {20, 150, 190} <= set(found.rows.tolist()) and found.others[found.rows == 20] == 150


def test_a_full_bucket_is_cut_and_said_to_be(gallery):
    placeholder = np.repeat(gallery[5:6], 1000, 0)  # the picture of everything that has none
    table = thumbnail_hashes.Table(np.concatenate([gallery, placeholder]))
    found = thumbnail_hashes.find(placeholder[:50], table, 0.05)
    assert found.rows.tolist() == list(range(50)) and (found.differences == 0).all() and found.cut > 0
    assert found.proposed < 50 * 2 * thumbnail_hashes.BANDS * 32 * 2 * thumbnail_hashes.WINDOW


def test_what_happens_to_pictures_is_seen_through():
    pictures = photos(400, 1)
    table, some = thumbnail_hashes.Table(thumbnails(pictures)), pictures[:200]

    def caught(change, **kwargs):
        found = thumbnail_hashes.find(thumbnails([change(picture) for picture in some]), table, 0.05, **kwargs)
        return np.mean(np.isin(np.arange(200), found.rows[found.rows == found.others])), found.mirrored.mean()

    assert caught(lambda p: jpeg(p, 75)) == (1.0, 0.0) and caught(lambda p: jpeg(p, 40))[0] > 0.7
    assert caught(lambda p: cv2.resize(p, (50, 40), interpolation=cv2.INTER_AREA)) == (1.0, 0.0)
    assert caught(lambda p: p[:, ::-1]) == (1.0, 1.0)
    assert caught(lambda p: p[:, ::-1], mirrored=False)[0] == 0.0
    darker, cropped = (lambda p: cv2.convertScaleAbs(p, alpha=0.88)), (lambda p: p[1:-1, 1:-1])
    assert caught(darker)[0] < 0.2 and caught(darker, altered=True)[0] > 0.95
    assert caught(cropped)[0] < caught(cropped, altered=True)[0] > 0.9


def test_other_products_of_the_embedded_catalogue_are_none():
    shop = synthetic.Shop(num_train=200, num_gallery=300, image_size=64)
    sides = [thumbnails(list(synthetic.images(shop, split))) for split in ("train", "gallery")]
    assert not len(thumbnail_hashes.find(sides[0], thumbnail_hashes.Table(sides[1])).rows)


def test_small_and_flat_sides():
    flat = np.full((3, 192), 255, np.uint8)
    found = thumbnail_hashes.find(flat[:1], thumbnail_hashes.Table(flat), own=np.zeros(1, int))
    assert found.rows.tolist() == [0] and found.others.tolist() == [1]
    assert not len(thumbnail_hashes.find(flat[:0], thumbnail_hashes.Table(flat)).rows)
