"""Further columns of listings: every kind, from the listings' files and from a file beside them, and what is wrong."""

import cv2
import numpy as np
import polars as pl
import pytest

from retrieval_jax.data import loading
from retrieval_jax.errors import InputError

HEADER = "id,image,colour,tags,weight,y0,x0,y1,x1,about\n"
TRAIN = (
    HEADER + "a,1.png,red,cotton|soft,1.5,0,0.25,1,0.75,Nice shirt\nb,1.png,blue,,,,,,,\n"
    "c,1.png,NaN,soft | wide ,12.0,0.1,0.1,0.2,0.2,12.0\n"
)
GALLERY = "id,image,colour,tags\ng,1.png,green,silk|soft\nh,1.png,red,\n"
COLUMNS = {
    "colour": ("colour", "category"),
    "tags": ("tags", "list"),
    "weight": ("weight", "number"),
    "box": (("y0", "x0", "y1", "x1"), "number"),
    "text": ("about", "text"),
}


def _load(root, columns=COLUMNS, source="table", **kwargs):
    return loading.load(
        {
            "source": source,
            "kwargs": {
                "root": str(root),
                "files": {"train": "train.csv", "gallery": "gallery.csv"},
                "columns": columns,
                **kwargs,
            },
        }
    )


@pytest.fixture
def shop(tmp_path):
    cv2.imwrite(str(tmp_path / "1.png"), np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "train.csv").write_text(TRAIN)
    (tmp_path / "gallery.csv").write_text(GALLERY)
    return tmp_path


def test_every_kind(shop):
    loaded = _load(shop)
    train, names = loaded.train.columns, loaded.column_names
    assert names == {"colour": ["blue", "red"], "tags": ["cotton", "soft", "wide"]}
    assert train["colour"].tolist() == [1, 0, -1] and train["colour"].dtype == np.int32
    assert [[names["tags"][tag] for tag in train["tags"][row]] for row in range(3)] == [
        ["cotton", "soft"],
        [],
        ["soft", "wide"],
    ]
    assert train["weight"].tolist()[::2] == [1.5, 12] and np.isnan(train["weight"][1])
    assert train["box"].shape == (3, 4) and train["box"].dtype == np.float32 and np.isnan(train["box"][1]).all()
    assert train["text"] == ["Nice shirt", "", "12.0"]  # text stays as it is
    # names are those of train; what only the gallery has is unknown there, and its file lacks the other columns
    assert set(loaded.gallery.columns) == {"colour", "tags"}
    assert loaded.gallery.columns["colour"].tolist() == [-1, 1]
    assert loaded.gallery.columns["tags"][0].tolist() == [1]
    assert loaded.train.titles is None and loaded.truth is None


def test_lists_of_json_and_parquet(shop):
    (shop / "train.jsonl").write_text(
        '{"id": "a", "image": "1.png", "tags": ["x", "y z"]}\n{"id": "b", "image": "1.png", "tags": null}\n'
        '{"id": "c", "image": "1.png", "tags": "y z"}\n'
    )
    pl.DataFrame({"id": ["g"], "image": ["1.png"], "tags": [["y z", "w"]]}).write_parquet(shop / "gallery.parquet")
    files = {"train": "train.jsonl", "gallery": "gallery.parquet"}
    loaded = _load(shop, {"tags": ("tags", "list")}, files=files)
    assert loaded.column_names["tags"] == ["x", "y z"]
    assert [loaded.train.columns["tags"][row].tolist() for row in range(3)] == [[0, 1], [], [1]]
    assert loaded.gallery.columns["tags"][0].tolist() == [1]


def test_bad_values_are_set_aside_with_a_sentence(shop):
    rows = ["d,1.png,red,,heavy,,,,,", "e,1.png,red,,inf,,,,,", "f,1.png,red,,,0,0,1,,", "i,1.png,red,,,0,0.5,1,0.5,"]
    rows += ["j,1.png,red,,,0,0,1.1,1,"]
    (shop / "train.csv").write_text(TRAIN + "\n".join(rows) + "\n")
    loaded = _load(shop, max_bad_share=0.9)
    assert loaded.train.ids == ["a", "b", "c"] and len(loaded.train.columns["colour"]) == 3
    assert [(row["id"], row["reason"]) for row in loaded.set_aside] == [
        ("d", "not a number"),
        ("e", "not a number"),
        ("f", "missing value"),
        ("i", "not a box"),
        ("j", "not a box"),
    ]
    assert loaded.set_aside[0]["sentence"] == (
        "train.csv, row 5 (id d): weight is 'heavy', not a number; correct it or leave it empty"
    )
    assert "x1 is empty, but other values of box are not" in loaded.set_aside[2]["sentence"]
    assert "the box 0, 0.5, 1, 0.5 is not one: ymin, xmin" in loaded.set_aside[3]["sentence"]
    assert loaded.counts["train"]["read"] == 8 and loaded.counts["train"]["kept"] == 3
    with pytest.raises(InputError, match="not a box 2, not a number 2, missing value 1"):
        _load(shop)


