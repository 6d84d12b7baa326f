"""Tables of every kind load alike: CSV, JSONL, Parquet, with ground truth as a file or as equal products."""

import pathlib

import cv2
import numpy as np
import polars as pl
import pytest
from ml_collections import ConfigDict

from retrieval_jax.data import info as info_lib
from retrieval_jax.data import loading
from retrieval_jax.errors import InputError


def _reconcile(counts: dict) -> None:
    for count in counts.values():
        for part in [count, *count["files"].values()]:
            assert part["read"] == part["kept"] + sum(part["set_aside"].values())
        assert count["read"] == sum(part["read"] for part in count["files"].values())


def _table(root: pathlib.Path, kind: str) -> dict:
    """Writes the same small catalogue as CSV, JSONL or Parquet; returns the kwargs of the table source."""
    train = {
        "sku": ["1", "2", "3"],
        "name": ["red shoes", "blue hat", "wool hat"],
        "group": ["Shoes", "Hats", "Hats"],
        "type": [20, 3, 100],
        "file": ["a.jpg", "b.jpg", "c.jpg"],
    }
    val = {"sku": ["4"], "name": ["a hat"], "group": ["Hats"], "type": [3], "file": ["a.jpg"]}
    query = {"sku": ["5", "6", "7"], "file": ["a.jpg", "b.jpg", "c.jpg"], "model": ["m1", "m2", ""]}
    gallery = {
        "sku": ["8", "9", "10", "5"],
        "file": ["a.jpg", "b.jpg", "c.jpg", "a.jpg"],
        "model": ["m1", "m3", "m1", ""],
        "type": [3, 999, 20, 100],
    }
    for name in "abc":
        (root / "pictures").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / "pictures" / f"{name}.jpg"), np.full((8, 6, 3), 100, np.uint8))
    files = {}
    for split, columns in {"train": train, "val": val, "query": query, "gallery": gallery}.items():
        files[split] = f"{split}.{kind}"
        frame = pl.DataFrame(columns)
        path = root / files[split]
        {
            "csv": frame.write_csv,
            "jsonl": frame.write_ndjson,
            "parquet": frame.write_parquet,
            "tsv": lambda path, frame=frame: frame.write_csv(path, separator="\t"),
        }[kind](path)
    columns = {"id": "sku", "title": "name", "image": "file", "categories": ("group", "type"), "product": "model"}
    return {"root": str(root), "files": files, "columns": columns, "image_root": "pictures"}


def _load_table(kwargs, **more):
    return loading.load(ConfigDict({"source": "table", "kwargs": kwargs | more}))


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_tables_of_every_kind_load_alike(tmp_path, kind):
    loaded = _load_table(_table(tmp_path, kind))
    assert loaded.train.ids == ["1", "2", "3"] and loaded.train.titles == ["red shoes", "blue hat", "wool hat"]
    assert loaded.category_levels == ("group", "type")
    assert loaded.category_names == (["Hats", "Shoes"], ["3", "20", "100"])
    assert loaded.train.categories.tolist() == [[1, 1], [0, 0], [0, 2]]
    assert loaded.gallery.categories.tolist() == [[-1, 0], [-1, -1], [-1, 1], [-1, 2]]  # unknown ones are accepted here
    assert loaded.query.titles is None and loaded.query.images[0].shape == (8, 6, 3)
    assert loaded.truth.indptr.tolist() == [0, 2, 2, 2] and loaded.truth.rows.tolist() == [0, 2]  # equal products
    _reconcile(loaded.counts)


@pytest.mark.parametrize(
    ("name", "content", "mapping"),
    [
        ("truth.csv", "query,gallery\n5,8 9\n7,10\n", None),
        ("truth.csv", "query,gallery\n5,9\n7,10\n5,8\n", None),  # one id a row
        ("truth.csv", "q,found\n5,9 8\n7,10\n", {"query": "q", "gallery": "found"}),
        ("truth.jsonl", '{"query": 5, "gallery": [8, "9"]}\n{"query": "7", "gallery": "10"}\n', None),
    ],
)
def test_ground_truth_tables(tmp_path, name, content, mapping):
    kwargs = _table(tmp_path, "csv")
    (tmp_path / name).write_text(content)
    loaded = _load_table(kwargs, ground_truth={"file": name} | mapping if mapping else name)
    assert loaded.truth.indptr.tolist() == [0, 2, 2, 3] and loaded.truth.rows.tolist() == [0, 1, 2]


