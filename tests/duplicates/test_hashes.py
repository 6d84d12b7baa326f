"""Near-duplicates by hashes against all pairs; altered copies are caught, other products are not."""

import cv2
import numpy as np
import pytest

from retrieval_jax.data.pictures import noted
from retrieval_jax.data.shop import synthetic
from retrieval_jax.duplicates import hashes
from retrieval_jax.duplicates import thumbnails as exact


def photos(count, seed, side=5):
    """Returns smooth 80 x 80 pictures of a hundred shapes, many of them similar, as in a shop."""
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
def test_finds_at_least_99_percent_of_the_exact_search(gallery, limit):
    rng = np.random.default_rng(2)
    noise = rng.normal(size=(900, 192)) * rng.uniform(0, 12, (900, 1))
    first = np.clip(gallery[rng.integers(0, 3000, 900)] + noise, 0, 255).astype(np.uint8)
    rows, others, differences = exact.find(first, gallery, limit)
    found = hashes.find(first, hashes.Table(gallery), limit, mirrored=False)
    assert len(rows) > 50 and found.cut == 0 and found.proposed < 900 * 3000 / 5
    assert np.isin(found.rows, rows).all() and len(found.rows) >= 0.99 * len(rows)
    expected = dict(zip(rows.tolist(), zip(others.tolist(), differences, strict=True), strict=True))
    same = [expected[row][0] == other for row, other in zip(found.rows.tolist(), found.others.tolist(), strict=True)]
    assert np.mean(same) >= 0.99
    np.testing.assert_allclose(
        found.differences[same], [expected[row][1] for row in found.rows[same].tolist()], atol=1e-6
    )


def test_a_picture_is_not_its_own_duplicate_and_ties_go_by_row(gallery):
    some = gallery[:200].copy()
    some[[150, 190]] = some[20]
    some[7] = 255
    own = np.arange(200)
    found = hashes.find(some, hashes.Table(some), 0.01, own)
    expected = exact.find(some, some, 0.01, own)
    assert found.rows.tolist() == expected[0].tolist() and found.others.tolist() == expected[1].tolist()
    assert {20, 150, 190} <= set(found.rows.tolist()) and found.others[found.rows == 20] == 150


def test_overfull_buckets_are_cut_and_counted(gallery):
    placeholder = np.repeat(gallery[5:6], 1000, 0)  # a shop's picture for listings without one
    table = hashes.Table(np.concatenate([gallery, placeholder]))
    found = hashes.find(placeholder[:50], table, 0.05)
    assert found.rows.tolist() == list(range(50)) and (found.differences == 0).all() and found.cut > 0
    assert found.proposed < 50 * 2 * hashes.BANDS * 32 * 2 * hashes.WINDOW


def test_altered_copies_are_caught():
    pictures = photos(400, 1)
    table, some = hashes.Table(thumbnails(pictures)), pictures[:200]

    def caught(change, **kwargs):
        found = hashes.find(thumbnails([change(picture) for picture in some]), table, 0.05, **kwargs)
        return np.mean(np.isin(np.arange(200), found.rows[found.rows == found.others])), found.mirrored.mean()

    assert caught(lambda p: jpeg(p, 75)) == (1.0, 0.0) and caught(lambda p: jpeg(p, 40))[0] > 0.7
    assert caught(lambda p: cv2.resize(p, (50, 40), interpolation=cv2.INTER_AREA)) == (1.0, 0.0)
    assert caught(lambda p: p[:, ::-1]) == (1.0, 1.0)
    assert caught(lambda p: p[:, ::-1], mirrored=False)[0] == 0.0
    darker, cropped = (lambda p: cv2.convertScaleAbs(p, alpha=0.88)), (lambda p: p[1:-1, 1:-1])
    assert caught(darker)[0] < 0.2 and caught(darker, altered=True)[0] > 0.95
    assert caught(cropped)[0] < caught(cropped, altered=True)[0] > 0.9


def test_other_products_of_the_embedded_catalogue_are_not_duplicates():
    shop = synthetic.Shop(num_train=200, num_gallery=300, image_size=64)
    sides = [thumbnails(list(synthetic.images(shop, split))) for split in ("train", "gallery")]
    assert not len(hashes.find(sides[0], hashes.Table(sides[1])).rows)


def test_small_and_flat_sides():
    flat = np.full((3, 192), 255, np.uint8)
    found = hashes.find(flat[:1], hashes.Table(flat), own=np.zeros(1, int))
    assert found.rows.tolist() == [0] and found.others.tolist() == [1]
    assert not len(hashes.find(flat[:0], hashes.Table(flat)).rows)