def test_a_file_beside_the_listings(shop):
    (shop / "attributes.csv").write_text(
        "id,season,year\na,summer,2012\ng,winter,\nnobody,summer,2013\nb,summer,last\na,winter,2011\n"
    )
    columns = {"season": ("season", "category", "attributes.csv"), "year": ("year", "number", "attributes.csv")}
    loaded = _load(shop, columns, max_bad_share=0.5)
    assert loaded.column_names == {"season": ["summer"]}  # that of train; the row of b is bad
    assert loaded.train.columns["season"].tolist() == [0, -1, -1] and loaded.gallery.columns["season"].tolist() == [
        -1,
        -1,
    ]
    assert loaded.train.columns["year"][0] == 2012 and np.isnan(loaded.train.columns["year"][1:]).all()
    count = loaded.counts["columns of attributes.csv"]
    assert count["read"] == 5 and count["kept"] == 2
    assert count["set_aside"] == {"duplicate id": 1, "no listing has this id": 1, "not a number": 1}
    # one that no listing has is counted but held against no file
    (shop / "attributes.csv").write_text("id,season,year\na,summer,2012\nnobody,summer,2013\n")
    assert _load(shop, columns).counts["columns of attributes.csv"]["kept"] == 1
    # nor is one whose listing is a bad row
    (shop / "attributes.csv").write_text("id,season,year\na,summer,2012\nd,summer,2013\n")
    (shop / "train.csv").write_text(TRAIN + "d,2.png,red,,,,,,,\n")
    found = _load(shop, columns, max_bad_share=0.3)
    assert found.counts["columns of attributes.csv"]["set_aside"] == {"its listing was set aside": 1}


@pytest.mark.parametrize(
    "columns, says",
    [
        ({"color": ("color", "category")}, "train.csv: missing column 'color' .our color.; .* did you mean 'colour'"),
        (
            {"colour": ("colour", "attribute")},
            "columns.colour: there is no kind 'attribute' .available: text, category",
        ),
        ({"colour": "colour"}, "columns has 'colour'; it takes id, .* such as colour=.'base_colour', 'category'."),
        ({"colour": (("colour", "tags"), "category")}, "columns.colour has 2 headers; only .* 'number' may"),
        ({"box": ("y0", "number")}, "columns.box: give four headers"),
        ({"a b": ("y0", "number")}, "columns has 'a b': a further column's name is a word"),
        ({"colour": (None, "text")}, "columns.colour is .None, 'text'.: give .header, kind."),
        ({"colour": ("colour", "text", "../secret.csv")}, r"the file '../secret.csv' leaves the root \(it has '..'\)"),
        ({"colour": ("colour", "text", "side.csv")}, "side.csv: there is no such file"),
        ({"colour": ("colour", "text", "gallery.csv"), "x": ("x", "text", "gallery.csv")}, "missing column 'x'"),
    ],
)
def test_what_cannot_be_declared(shop, columns, says):
    with pytest.raises(InputError, match=says):
        _load(shop, columns)


def test_eproduct_has_further_columns_too(tmp_path):
    (tmp_path / "metadata").mkdir()
    (tmp_path / "Images").mkdir()
    cv2.imwrite(str(tmp_path / "Images" / "1.png"), np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "metadata" / "train.csv").write_text(
        "UUID,AUCT_TITL,META_CATEG_ID,CATEG_LVL2_ID,LEAF_CATEG_ID,IMAGE_PATH,BRAND\nt,red hat,1,2,3,1.png,Acme\n"
    )
    (tmp_path / "metadata" / "index.csv").write_text("UUID,IMAGE_PATH\ng,1.png\nh,1.png\n")
    (tmp_path / "attributes.csv").write_text("split,UUID,baseColour\ntrain,t,Red\nindex,h,Red\n")
    columns = {"colour": ("baseColour", "category", "attributes.csv"), "brand": ("BRAND", "text")}
    loaded = loading.load({"source": "eproduct", "kwargs": {"root": str(tmp_path), "columns": columns}})
    assert loaded.train.columns["brand"] == ["Acme"] and loaded.train.columns["colour"].tolist() == [0]
    assert loaded.gallery.columns["colour"].tolist() == [-1, 0] and set(loaded.gallery.columns) == {"colour"}
    with pytest.raises(InputError, match="columns has 'title'"):
        loading.load({"source": "eproduct", "kwargs": {"root": str(tmp_path), "columns": {"title": "BRAND"}}})
