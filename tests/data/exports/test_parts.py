"""The parts that recognise a table: references, folders, encodings, forms, categories, titles, splits."""

import collections
import os

import numpy as np
import pytest
from PIL import Image

from retrieval_jax.data.exports import categories, encodings, facts, folders, likeness, reading, references, splitting
from retrieval_jax.data.fetching import addresses
from retrieval_jax.errors import InputError


@pytest.mark.parametrize(
    ("field", "found"),
    [
        ("a.jpg", ["a.jpg"]),
        ("a.jpg, b.PNG;c.webp|d.jpeg\ne.gif", ["a.jpg", "b.PNG", "c.webp", "d.jpeg", "e.gif"]),
        ("red, blue dress.jpg", ["red, blue dress.jpg"]),
        ("a.jpg b.jpg", ["a.jpg", "b.jpg"]),
        ("https://x/a,b.jpg,https://x/c.jpg", ["https://x/a,b.jpg", "https://x/c.jpg"]),
        ("https://x/1 https://x/2", ["https://x/1", "https://x/2"]),
        ("//cdn.x.com/a.jpg?v=1, //cdn.x.com/b.jpg?v=1", ["//cdn.x.com/a.jpg?v=1", "//cdn.x.com/b.jpg?v=1"]),
        ('["https://x/a.jpg", "b.jpg"]', ["https://x/a.jpg", "b.jpg"]),
        ('[{"url": "a.jpg", "alt": "x"}]', ["a.jpg"]),
        ('<p><img src="https://x/a.jpg?x=1&amp;y=2"/></p>', ["https://x/a.jpg?x=1&y=2"]),
        ("https://x/a.jpg ! alt : red ! title : dress", ["https://x/a.jpg"]),
        ("foto\\000_0.JPG", ["foto\\000_0.JPG"]),
        ("no_selection", []),
        ("NULL", []),
        ("", []),
        ("https://x/film.mp4, https://x/a.jpg", ["https://x/a.jpg"]),
        ("ab12_f~mv2.jpg;cd~mv2.png", ["ab12_f~mv2.jpg", "cd~mv2.png"]),
    ],
)
def test_a_field_becomes_pictures(field, found):
    assert references.split(field) == found


@pytest.mark.parametrize(
    ("reference", "path"),
    [
        ("https://x.example.com/a%20b/c.jpg?v=2#top", "a b/c.jpg"),
        ("foto\\a.JPG", "foto/a.JPG"),
        ("/m/i/a.jpg", "m/i/a.jpg"),
        ("https://x/image.php?id=7", "image.php?id=7"),
        ("cafe\u0301.jpg", "café.jpg"),
    ],
)
def test_the_path_of_a_reference(reference, path):
    assert references.path(reference) == path


def _touch(folder, *paths):
    for number, path in enumerate(paths):
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), number, np.uint8)).save(file, format="PNG")


def test_files_are_found_by_name(tmp_path):
    address = "https://x.example.com/front.jpg?v=3"
    _touch(tmp_path, "a.jpg", "one/front.jpg", "two/front.jpg", "Sub/B c.PNG", "e.webp", addresses.file_name(address))
    folder = folders.Folder(tmp_path)
    assert folder.find("https://x.example.com/s/A.JPG?v=1")[0] == "a.jpg"
    assert folder.find("media/two/front.jpg")[0] == "two/front.jpg"
    assert folder.find("sub\\b%20c.png")[0] == "Sub/B c.PNG"
    assert folder.find("e.jpg")[0] == "e.webp"  # converted since
    assert folder.find(address)[0] == addresses.file_name(address)  # as `retrieval-jax pictures` names it
    path, reason, detail = folder.find("front.jpg")
    assert not path and reason == folders.AMBIGUOUS and "2 files 'front.jpg': one/front.jpg, two/front.jpg" in detail
    path, reason, detail = folder.find("aa.jpg")
    assert not path and reason == folders.MISSING and detail == f"{tmp_path} has no file 'aa.jpg'; there is 'a.jpg'"


def test_nothing_outside_the_folder_is_found(tmp_path):
    _touch(tmp_path, "secret.jpg", "pictures/a.jpg", "other/b.jpg")
    os.symlink(tmp_path / "secret.jpg", tmp_path / "pictures" / "link.jpg")
    os.symlink(tmp_path / "other", tmp_path / "pictures" / "other")
    os.symlink(tmp_path / "pictures" / "a.jpg", tmp_path / "pictures" / "inner.jpg")
    folder = folders.Folder(tmp_path / "pictures")
    assert folder.files == ["a.jpg", "inner.jpg"]
    for reference in ("../secret.jpg", "link.jpg", "other/b.jpg", "b.jpg", "/etc/passwd"):
        assert folder.find(reference)[1] == folders.MISSING


