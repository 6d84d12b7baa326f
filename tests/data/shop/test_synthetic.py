import time
import tracemalloc

import cv2
import numpy as np
import pytest

from retrieval_jax.data.shop import drawing, loading, shoppers, synthetic, wording
from retrieval_jax.errors import InputError

SHOP = synthetic.make_shop(num_train=400, num_val=60, num_query=60, num_gallery=560)


def test_a_row_is_the_same_whatever_the_order_and_the_sizes():
    larger = synthetic.make_shop(num_train=90_000, num_val=9_000, num_query=700, num_gallery=70_000)
    for split in ("train", "val", "gallery", "query"):
        few, many = synthetic.images(SHOP, split), synthetic.images(larger, split)
        last = [many[row] for row in (41, 7, 0)][::-1]
        for row, again in zip((0, 7, 41), last, strict=True):
            np.testing.assert_array_equal(few[row], again)
            assert synthetic.title(SHOP, split, row) == synthetic.title(larger, split, row)
            assert synthetic.listing_id(SHOP, split, row) == synthetic.listing_id(larger, split, row)


def test_another_seed_is_another_shop():
    other = synthetic.make_shop(seed=1)
    assert not np.array_equal(synthetic.images(SHOP, "train")[3], synthetic.images(other, "train")[3])
    assert synthetic.listing_id(SHOP, "train", 3) != synthetic.listing_id(other, "train", 3)
    assert not np.array_equal(synthetic.categories(SHOP, "train"), synthetic.categories(other, "train")[:400])


def test_ten_rows_are_a_catalogue():
    catalogue = loading.load(num_train=10, num_val=10, num_query=10, num_gallery=10)
    assert [len(catalogue.split(name)) for name in ("train", "val", "query", "gallery")] == [10] * 4
    assert (np.diff(catalogue.truth.indptr) > 0).all()
    assert catalogue.gallery.images[-1].shape == (64, 64, 3)
    # Ten queries ask for the few products there are, but never with the same photo.
    assert len({catalogue.query.images[row].tobytes() for row in range(10)}) == 10


