"""Every kind of export gives all products, and every picture once; and the rows add up."""

import collections

import pytest

import odd_exports
import reference
import shop_exports
from retrieval_jax.data.exports import loading, products

FOUND = shop_exports.products()
PICTURES = sum(product.pictures for product in FOUND)
KINDS = {**shop_exports.KINDS, **odd_exports.ODD}


@pytest.mark.parametrize("kind", KINDS)
def test_all_products_and_every_picture_once(tmp_path, kind):
    export = KINDS[kind](FOUND)
    table, folder = shop_exports.write(export, tmp_path)
    shop = loading.look(table, folder)
    found = {}
    for one in shop.matched.listings:
        found.setdefault(one.product, []).append(export.pictures[one.path])
    # Each product's pictures are those of one product, in their order.
    assert sorted(map(tuple, found.values())) == sorted(
        tuple((product.number, n) for n in range(product.pictures)) for product in FOUND
    ) or kind in ("shuffled_pictures", "no_titles")
    assert len(shop.matched.listings) == PICTURES == len(set(shop.ids)) and len(shop.table.products) == len(FOUND)
    assert all(len({number for number, _ in pictures}) == 1 for pictures in found.values())
    by_title = kind in ("rounded_ean_key", "null_keys", "float_keys", "only_titles")  # without keys
    assert ("rows of equal titles" in shop.guessed) == by_title and shop.splits.scored
    # rows = products + further rows of them + what is set aside
    table = shop.table
    aside = len(table.sheet.set_aside)
    assert (len(table.products) + table.further_rows, aside) == (export.rows, export.aside)
    assert len(table.named) == len(shop.matched.listings) + len(shop.matched.lost) + shop.matched.repeated


@pytest.mark.parametrize("kind", ["shopify", "woocommerce", "magento", "merchant", "torgovlya"])
def test_titles_and_categories(tmp_path, kind):
    table, folder = shop_exports.write(KINDS[kind](FOUND), tmp_path)
    found = loading.look(table, folder).table.products
    assert all(one.title.startswith(product.title) for one, product in zip(found, FOUND, strict=True))
    assert all(one.category.endswith(product.category[-1]) for one, product in zip(found, FOUND, strict=True))


def test_the_reference_exports():
    """The same 60 products and 167 pictures of five shop systems."""
    root = reference.extracted("shops.tar")
    tables = {
        "shopify/products_export.csv": "images",
        "woocommerce/wc-product-export.csv": "uploads",
        "magento/catalog_product.csv": "media",
        "merchant/feed.tsv": "pictures",
        "torgovlya/tovary.csv": "foto",
    }
    pictures = {}
    for name, folder in tables.items():
        shop = loading.look(root / name, (root / name).parent / folder)
        assert (len(shop.table.products), len(shop.matched.listings), shop.matched.lost) == (60, 167, [])
        of_product = collections.Counter(one.product for one in shop.matched.listings)
        pictures[name] = [of_product[number] for number in range(60)]
        assert shop.splits.scored and len(shop.splits.query) == 20
    assert len(set(map(tuple, pictures.values()))) == 1


def test_addresses_of_a_table(tmp_path):
    table, _ = shop_exports.write(KINDS["shopify"](FOUND), tmp_path)
    pairs = products.addresses(table)
    assert len(pairs) == PICTURES and pairs[0][0] == FOUND[0].slug and pairs[0][1].startswith("https://cdn.")
    assert len({product for product, _ in pairs}) == len(FOUND)


def test_a_group_of_different_products_is_named_and_not_used(tmp_path):
    table, folder = shop_exports.write(KINDS["merchant"](FOUND), tmp_path)
    found = loading.look(table, folder).table
    assert any("'item_group_id' joins rows with different titles" in note for note in found.recognised.notes)
    assert found.recognised.roles.product == "id" and len(found.refused) == len(FOUND) // 2


def test_parents_that_are_no_rows_are_counted(tmp_path):
    table, folder = shop_exports.write(KINDS["parents_that_are_no_rows"](FOUND), tmp_path)
    assert loading.look(table, folder).table.refused == ["Main", "Shop"]


@pytest.mark.parametrize(("kind", "column"), [("books", "Language"), ("stores", "Store")])
def test_a_language_without_repeated_keys_is_no_language(tmp_path, kind, column):
    table, folder = shop_exports.write(KINDS[kind](FOUND), tmp_path)
    found = loading.look(table, folder).table
    assert not found.recognised.roles.language and all(one.title for one in found.products)


def test_a_picture_of_several_products_shows_none_of_them(tmp_path):
    table, folder = shop_exports.write(KINDS["placeholder_image"](FOUND), tmp_path)
    lost = loading.look(table, folder).matched.lost
    assert {reason for _, reason, _ in lost} == {"picture of several products"} and len(lost) == len(FOUND)
    assert "no_image.jpg is named by 14 products" in lost[0][2]


def test_a_column_that_the_user_names_is_taken(tmp_path):
    table, folder = shop_exports.write(KINDS["torgovlya"](FOUND), tmp_path)
    columns = {"product": "Код", "image": "Фото"}
    shop = loading.look(table, folder, columns)
    assert len(shop.table.products) == PICTURES and not any(one.title for one in shop.table.products)
    with pytest.raises(loading.InputError, match="no column 'Foto' .config.data.kwargs.columns.image."):
        loading.look(table, folder, {"image": "Foto"})
    with pytest.raises(loading.InputError, match="columns has 'titel'; did you mean title"):
        loading.look(table, folder, {"titel": "Фото"})