def test_what_is_not_a_folder(tmp_path):
    (tmp_path / "pictures.zip").write_bytes(b"PK")
    (tmp_path / "a.jpg").write_bytes(b"")
    (tmp_path / "pictures").mkdir()
    for name, says in (
        ("pictures.zip", "is an archive: unpack it"),
        ("a.jpg", "is a file: give the folder"),
        ("pictrues", "no such folder of pictures; did you mean pictures?"),
    ):
        with pytest.raises(InputError, match=says):
            folders.Folder(tmp_path / name)


def test_files_named_after_keys(tmp_path):
    _touch(tmp_path, "A-1.jpg", "A-1_2.jpg", "a-1 (10).jpg", "A-12.jpg", "B/front.jpg", "B/back.jpg", "x.jpg")
    found = folders.Folder(tmp_path).named_after(["A-1", "A-12", "B", "C"])
    assert found == {
        "A-1": ["A-1.jpg", "A-1_2.jpg", "a-1 (10).jpg"],
        "A-12": ["A-12.jpg"],
        "B": ["B/back.jpg", "B/front.jpg"],
    }


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1251", "koi8-r", "cp866"])
def test_encodings_of_russian(tmp_path, encoding):
    text = "Код;Наименование;Фото\r\n" + "1;Платье женское синее;a.jpg\r\n" * 20
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    form = reading.sniff(tmp_path / "t.csv")
    assert form.encoding == encoding and form.delimiter == ";"
    assert list(reading.read(tmp_path / "t.csv").columns) == ["Код", "Наименование", "Фото"]


def test_a_broken_letter_leaves_the_file_utf8(tmp_path):
    lines = ["код;название", *["1;Платье женское синее"] * 100, "2;Пла"]
    (tmp_path / "t.csv").write_bytes("\n".join(lines).encode()[:-1] + b"\xff;\n")
    assert encodings.find(tmp_path / "t.csv") == "utf-8"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("t.csv", b"", "is empty"),
        ("t.csv", b"a,b\n", "no rows below the header"),
        ("t.csv", b"PK\x03\x04", "zip archive or an Excel workbook"),
        ("t.csv", b"<!DOCTYPE html><html>", "HTML or XML page"),
        ("t.csv", bytes(range(32)) * 40, "not a text file"),
        ("t.xlsx", b"PK\x03\x04", "save it as CSV"),
        ("t.ods", b"PK\x03\x04", "save it as CSV"),
        ("t.xml", b"<rss>", "export the products as CSV"),
        ("t.zip", b"PK", "tables end in .csv"),
    ],
)
def test_what_is_not_a_table(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=says):
        reading.read(tmp_path / name)


