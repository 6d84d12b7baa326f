"""One table as a catalogue: splits, counts that add up, truth, and what happens without any."""

import numpy as np
import pytest

import shop_exports
from retrieval_jax.data import loading
from retrieval_jax.data.exports import loading as exports
from retrieval_jax.errors import InputError

FOUND = shop_exports.products()
PICTURES = sum(product.pictures for product in FOUND)


def _load(kind, folder, found=FOUND, **kwargs):
    table, _ = shop_exports.write(shop_exports.KINDS[kind](found), folder)
    kwargs = {"root": str(folder), "files": table.name, "image_root": "pictures", **kwargs}
    return loading.load({"source": "table", "kwargs": kwargs})


def test_a_table_alone_is_train_and_gallery(tmp_path):
    catalog = _load("shopify", tmp_path)
    assert set(catalog.splits()) == {"train", "val", "query", "gallery"}
    assert len(catalog.query) + len(catalog.gallery) == PICTURES
    assert set(catalog.train.ids) < set(catalog.gallery.ids) and not set(catalog.train.ids) & set(catalog.query.ids)
    assert catalog.query.images[0].shape == (24, 24, 3)
    # The truth: the other pictures of the query's product.
    for number, item in enumerate(catalog.query.ids):
        product = item.rpartition("-")[0]
        own = {one for one in catalog.gallery.ids if one.rpartition("-")[0] == product}
        rows = catalog.truth.rows[catalog.truth.indptr[number] : catalog.truth.indptr[number + 1]]
        assert own and {catalog.gallery.ids[row] for row in rows} == own
    assert catalog.category_levels == ("category",) and catalog.train.titles[0].startswith("H")


def test_counts_add_up(tmp_path):
    table, folder = shop_exports.write(shop_exports.chinese(FOUND), tmp_path)
    (folder / "hat-canvas-plain-no-b1x-3.jpg").unlink()
    kwargs = {"root": str(tmp_path), "files": table.name, "image_root": "pictures"}
    catalog = loading.load({"source": "table", "kwargs": kwargs}, set_aside_path=tmp_path / "set_aside.csv")
    for count in catalog.counts.values():
        assert count["read"] == count["kept"] + sum(count["set_aside"].values())
    assert catalog.counts["rows of the table"]["set_aside"] == {"total below the table": 1}
    assert catalog.counts["pictures"] == {
        "read": PICTURES,
        "kept": PICTURES - 1,
        "set_aside": {"no file for the picture": 1},
        "files": catalog.counts["pictures"]["files"],
    }
    assert f"{folder} has no file 'hat-canvas-plain-no-b1x-3.jpg'" in (tmp_path / "set_aside.csv").read_text()
    with pytest.raises(InputError, match="商品.csv: 1 of 29 rows are bad .no file for the picture 1."):
        loading.load({"source": "table", "kwargs": kwargs | {"max_bad_share": 0.01}})


def test_the_same_catalogue_twice_and_another_with_another_seed(tmp_path):
    first, again = _load("merchant", tmp_path), _load("merchant", tmp_path)
    assert first.query.ids == again.query.ids and first.train.ids == again.train.ids
    assert _load("merchant", tmp_path, split_seed=1).query.ids != first.query.ids
    assert len(_load("merchant", tmp_path, test_share=0.0).query) == PICTURES


def test_without_a_key_equal_titles_and_pictures_are_one_product(tmp_path):
    rows = [["id", "name", "file"]]
    for product in FOUND:
        rows += [[f"{product.number}{n}", product.title, f"{product.number}_{n}.jpg"] for n in range(product.pictures)]
    files = {f"{p.number}_{n}.jpg": (p.number, n) for p in FOUND for n in range(p.pictures)}
    export = shop_exports.Export("t.csv", shop_exports.text(rows).encode(), files, 0)
    shop_exports.write(export, tmp_path)
    kwargs = {"root": str(tmp_path), "files": "t.csv", "image_root": "pictures"}
    # With a column of products, though each has one picture, and without any.
    for columns in ({"product": "id", "title": "name", "image": "file"}, {"title": "name", "image": "file"}):
        catalog = loading.load({"source": "table", "kwargs": kwargs | {"columns": columns}})
        assert catalog.truth is not None and len(catalog.query) + len(catalog.gallery) == PICTURES
        assert not set(catalog.query.titles) & set(catalog.train.titles)
    # The same picture under two names and titles is one product as well.
    twin = shop_exports.Export(
        "t.csv",
        b"name,file\nRed hat,a.png\nBlue scarf,b.png\nHat,c.png\n",
        {"a.png": (1, 0), "b.png": (2, 0), "c.png": (1, 0)},
        3,
    )
    shop_exports.write(twin, tmp_path / "twin")
    catalog = loading.load({"source": "table", "kwargs": kwargs | {"root": str(tmp_path / "twin")}})
    assert len(catalog.query) == 1 and np.array_equal(catalog.truth.num_relevant, [1])


def test_without_any_ground_truth_everything_is_searched_with_itself(tmp_path):
    singles = [product for product in FOUND if product.pictures == 1]
    catalog = _load("torgovlya", tmp_path, singles)
    assert catalog.truth is None and catalog.query.ids == catalog.gallery.ids and len(catalog.gallery) == len(singles)


