"""Columns and tables of joined catalogues: every value where its listing went, unknown where a catalogue has none."""

import logging

import cv2
import numpy as np
import pytest

from retrieval_jax.data import digest, joined_columns, loading
from retrieval_jax.data.catalog import Lazy
from retrieval_jax.data.examples import Ragged
from retrieval_jax.errors import InputError

SMALL = {"num_train": 200, "num_val": 4, "num_query": 5, "num_gallery": 60, "image_size": 16}
SHOP = {"source": "synthetic", "kwargs": SMALL | {"num_clicks": 3, "num_edits": 4}}
COLUMNS = {
    "colour": ("colour", "category"),
    "tags": ("tags", "list"),
    "weight": ("weight", "number"),
    "about": ("about", "text"),
}


def _table(root, name, columns=COLUMNS, header="id,image,colour,tags,weight,about", **changed):
    folder = root / name
    folder.mkdir(exist_ok=True)
    cv2.imwrite(str(folder / "1.png"), np.zeros((4, 4, 3), np.uint8))
    files = {
        "train": f"{header}\n{name}1,1.png,red,x|y,1,first\n{name}2,1.png,blue,,2,second\n",
        "gallery": f"{header}\n{name}3,1.png,blue,y,3,third\n",
        "query": f"{header}\n{name}4,1.png,red,,4,fourth\n",
        "photo": "id,image\np,1.png\n",
        "clicks": f"photo,clicked,unclicked\np,{name}2,{name}1\np,{name}3,\n",
        "queries": f"text,clicked,count,position\nhat,{name}2 {name}1,3 2,1 2\n",
        "outfits": f"listings\n{name}1 {name}2\n",
    } | changed
    for file, content in files.items():
        (folder / f"{file}.csv").write_text(content)
    return {
        "source": "table",
        "kwargs": {
            "root": str(folder),
            "files": {split: f"{split}.csv" for split in ("train", "query", "gallery", "photo")},
            "columns": columns,
            "tables": {table: f"{table}.csv" for table in ("clicks", "queries", "outfits")},
        },
    }


def _join(search="a", **catalogs):
    kwargs = {"catalogs": catalogs, "search": search, "same_categories": True}
    return loading.load({"source": "joined", "kwargs": kwargs})


def _lists(ragged):
    return [ragged[row].tolist() for row in range(len(ragged))]


def test_columns_of_all_or_unknown(tmp_path):
    a, b = (
        _table(tmp_path, "a"),
        _table(tmp_path, "b", {"colour": ("colour", "category")}, train="id,image,colour\nb1,1.png,teal\n"),
    )
    b["kwargs"]["tables"] = {}
    both = _join(a=a, b=b)
    assert both.column_names == {"colour": ["blue", "red", "teal"], "tags": ["x", "y"]}
    columns = both.train.columns
    assert columns["colour"].tolist() == [1, 0, 2] and _lists(columns["tags"]) == [[0, 1], [], []]
    assert columns["weight"].tolist()[:2] == [1, 2] and np.isnan(columns["weight"][2])
    assert columns["about"] == ["first", "second", ""]
    assert both.gallery.columns["colour"].tolist() == [0] and both.query.columns["about"] == ["fourth"]
    assert both.photo.ids == ["a/p", "b/p"] and not isinstance(columns, Lazy)
    apart = loading.load({"source": "joined", "kwargs": {"catalogs": {"a": a, "b": b}, "search": "b"}})
    assert apart.column_names["colour"] == ["a/blue", "a/red", "b/teal"]
    assert apart.train.columns["colour"].tolist() == [1, 0, 2]
    assert apart.gallery.columns["colour"].tolist() == [-1]  # blue, which train of b does not have


