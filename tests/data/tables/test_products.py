"""The column of products, from which right answers come: empty cells, repairs, lost digits, near products."""

import logging
import pathlib

import cv2
import numpy as np
import polars as pl
import pytest

from retrieval_jax.data import loading
from retrieval_jax.errors import InputError

COLUMNS = {"id": "id", "title": "title", "categories": ("kind",), "product": "product"}


def _rows(*products, side="g", title="a title", kind="shoes"):
    return [
        {"id": f"{side}{n}", "image": "a.png", "title": title, "kind": kind, "product": product}
        for n, product in enumerate(products)
    ]


def _load(root: pathlib.Path, kind="csv", columns=COLUMNS, **splits):
    """Loads a catalogue of {split: rows}; train has two rows unless given."""
    cv2.imwrite(str(root / "a.png"), np.zeros((8, 8, 3), np.uint8))
    splits = {"train": _rows("", "", side="t")} | splits
    more = {name: splits.pop(name) for name in ("max_bad_share",) if name in splits}
    for split, rows in splits.items():
        frame = pl.DataFrame(rows, infer_schema_length=None)
        path = root / f"{split}.{kind}"
        write = {"csv": frame.write_csv, "jsonl": frame.write_ndjson, "parquet": frame.write_parquet}
        write |= {"tsv": lambda path, frame=frame: frame.write_csv(path, separator="\t")}
        write[kind](path)
    files = {split: f"{split}.{kind}" for split in splits}
    return loading.load({"source": "table", "kwargs": {"root": str(root), "files": files, "columns": columns} | more})


KINDS = pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])


@KINDS
def test_null_words_are_no_product(tmp_path, kind):
    words = ["NULL", "nan", "None", "<NA>", "\\N", "N/A", "#N/A", "NA", "-", "Does not apply", " ", "TRUE"]
    found = _load(tmp_path, kind, query=_rows(*words, "13", side="q"), gallery=_rows(*words, *words, "13"))
    assert found.truth.num_relevant.tolist() == [0] * len(words) + [1]
    assert len(found.gallery) == 2 * len(words) + 1 and not found.set_aside


@KINDS
def test_whole_numbers_stored_as_floats_are_the_same_product(tmp_path, kind):
    query = _rows("4006381333931.0", "", "'4006381333948", '="12"', side="q")
    found = _load(tmp_path, kind, query=query, gallery=_rows("4006381333931", "4006381333948", " 12 "))
    assert found.truth.num_relevant.tolist() == [1, 0, 1, 1]


def test_products_that_are_numbers_in_one_file_and_floats_in_another(tmp_path):
    query, gallery = _rows(12.0, None, side="q"), _rows(12, 13)
    for kind in ("jsonl", "parquet"):
        assert _load(tmp_path, kind, query=query, gallery=gallery).truth.num_relevant.tolist() == [1, 0]


@KINDS
def test_products_that_lost_digits_are_set_aside_and_counted(tmp_path, kind):
    rows = {"query": _rows("4.00638E+12", "13", side="q"), "gallery": _rows("4,00638E+12", "13", "5-Mar")}
    with pytest.raises(InputError, match=r"rounded product 1.*\n.*(?s:.)*'4.00638E\+12' is a number rounded by a spre"):
        _load(tmp_path, kind, **rows)
    found = _load(tmp_path, kind, **rows, max_bad_share=0.9)
    assert found.query.ids == ["q1"] and found.gallery.ids == ["g1"] and found.truth.num_relevant.tolist() == [1]
    reasons = [entry["reason"] for entry in found.set_aside]
    assert reasons == ["rounded product", "rounded product", "date in place of the product"]
    for count in found.counts.values():
        assert count["read"] == count["kept"] + sum(count["set_aside"].values())