def test_ground_truth_in_parquet_lists(tmp_path):
    kwargs = _table(tmp_path, "parquet")
    pl.DataFrame({"query": ["5", "7"], "gallery": [["9", "8"], ["10"]]}).write_parquet(tmp_path / "truth.parquet")
    loaded = _load_table(kwargs, ground_truth="truth.parquet")
    assert loaded.truth.indptr.tolist() == [0, 2, 2, 3] and loaded.truth.rows.tolist() == [0, 1, 2]


def test_bad_json_rows(tmp_path):
    kwargs = _table(tmp_path, "jsonl")
    with open(tmp_path / "train.jsonl", "ab") as file:
        file.write(
            b'\n{"sku": \n[1]\n{"sku": {"a": 1}, "name": "x", "group": "Hats", "type": 3, "file": "a.jpg"}\n'
            b'{"sku": "k", "name": null, "group": "Hats", "type": 3.0, "file": "a.jpg"}\n'
            b'{"sku": "l", "name": "\\ud800", "group": "Hats", "type": 3, "file": "a.jpg"}\n'
        )
    loaded = _load_table(kwargs, max_bad_share=0.9)
    assert [(entry["row"], entry["reason"]) for entry in loaded.set_aside] == [
        (5, "not a JSON object"),
        (6, "not a JSON object"),
        (7, "value is not text"),
        (8, "empty title"),
        (9, "not UTF-8 text"),
    ]
    _reconcile(loaded.counts)


def test_wholes_stored_as_floats_in_parquet(tmp_path):
    kwargs = _table(tmp_path, "parquet")
    frame = pl.read_parquet(tmp_path / "train.parquet")
    frame.with_columns(pl.Series("type", [20.0, 3.0, None])).write_parquet(tmp_path / "train.parquet")
    loaded = _load_table(kwargs, max_bad_share=0.4)
    assert loaded.category_names[1] == ["3", "20"]
    assert [(entry["row"], entry["reason"]) for entry in loaded.set_aside] == [(3, "empty category")]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"files": {"training": "train.csv"}},
            "files has 'training'; did you mean train.* .available: train, val, query, gallery, photo",
        ),
        ({"files": {"train": "trian.csv"}}, "trian.csv: there is no such file; did you mean 'train.csv'"),
        ({"files": {"train": ["train.csv"]}}, "files is .*; give one table, or map each of train, val"),
        ({"files": "train.csv"}, "train.csv has no column 'model' .config.data.kwargs.columns.product."),
        ({"root": None}, "config.data.kwargs.root: None is not a folder"),
        ({"max_bad_share": "0.1"}, "max_bad_share is a share from 0 to 1, not '0.1'"),
        ({"files": {"train": "train.xlsx"}}, "files end in .csv"),
        ({"files": {"train": "broken.parquet"}}, "broken.parquet: not a readable Parquet file"),
        ({"columns": {"identity": "sku"}}, "columns has 'identity'; it takes id, image, title, categories, product"),
        ({"columns": {"id": "SKU", "image": "file"}}, "missing column 'SKU' .our id.; the file has sku, .* mean 'sku'"),
        ({"columns": {"id": "sku", "image": "file", "title": "title"}}, "train.csv: missing column 'title'"),
        ({"ground_truth": {"path": "x.csv"}}, "ground_truth has 'path'"),
        ({"image_root": "images"}, "images: the folder of the pictures does not exist"),
    ],
)
def test_table_arguments(tmp_path, change, says):
    kwargs = _table(tmp_path, "csv")
    (tmp_path / "train.xlsx").write_bytes(b"PK")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match=says):
        loading.load({"source": "table", "kwargs": kwargs | change})


def test_tables_without_titles_or_categories(tmp_path):
    kwargs = _table(tmp_path, "csv")
    loaded = loading.load({"source": "table", "kwargs": kwargs | {"columns": {"id": "sku", "image": "file"}}})
    assert loaded.train.titles is None and loaded.train.categories is None and loaded.truth is None
    assert loaded.category_names == () and info_lib.of_split(loaded.train).category_counts == ()