def test_ten_million_rows_cost_the_categories_and_no_more():
    tracemalloc.start()
    catalogue = loading.load(num_train=10_000_000, num_val=0, num_query=1_000, num_gallery=2_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert catalogue.val is None
    assert peak < catalogue.train.categories.nbytes + catalogue.gallery.categories.nbytes + 64e6
    for row in (0, 5_000_000, 9_999_999):
        assert catalogue.train.images[row].shape == (64, 64, 3)
        assert catalogue.train.titles[row] and catalogue.train.ids[row]
        leaf = synthetic.attributes(synthetic.make_shop(), "train", np.array([row]))["category"][0]
        assert catalogue.train.categories[row, 2] == leaf


def test_no_product_is_in_two_of_train_val_gallery():
    products = {
        split: synthetic.product_ids(SHOP, split, np.arange(SHOP.size(split)))
        for split in ("train", "val", "gallery", "query", "photo")
    }
    assert not set(products["train"]) & set(products["gallery"])
    assert not set(products["val"]) & (set(products["train"]) | set(products["gallery"]))
    assert set(products["query"]) <= set(products["gallery"])
    assert set(products["photo"]) <= set(products["train"])
    # Nor are two products the same under two ids.
    details = np.concatenate(
        [
            synthetic.attributes(SHOP, split, np.unique(products[split], return_index=True)[1])["details"]
            for split in ("train", "val", "gallery")
        ]
    )
    assert len(np.unique(details, axis=0)) == len(details)


@pytest.mark.parametrize("num_gallery", [1, 10, 57, 560])
def test_truth_is_the_listings_of_the_same_product(num_gallery):
    shop = synthetic.make_shop(num_query=60, num_gallery=num_gallery)
    indptr, rows = synthetic.relevant(shop)
    query = synthetic.product_ids(shop, "query", np.arange(60))
    gallery = synthetic.product_ids(shop, "gallery", np.arange(num_gallery))
    for q in range(60):
        np.testing.assert_array_equal(rows[indptr[q] : indptr[q + 1]], np.flatnonzero(gallery == query[q]))
    assert (np.diff(indptr) > 0).all()


def test_some_queries_have_more_than_ten_listings_and_some_listings_no_query():
    indptr, rows = synthetic.relevant(SHOP)
    assert 0.1 < (np.diff(indptr) > 10).mean() < 0.3
    assert len(np.unique(rows)) < 0.8 * SHOP.num_gallery


def test_products_have_near_doubles():
    rows = np.unique(synthetic.product_ids(SHOP, "gallery", np.arange(560)), return_index=True)[1]
    truth = synthetic.attributes(SHOP, "gallery", rows)
    look = np.stack([truth[name] for name in ("category", "colour", "material")], 1)
    _, count = np.unique(look, axis=0, return_counts=True)
    assert count[count > 1].sum() > 0.5 * len(rows)


def test_the_box_holds_the_product():
    # The same product in white and in black under the same random numbers: only pixels of the product differ.
    for row in range(30):
        one = {name: column[0] for name, column in synthetic.attributes(SHOP, "gallery", np.array([7 * row])).items()}
        black, white = one | {"colour": 0, "pattern": 0}, one | {"colour": 1, "pattern": 0}
        for user in (False, True):
            pictures = [drawing.photo(product, np.random.default_rng(row), 64, user=user) for product in (black, white)]
            np.testing.assert_array_equal(pictures[0][1], pictures[1][1])
            ymin, xmin, ymax, xmax = pictures[0][1] * 64
            assert 0 <= ymin < ymax <= 64 and 0 <= xmin < xmax <= 64
            y, x = np.nonzero(np.abs(pictures[0][0].astype(int) - pictures[1][0]).sum(2) > 150)
            assert len(y) > 20
            assert ymin - 3 <= y.min() and y.max() < ymax + 3 and xmin - 3 <= x.min() and x.max() < xmax + 3


def test_boxes_are_those_of_the_pictures():
    boxes = synthetic.boxes(SHOP, "query", np.array([5, 2]))
    np.testing.assert_array_equal(boxes[1], synthetic.picture(SHOP, "query", 2)[1])
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    assert (area > 0.05).all() and (area <= 1).all()


def test_every_category_can_be_drawn_with_every_attribute():
    assert set(drawing._DRAW) == set(wording.LEAVES)
    for leaf in range(len(wording.LEAVES)):
        for number in range(16):
            details = np.random.default_rng(number).random(12)
            product = {
                "category": leaf,
                "colour": number % 12,
                "second": (number + 5) % 12,
                "pattern": number % 8,
                "material": number % 7,
                "brand": number,
                "part1": number % 2,
                "part2": number // 2 % 2,
                "details": details if number > 1 else np.full(12, 0.999999 * number),
            }
            drawn = drawing.draw(product, 64)
            assert 0.02 < (drawn[:, :, 3] > 0).mean() < 0.9
            assert not drawn[drawn[:, :, 3] == 0].any()


def test_titles_mostly_tell_the_truth_in_several_words():
    truth = synthetic.attributes(SHOP, "train", np.arange(400))
    titles = [synthetic.title(SHOP, "train", row).lower() for row in range(400)]
    colours = list(wording.COLOURS.values())
    named = np.mean(
        [any(word in text for word in colours[colour]) for text, colour in zip(titles, truth["colour"], strict=True)]
    )
    sold = np.mean(
        [
            any(word in text for word in wording.CATEGORIES[leaf][3])
            for text, leaf in zip(titles, truth["category"], strict=True)
        ]
    )
    assert 0.75 < named < 0.97 and 0.85 < sold < 0.99  # missing and misspelt words, too
    text = " ".join(titles)
    assert "free shipping" in text and "gray" in text and "grey" in text
    assert len(set(titles)) > 380


def test_clicks_prefer_the_product_of_the_photo():
    found = shoppers.clicks(SHOP, 300)
    wanted = synthetic.product_ids(SHOP, "photo", found.photos)
    same = synthetic.product_ids(SHOP, "train", np.maximum(found.shown, 0).ravel()).reshape(found.shown.shape)
    same = (same == wanted[:, None]) & (found.shown >= 0)
    other = ~same & (found.shown >= 0)
    assert not found.clicked[found.shown < 0].any()
    assert found.shown.max() < SHOP.num_train
    assert found.clicked[same].mean() > 0.65 and 0 < found.clicked[other].mean() < 0.2
    again = shoppers.clicks(SHOP, 20)
    np.testing.assert_array_equal(again.shown, found.shown[:20])
    assert shoppers.clicks(SHOP, 30, "gallery").shown.max() < SHOP.num_gallery
    with pytest.raises(InputError, match="train"):
        shoppers.clicks(SHOP, 3, "val")


def test_typed_queries_lead_to_products_that_have_what_they_name():
    found = shoppers.text_queries(SHOP, 50)
    right = []
    for i in range(50):
        rows = found.rows[found.indptr[i] : found.indptr[i + 1]]
        truth = synthetic.attributes(SHOP, "train", rows)
        right += [np.all([truth[name] == truth[name][0] for name in found.names[i]], axis=0)]
    assert np.concatenate(right).mean() > 0.85  # the others are clicks gone astray
    assert len(found.clicks) == len(found.rows) and found.clicks.min() >= 1
    assert all(found.texts)


def test_outfits_follow_their_rule():
    shop = synthetic.make_shop(num_train=4000)
    found = shoppers.outfits(shop, 60)
    truth = synthetic.attributes(shop, "train", found.rows.ravel())
    style, colour = (truth[name].reshape(60, 4) for name in ("style", "colour"))
    middle = np.array([wording.CATEGORIES[leaf][1] for leaf in truth["category"]]).reshape(60, 4)
    assert (middle == np.array(shoppers.OUTFIT)).all()
    names = list(wording.COLOURS)
    for i in range(60):  # the rule again, by hand
        hues = [shoppers.HUES[names[c]] for c in colour[i] if names[c] in shoppers.HUES]
        apart = [min(abs(a - b), 360 - abs(a - b)) for a in hues for b in hues]
        good = len(set(style[i])) == 1 and all(d <= 60 or d >= 150 for d in apart)
        assert good == found.compatible[i]
    assert found.compatible.mean() == 0.5
    with pytest.raises(InputError, match="listings"):
        shoppers.outfits(synthetic.make_shop(num_train=10), 2)


def test_a_colour_histogram_finds_little():
    def histogram(image):
        counts = cv2.calcHist(
            [cv2.cvtColor(image, cv2.COLOR_RGB2HSV)], [0, 1, 2], None, [8, 4, 4], [0, 180, 0, 256, 0, 256]
        ).ravel()
        return np.sqrt(counts / counts.sum())

    query = np.stack([histogram(image) for image in synthetic.images(SHOP, "query")])
    gallery = np.stack([histogram(image) for image in synthetic.images(SHOP, "gallery")])
    indptr, rows = synthetic.relevant(SHOP)
    top = np.argsort(-(query @ gallery.T), 1)[:, :10]
    recall = [np.isin(top[q], rows[indptr[q] : indptr[q + 1]]).sum() / min(10, np.diff(indptr)[q]) for q in range(60)]
    assert np.mean(recall) < 0.25


def test_speed():
    best = 0.0
    for _ in range(3):
        begin = time.process_time()
        for row in range(60):
            synthetic.picture(SHOP, "train", row)
        best = max(best, 60 / (time.process_time() - begin))
    print(f"{best:.0f} pictures of 64 px a second on one core")
    assert best > 100


@pytest.mark.parametrize(
    "kwargs, word",
    [
        ({"num_trains": 3}, "num_train"),
        ({"num_train": -1}, "num_train"),
        ({"num_gallery": 0}, "gallery"),
        ({"image_size": 8}, "16"),
        ({"num_val": 1.5}, "num_val"),
    ],
)
def test_bad_arguments_are_named(kwargs, word):
    with pytest.raises(InputError, match=word):
        loading.load(**kwargs)