def test_further_columns_and_columns_that_do_not_exist(tmp_path):
    columns = {"product": "Handle", "title": "Title", "image": "Image Src", "kind_of": ("Type", "category")}
    catalog = _load("shopify", tmp_path, columns=columns)
    names = catalog.column_names["kind_of"]
    assert names[catalog.train.columns["kind_of"][0]] in {product.category[-1] for product in FOUND}
    assert catalog.category_levels == ()
    with pytest.raises(InputError, match="missing column 'Vendr'.*did you mean 'Vendor'"):
        _load("shopify", tmp_path, columns=columns | {"brand": ("Vendr", "category")})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"ground_truth": "truth.csv"}, "one table are split off by product"),
        ({"test_share": 1.0}, "test_share is a share from 0 to below 1"),
        ({"image_root": "nowhere"}, "nowhere: there is no such folder of pictures"),
        ({"files": "other.csv"}, "other.csv: there is no such file"),
        ({"image_root": ""}, None),
    ],
)
def test_arguments(tmp_path, change, says):
    if says is None:
        assert len(_load("torgovlya", tmp_path, **change).gallery)  # the files are below the root
        return
    with pytest.raises(InputError, match=says):
        _load("torgovlya", tmp_path, **change)


def test_no_picture_found_and_one_product_only(tmp_path):
    table, folder = shop_exports.write(shop_exports.shopify(FOUND), tmp_path)
    kwargs = {"root": str(tmp_path), "files": table.name, "image_root": "empty"}
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"29 pictures, and none of them is in .*empty.*retrieval-jax pictures"):
        loading.load({"source": "table", "kwargs": kwargs})
    with pytest.raises(InputError, match="all 2 pictures are of one product"):
        _load("torgovlya", tmp_path / "one", FOUND[:1])


def test_splits_may_name_the_same_file(tmp_path):
    _load("torgovlya", tmp_path)
    files = {"train": "t.csv", "gallery": "t.csv"}
    (tmp_path / "t.csv").write_text("id,title,image\na,Hat,000_0.jpg\nb,Scarf,001_0.jpg\n")
    kwargs = {"root": str(tmp_path), "files": files, "image_root": "pictures", "columns": {"title": "title"}}
    catalog = loading.load({"source": "table", "kwargs": kwargs})
    assert catalog.train.ids == catalog.gallery.ids == ["a", "b"]


def _written(folder, text, files):
    export = shop_exports.Export("t.csv", text.encode(), files, text.count("\n") - 1)
    return shop_exports.write(export, folder)


NAMES = ("Linen candle", "Oak mirror", "Brass chair", "Clay mug", "Wool rug", "Steel lamp")


def test_products_that_are_guesses_are_named(tmp_path):
    files = {f"{n}.png": (n, 0) for n in range(6)}
    rows = "".join(f"9{n},{NAMES[n % 3]},{n}.png\n" for n in range(6))
    no_key = "name,image\n" + "".join(f"{NAMES[n % 3]},{n}.png\n" for n in range(6))
    said = exports.look(*_written(tmp_path / "a", no_key, files)).guessed
    assert said.startswith("no column says which rows are one product") and "in 3 of 3 products, such as 'Linen" in said
    said = exports.look(*_written(tmp_path / "b", "product id,name,image\n" + rows, files)).guessed
    assert "every value of 'product id' has one picture" in said
    several = "product id,name,image\n" + "".join(f"9{n % 3},{NAMES[n % 3]},{n}.png\n" for n in range(6))
    assert exports.look(*_written(tmp_path / "c", several, files)).guessed == ""


def test_a_placeholder_under_many_names_is_a_picture_of_none(tmp_path):
    files = {f"{n}.png": (7 if n < 4 else n, 0) for n in range(6)}  # the first four are one picture
    table, folder = _written(
        tmp_path, "sku,name,image\n" + "".join(f"A{n},{NAMES[n]},{n}.png\n" for n in range(6)), files
    )
    matched = exports.look(table, folder).matched
    assert [one.path for one in matched.listings] == ["4.png", "5.png"]
    assert {reason for _, reason, _ in matched.lost} == {"picture of several products"}
    assert "0.png has the bytes of the pictures of 4 products" in matched.lost[0][2]


@pytest.mark.parametrize(
    ("text", "files", "says"),
    [
        ("sku,size,image\nT1-S,S,a.png\nT1-M,M,a.png\n", ["a.png"], "a.png is named by 2 products.*'product id'"),
        ("sku,name,image\nT1,Oak mirror,f.png\nT2,Clay mug,f.png\n", ["x/f.png", "y/f.png"], "a folder of its key"),
        ("sku,name,photo\nT1,Oak mirror,/9j/4AAQSk\nT2,Clay mug,/9j/4AAQSz\n", ["f.png"], "'photo' hold .* as base64"),
    ],
)
def test_pictures_of_no_product_alone_say_what_to_do(tmp_path, text, files, says):
    table, folder = _written(tmp_path, text, {file: (number, 0) for number, file in enumerate(files)})
    with pytest.raises(InputError, match=says):
        exports.look(table, folder)