def test_tables_follow_their_listings(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        both = _join(a=_table(tmp_path, "a"), b=_table(tmp_path, "b"))
    assert "clicks/gallery of b are left out, which refer to its queries or gallery" in caplog.text
    clicks = both.table("clicks", "train")
    assert clicks.columns["photo"].tolist() == [0, 1] and _lists(clicks.columns["clicked"]) == [[1], [3]]
    assert _lists(clicks.columns["unclicked"]) == [[0], [2]] and clicks.rows_of["photo"] == "photo"
    assert both.train.ids[3] == "b/b2" and len(both.table("clicks", "gallery")) == 1
    assert _lists(both.table("queries", "train").columns["clicked"]) == [[1, 0], [3, 2]]
    assert both.table("outfits", "train").columns["listings"].tolist() == [[0, 1], [2, 3]]


def test_what_one_table_lacks_is_unknown(tmp_path):
    b = _table(tmp_path, "b", queries="text,clicked\nmug,b1\n", outfits="listings,compatible\nb1 b2 b1,1\n")
    both = _join(a=_table(tmp_path, "a"), b=b)
    queries, outfits = both.table("queries", "train").columns, both.table("outfits", "train").columns
    assert _lists(queries["position"]) == [[1, 2], [-1]] and _lists(queries["count"]) == [[3, 2], [1]]
    assert outfits["listings"].tolist() == [[0, 1, -1], [2, 3, 2]] and outfits["compatible"].tolist() == [-1, 1]


def test_the_embedded_catalogue_joins_without_being_computed(tmp_path, monkeypatch):
    both = _join("b", a=_table(tmp_path, "a"), b=SHOP)
    before = digest.of(both)
    assert not both.train.columns._made and not both.tables._made
    names = both.column_names
    train = both.train.columns
    assert names["colour"][train["colour"][0]] == "red" and set(names["colour"]) >= {"teal", "blue"}
    shop = loading.load(SHOP)
    for row in (0, 7):
        assert (
            names["colour"][train["colour"][2 + row]] == shop.column_names["colour"][shop.train.columns["colour"][row]]
        )
        own = [shop.column_names["parts"][part] for part in shop.gallery.columns["parts"][row]]
        assert [names["parts"][part] for part in both.gallery.columns["parts"][row]] == own
    assert train["style"][:2].tolist() == [-1, -1] and train["about"][2] == "" and _lists(train["tags"])[2] == []
    edits, own = both.table("edits", "train"), shop.table("edits", "train")
    assert (edits.columns["targets"].values == own.columns["targets"].values + 2).all() and len(edits) == 4
    clicks = both.table("clicks", "train")
    assert clicks.columns["photo"].tolist() == [0, 1, 2, 3] and len(clicks) == 4
    (tmp_path / "a" / "train.csv").write_text((tmp_path / "a" / "train.csv").read_text().replace("second", "2nd"))
    after = _join("b", a=_table(tmp_path, "a", train=(tmp_path / "a" / "train.csv").read_text()), b=SHOP)
    assert digest.differences(before, digest.of(after)) == ["train: columns"]


def test_columns_that_cannot_be_joined(tmp_path):
    a = _table(tmp_path, "a")
    with pytest.raises(InputError, match="colour is an attribute in a and not in b; give it another name"):
        _join(a=a, b=_table(tmp_path, "b", {"colour": ("colour", "text")}))
    with pytest.raises(InputError, match="the column weight is of different kinds in a, b .numbers and texts."):
        _join(a=a, b=_table(tmp_path, "b", {"weight": ("weight", "text")}))
    b = _table(tmp_path, "b", clicks="photo,clicked,unclicked\nb4,b3,\n")
    a = _table(tmp_path, "a", clicks="photo,clicked,unclicked\na4,a1,\n")
    b = _table(tmp_path, "b", clicks="photo,clicked,unclicked\np,b1,\n")
    with pytest.raises(InputError, match="photo of the table clicks/train refers to the photo split in b and to query"):
        _join(a=a, b=b)


def test_concatenated():
    one = np.array([[1, 2]], np.int64)
    assert joined_columns.concatenated([one, np.array([[3]])], [1, 1], padding=-1).tolist() == [[1, 2], [3, -1]]
    assert joined_columns.concatenated([None, Ragged.of([[1], []])], [2, 2]).indptr.tolist() == [0, 0, 0, 1, 1]
    box = joined_columns.concatenated([np.zeros((1, 4), np.float32), None], [1, 2])
    assert box.shape == (3, 4) and np.isnan(box[1:]).all() and box.dtype == np.float32
    with pytest.raises(ValueError, match="rows of 1 integers and rows of 2 integers"):
        joined_columns.concatenated([one, np.array([[3]])], [1, 1])