def test_near_products_are_named(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        found = _load(tmp_path, query=_rows("0123", "a1", "7", side="q"), gallery=_rows("123", "A1", "7", "07"))
    assert found.truth.num_relevant.tolist() == [0, 0, 1]
    assert "products of queries that are nearly, but not exactly, those of gallery listings (3)" in caplog.text
    assert "'0123' (gallery: '123')" in caplog.text and "2 of these have no equal product" in caplog.text


def test_products_that_never_meet_are_reported(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        _load(tmp_path, query=_rows("x1", side="q"), gallery=_rows("7", "8"))
    assert "no product of a query is in the gallery" in caplog.text and "columns.product" in caplog.text


def test_a_product_that_half_the_gallery_has_is_reported(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        _load(tmp_path, query=_rows("7", side="q"), gallery=_rows(*["tbd"] * 12, *map(str, range(12))))
    assert "12 of 24 gallery listings have the product 'tbd'" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        _load(tmp_path, query=_rows("7", side="q"), gallery=_rows(*[str(n // 3) for n in range(60)]))
    assert not caplog.text


@KINDS
def test_titles_and_categories_of_query_and_gallery_are_optional_row_by_row(tmp_path, kind):
    query = _rows("7", side="q", title="", kind="NULL")
    gallery = _rows("7", "7", title="#N/A", kind="")
    found = _load(tmp_path, kind, query=query, gallery=gallery)
    assert found.truth.num_relevant.tolist() == [2] and not found.set_aside
    assert found.query.titles == [""] and found.gallery.titles == ["", ""]
    assert found.gallery.categories.tolist() == [[-1], [-1]]


@KINDS
def test_null_words_are_no_category(tmp_path, kind):
    words = ["nan", "NULL", "None", "#N/A", "N/A", "-"]
    train = [*_rows("", side="a"), *(_rows("", side=f"t{n}", kind=word)[0] for n, word in enumerate(words))]
    with pytest.raises(InputError, match="empty category 6"):
        _load(tmp_path, kind, train=train)
    found = _load(tmp_path, kind, train=train, max_bad_share=0.99)
    assert found.category_names == (["shoes"],) and len(found.train) == 1


def test_nearly_equal_categories_are_named(tmp_path, caplog):
    train = [*_rows("", side="a"), *_rows("", side="b", kind="Shoes"), *_rows("", side="c", kind="hats ")]
    with caplog.at_level(logging.WARNING):
        found = _load(tmp_path, train=train, val=_rows("", side="v", kind="hats"))
    assert found.category_names == (["Shoes", "hats", "shoes"],)
    assert "two categories of the train split are nearly the same: 'Shoes' and 'shoes'" in caplog.text
    with pytest.raises(InputError, match=r"kind 'HATS' does not occur in the train split \(there is 'hats'\)"):
        _load(tmp_path, train=train, val=_rows("", side="v", kind="HATS"))


def test_ids_of_the_ground_truth_are_repaired_alike(tmp_path):
    query, gallery = _rows("", "", side=""), _rows("", "", side="1")
    (tmp_path / "truth.csv").write_text("query,gallery\n0.0,10.0 '11\n1,NULL\n")
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    for split, rows in (("query", query), ("gallery", gallery)):
        pl.DataFrame(rows).write_csv(tmp_path / f"{split}.csv")
    kwargs = {"root": str(tmp_path), "files": {"query": "query.csv", "gallery": "gallery.csv"}}
    kwargs |= {"ground_truth": "truth.csv", "max_bad_share": 0.5}
    found = loading.load({"source": "table", "kwargs": kwargs})
    assert found.truth.num_relevant.tolist() == [2, 0]
    assert [entry["reason"] for entry in found.set_aside] == ["no relevant listing"]


def test_ids_of_tables_and_files_beside_are_repaired_alike(tmp_path):
    columns = COLUMNS | {"colour": ("colour", "category", "more.csv"), "tags": ("tags", "list", "more.csv")}
    (tmp_path / "more.csv").write_text("id,colour,tags\n1.0,red,a|NULL| b\n'2,none,-\n3,NULL,\n")
    (tmp_path / "outfits.csv").write_text("listings,compatible\n1.0 '2,1.0\n2 3,NULL\n")
    (tmp_path / "out.csv").write_text("split,id,reason\ntrain,4.0,leaks\n")
    train = [{"id": n, "image": "a.png", "title": "a", "kind": "x"} for n in (1, 2, 3, 4)]
    pl.DataFrame(train).write_csv(tmp_path / "train.csv")
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    columns.pop("product")
    kwargs = {"root": str(tmp_path), "files": {"train": "train.csv"}, "columns": columns}
    kwargs |= {"tables": {"outfits": "outfits.csv"}}
    found = loading.load({"source": "table", "kwargs": kwargs, "leave_out": str(tmp_path / "out.csv")})
    assert found.train.ids == ["1", "2", "3"]
    assert found.column_names == {"colour": ["none", "red"], "tags": ["a", "b"]}
    assert found.train.columns["colour"].tolist() == [1, 0, -1]
    assert found.train.columns["tags"].indptr.tolist() == [0, 2, 2, 2]
    table = found.table("outfits", "train")
    assert table.columns["listings"].tolist() == [[0, 1], [1, 2]] and table.columns["compatible"].tolist() == [1, -1]


def test_a_listed_id_with_a_blank_is_not_two_ids(tmp_path):
    (tmp_path / "truth.jsonl").write_text('{"query": "q0", "gallery": ["g0 g1"]}\n')
    pl.DataFrame({"query": ["q0"], "gallery": [["g0 g1"]]}).write_parquet(tmp_path / "truth.parquet")
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    for split in ("query", "gallery"):
        pl.DataFrame(_rows("", "", side=split[0])).write_csv(tmp_path / f"{split}.csv")
    kwargs = {"root": str(tmp_path), "files": {"query": "query.csv", "gallery": "gallery.csv"}}
    for name in ("truth.jsonl", "truth.parquet"):
        with pytest.raises(InputError, match="value is not text 1"):
            loading.load({"source": "table", "kwargs": kwargs | {"ground_truth": name}})


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("g0,q0", "'g0' is not in the query split .the gallery split has it: are the columns of the ground truth swap"),
        ('q0,"g0,g1"', "'g0,g1' is not in the gallery split .several ids are separated by blanks."),
        ("q0,G0", "'G0' is not in the gallery split .there is 'g0'."),
    ],
)
def test_a_ground_truth_that_names_unknown_ids_says_what_may_be_meant(tmp_path, row, says):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    for split in ("query", "gallery"):
        pl.DataFrame(_rows("", "", side=split[0])).write_csv(tmp_path / f"{split}.csv")
    (tmp_path / "truth.csv").write_text(f"query,gallery\n{row}\n")
    kwargs = {"root": str(tmp_path), "files": {"query": "query.csv", "gallery": "gallery.csv"}}
    with pytest.raises(InputError, match=says):
        loading.load({"source": "table", "kwargs": kwargs | {"ground_truth": "truth.csv"}})
