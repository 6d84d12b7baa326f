"""Clicks that go astray, and clicks that follow places and what shoppers like; without either, all is as before."""

import hashlib

import numpy as np
import pytest

from retrieval_jax.data import digest
from retrieval_jax.data.clicks import propensity
from retrieval_jax.data.shop import liked, loading, shoppers, synthetic
from retrieval_jax.errors import InputError

SIZES = {"num_train": 400, "num_val": 60, "num_query": 60, "num_gallery": 560}
BIASED = synthetic.make_shop(**SIZES, biased_clicks=True)


def sha(*arrays) -> str:
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]


def same_product(shop, found, split):
    seen = synthetic.product_ids(shop, split, np.maximum(found.shown, 0).ravel()).reshape(found.shown.shape)
    return (seen == synthetic.product_ids(shop, shoppers.SOURCE[split], found.photos)[:, None]) & (found.shown >= 0)


def test_without_either_clicks_and_digests_are_those_of_before():
    made = [shoppers.clicks(synthetic.make_shop(**SIZES), 300, split) for split in ("train", "gallery")]
    assert sha(*(a for one in made for a in (one.photos, one.shown, one.clicked))) == "9887e216e5c53ba7"
    assert sha(np.frombuffer(repr(digest.of(loading.load(**SIZES))).encode(), np.uint8)) == "85a1cb619eaffb95"


def test_a_share_of_the_clicks_on_the_product_goes_astray_on_the_same_page():
    right = shoppers.clicks(synthetic.make_shop(**SIZES), 2000)
    shop = synthetic.make_shop(**SIZES, wrong_clicks=0.2)
    wrong = shoppers.clicks(shop, 2000)
    np.testing.assert_array_equal(wrong.shown, right.shown)
    same = same_product(shop, right, "train")
    assert not (wrong.clicked & same & ~right.clicked).any() and not wrong.clicked[wrong.shown < 0].any()
    assert (wrong.clicked & same).sum() / (right.clicked & same).sum() == pytest.approx(0.8, abs=0.02)
    moved = (right.clicked & same & ~wrong.clicked).sum(1)
    new = (wrong.clicked & ~right.clicked).sum(1)
    assert (new <= moved).all() and new.sum() > 0.8 * moved.sum()  # some fall on one that is clicked already
    assert digest.of(loading.load(**SIZES)) != digest.of(loading.load(**SIZES, wrong_clicks=0.2))


def test_clicks_fade_with_the_place_and_prefer_what_is_liked():
    found = shoppers.clicks(BIASED, 2000, "gallery")
    there = found.shown >= 0
    assert (np.diff(there.astype(int), axis=1) <= 0).all()  # pages have no gaps
    rate = (found.clicked & there).sum(0) / there.sum(0)
    assert rate[0] > 2 * rate[3] > 4 * rate[8]
    same = same_product(BIASED, found, "gallery")
    liking = liked.liking(BIASED, "gallery", np.maximum(found.shown, 0))
    first = same & (np.arange(10) < 3)
    above = first & (liking > np.median(liking[first]))
    assert found.clicked[above].mean() > 1.5 * found.clicked[first & ~above].mean()


def test_places_can_be_told_from_likes():
    found = shoppers.clicks(BIASED, 3000, "gallery")
    search, place = np.nonzero(found.shown >= 0)
    pair = found.photos[search] * 1000 + found.shown[search, place]
    ones = np.ones(len(pair))
    looks = propensity.estimate(pair, place + 1, ones, found.clicked[search, place])
    assert looks.method == "em"
    np.testing.assert_allclose(looks.looks[:4], liked.looks(4), atol=0.12)


def test_the_table_has_places_and_listings_have_columns():
    shop = loading.load(**SIZES, num_clicks=40, biased_clicks=True)
    table = shop.table("clicks", "gallery").columns
    for name in ("clicked", "unclicked"):
        assert table[f"{name}_position"].indptr.tolist() == table[name].indptr.tolist()
    places = np.sort(np.concatenate([table["clicked_position"][3], table["unclicked_position"][3]]))
    assert places.tolist() == list(range(1, len(places) + 1))
    for split in (shop.train, shop.val, shop.gallery):
        for name in liked.NAMES:
            assert split.columns[name].dtype == np.float32 and len(split.columns[name]) == len(split)
        assert 0.1 < np.isnan(split.columns["rating"]).mean() < 0.3 and (split.columns["price"] > 0).all()
    assert not {*liked.NAMES} & {*shop.query.columns}
    worth = liked.liking(BIASED, "gallery", np.arange(560))
    assert np.corrcoef(np.log1p(shop.gallery.columns["sales"]), worth)[0, 1] > 0.4


@pytest.mark.parametrize("given", [{"wrong_clicks": 1.5}, {"wrong_clicks": "x"}, {"biased_clicks": 1}])
def test_values_out_of_range_are_refused(given):
    with pytest.raises(InputError, match=next(iter(given))):
        synthetic.make_shop(**given)
