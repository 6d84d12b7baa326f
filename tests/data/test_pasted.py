"""Pasted photos: true boxes, the same bytes every time, and clicks whose pages show what they should."""

import csv

import cv2
import numpy as np
import pytest
from ml_collections import ConfigDict

from retrieval_jax.data import digest, loading, pasted

COLOURS = ((30, 40, 200), (40, 160, 40), (180, 60, 30), (20, 20, 20))


def shop(root, train=12, queries=4):
    """Writes a catalogue in eProduct's layout whose pictures are rectangles on white."""
    rng = np.random.default_rng(0)
    for split, count, with_title in (("train", train, True), ("index", 6, False), ("query", queries, False)):
        (root / "metadata").mkdir(parents=True, exist_ok=True)
        (root / "Images" / split).mkdir(parents=True)
        rows = []
        for number in range(count):
            picture = np.full((80, 60, 3), 255, np.uint8)
            top, left = rng.integers(5, 30), rng.integers(5, 20)
            picture[top : top + 40, left : left + 30] = COLOURS[number % 4]
            name = f"{split}/{number}.png"
            cv2.imwrite(str(root / "Images" / name), picture)
            row = {"UUID": f"{split}{number}", "IMAGE_PATH": name}
            if with_title:
                levels = {"META_CATEG_ID": 0, "CATEG_LVL2_ID": number % 2, "LEAF_CATEG_ID": number % 4}
                row |= {"AUCT_TITL": f"shirt {number // 2}", **levels}
            rows.append(row)
        with open(root / "metadata" / f"{split}.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    return root


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    root = shop(tmp_path_factory.mktemp("shop"))
    return loading.load(ConfigDict({"source": "pasted", "kwargs": {"root": str(root), "num_clicks": 50}}))


def test_the_box_is_where_the_product_is(catalog):
    for split in (catalog.query, catalog.photo):
        boxes = split.columns["box"]
        assert boxes.shape == (len(split), 4) and (boxes[:, 2:] > boxes[:, :2]).all()
        sides = (boxes[:, 2:] - boxes[:, :2]).max(1)
        assert (sides > 0.35).all() and (sides < 0.8).all()
        for row in range(4):
            picture, again = split.images[row], split.images[row]
            np.testing.assert_array_equal(picture, again)
            assert picture.shape == (*pasted.SIZE, 3)
            top, left, bottom, right = (boxes[row] * np.tile(pasted.SIZE, 2)).round().astype(int)
            inner = picture[top + 4 : bottom - 4, left + 4 : right - 4].astype(float)
            assert inner.std((0, 1)).max() < 12  # one colour and noise: nothing but the product
    assert not np.array_equal(catalog.query.images[0], catalog.photo.images[0])


def test_what_is_cut_out_is_the_product_without_its_margins():
    picture = np.full((40, 30, 3), 255, np.uint8)
    picture[10:30, 5:25] = (200, 30, 30)
    picture[15:20, 10:15] = 255  # white inside of the product stays
    cut = pasted.cut_out(picture)
    assert cut.shape == (20, 20, 4) and cut[2:, 2:, 3].min() == 255
    whole = pasted.cut_out(np.random.default_rng(0).integers(0, 200, (40, 30, 3), dtype=np.uint8))
    assert whole.shape == (40, 30, 4) and (whole[..., 3] == 255).all()


def test_pages_show_the_product_first_and_others_of_its_category(catalog):
    table = catalog.table("clicks", "train")
    titles, leaf = catalog.train.titles, catalog.train.categories[:, -1]
    clicks, right = 0, 0
    for page in range(len(table)):
        photo = table.columns["photo"][page]
        clicked, other = table.columns["clicked"][page], table.columns["unclicked"][page]
        assert len(set(clicked) | set(other)) == len(clicked) + len(other)
        assert {row for row in range(12) if titles[row] == titles[photo]} <= set(clicked) | set(other)
        clicks, right = clicks + len(clicked), right + sum(titles[row] == titles[photo] for row in clicked)
        assert any(leaf[row] == leaf[photo] for row in [*clicked, *other])
    assert right > 0.8 * clicks


def test_the_digest_tells_seeds_apart(catalog):
    one = digest.of(catalog)
    assert one == digest.of(catalog)
    other = pasted.Pasted(catalog.train.images, catalog.train.images, 1, "query")
    catalog.query.images, before = other, catalog.query.images
    assert "pictures" in digest.differences(one, digest.of(catalog))[0]
    catalog.query.images = before