def test_a_folder_or_nothing_in_place_of_a_table(tmp_path):
    (tmp_path / "products.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="is a folder: give the table itself; it holds products.csv"):
        reading.read(tmp_path)
    with pytest.raises(InputError, match="no such file; .* has products.csv"):
        reading.read(tmp_path / "product.csv")


def test_repeated_and_missing_names_of_columns():
    assert reading.column_names(["Image", " Image\n", "", "\ufeffid"]) == ["Image", "Image (2)", "column 3", "id"]


@pytest.mark.parametrize(
    ("field", "best"),
    [
        ("fashion > bags > handbag, Sale", ("fashion", "bags", "handbag")),
        ("Sale, fashion > bags", ("fashion", "bags")),
        ("Default Category/fashion,Default Category/fashion/bags", ("fashion", "bags")),
        ("Home &gt; Bags", ("Bags",)),
        ("Men / Shoes", ("Men", "Shoes")),
        ("handbag", ("handbag",)),
        ("Uncategorized", ()),
        ("NULL", ()),
        ("", ()),
    ],
)
def test_the_category_of_a_field(field, best):
    assert categories.best([field]) == best


def test_a_common_root_says_nothing():
    names, rows = categories.names([["Shop1 > a > x", "Shop1 > b", ""]])
    assert rows == ["a > x", "b", ""] and names == ["a > x", "b"]


@pytest.mark.parametrize(
    ("one", "other", "agree"),
    [
        ("Basic T-Shirt Red", "Basic T-Shirt Blue", True),
        ("Cotton Dress - S", "Cotton Dress", True),
        ("Kleid rot Gr. 38", "Kleid blau Gr. 40", True),
        ("Платье красное 42", "Платье красное 44", True),
        ("Handbag Cotton Ivory Wexby", "Mirrow Floral Handbag White", False),
        ("White Hat Jupelle", "Wristwatch Metal Zanira", False),
        ("", "anything", True),
    ],
)
def test_titles_of_one_product(one, other, agree):
    assert likeness.agree(one, other) == likeness.agree(other, one) == agree


def test_values_as_they_were_meant():
    cells = ["'4006381", '="0012"', "12.0", " A\xa0", "NULL", "4.00638E+12", "4,00638E+12", "Does not apply"]
    assert [facts.clean(cell, placeholders=True) for cell in cells] == ["4006381", "0012", "12", "A", "", "", "", ""]


# ------------------------------------------------------------------------------------------------------------ splits


def _split(counts, **arguments):
    products = [key for key, count in enumerate(counts) for _ in range(count)]
    return products, splitting.split(products, [True] * len(products), **arguments)


def test_no_product_is_on_two_sides():
    products, found = _split([3] * 40 + [1] * 20)
    of = {name: {products[n] for n in getattr(found, name)} for name in ("train", "val", "query")}
    assert not of["train"] & of["val"] and not of["train"] & of["query"] and not of["val"] & of["query"]
    assert of["train"] | of["val"] | of["query"] == set(range(60))
    assert len(found.query) == len(of["query"]) == 13 and found.scored  # a third of 40
    assert len(of["val"]) == 6
    assert sorted([*found.query, *found.gallery]) == list(range(140))  # the gallery has all others
    assert set(found.train) <= set(found.gallery)
    left = collections.Counter(products[n] for n in found.gallery)
    assert all(left[product] == 2 for product in of["query"])


@pytest.mark.parametrize("counts", [[2, 1], [2, 2], [1, 1], [2, 2, 2], [5, 1, 1], [2] * 5])
def test_small_shops_train_on_something(counts):
    products, found = _split(counts)
    assert found.train and found.query and found.gallery and found.scored == (max(counts) > 1)
    if not found.scored:
        assert found.query == found.gallery == list(range(len(products)))


def test_a_split_depends_on_seed_and_keys_alone():
    products, found = _split([2] * 100)
    assert found == _split([2] * 100)[1] != _split([2] * 100, seed=1)[1]
    more = [*products, 100, 100]
    again = splitting.split(more, [True] * len(more))
    moved = {products[n] for n in found.query} ^ {more[n] for n in again.query}
    assert len(moved) <= 3  # a new product moves few others


def test_shares_of_large_shops_and_of_none():
    products, found = _split([2] * 1000)
    assert len(found.query) == 200 and len({products[n] for n in found.val}) == 100
    _, found = _split([2] * 10, test_share=0.0, val_share=0.0)
    assert not found.scored and not found.val and len(found.train) == len(found.gallery) == 20


def test_listings_that_teach_nothing_are_searched_only():
    products = [0, 0, 1, 1, 2, 2, 3, 3]
    found = splitting.split(products, [product != 3 for product in products])
    assert not {6, 7} & {*found.train, *found.val}


def test_a_reference_may_lack_its_extension_and_its_folder(tmp_path):
    _touch(tmp_path, "photo_1.jpg", "S1/front.jpg", "S2/front.jpg")
    folder = folders.Folder(tmp_path)
    assert folder.find("photo_1")[0] == "photo_1.jpg" and not folder.find("https://x.example.com/photo_1")[0]
    assert folder.find("front.jpg", ["s2"])[0] == "S2/front.jpg"
    assert folder.find("S1/front.jpg", ["S2"])[0] == "S1/front.jpg"  # what the table says counts first
    assert folder.find("front.jpg", ["S3"])[1] == folders.AMBIGUOUS


def test_files_are_named_by_keys_rather_than_by_folders_of_categories(tmp_path):
    _touch(
        tmp_path,
        *(f"{kind}/S{n}{kind[0]}{end}.jpg" for kind in ("Rings", "Mugs") for n in range(4) for end in ("", "_2")),
    )
    columns = {"Category": ["Rings", "Mugs"] * 4, "SKU": [f"S{n}{kind}" for n in range(4) for kind in "RM"]}
    assert folders.named_by(folders.Folder(tmp_path), columns) == "SKU"
    assert folders.named_by(folders.Folder(tmp_path), {"SKU": ["A1", "A2"]}) == ""


def test_folders_that_cannot_be_read_are_left_out_and_named(tmp_path, monkeypatch):
    _touch(tmp_path, "a.jpg", "locked/b.jpg", "open/c.jpg")
    scan = os.scandir

    def refuse(path):
        if str(path).rstrip("/").endswith(("locked", "whole")):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(folders.os, "scandir", refuse)
    folder = folders.Folder(tmp_path)
    assert folder.files == ["a.jpg", "open/c.jpg"] and folder.unreadable == ["locked"]
    (tmp_path / "whole").mkdir()
    with pytest.raises(InputError, match="whole: the folder cannot be read"):
        folders.Folder(tmp_path / "whole")
